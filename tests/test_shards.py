"""Any backend, any number of workers, stopped and started again: the same bytes."""

import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from ruamel.yaml import YAML

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.pipeline import backends, processor, run, shards
from camdrift.storage import files
from conftest import ROOT, inside, script

CELL = "tiny_pgd"
LARGE = "tiny_dlfuzz"  # of many protocols, under an attack whose images are changed one by one
needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed"
)


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    """A copy of the built study with many small shards; workers have a thread each."""
    folder = shutil.copytree(tiny.folder, tmp_path / "study", symlinks=True)
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    content["micro_batch"] = 8
    yaml.dump(content, folder / "params.yaml")
    for name, value in {
        "PYTHONPATH": str(folder / "lib"), "OMP_NUM_THREADS": "1", "CAMDRIFT_WORKERS": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with inside(folder):
        yield folder
    torch.set_num_threads(threads)


def place(stage: str, cell: str = CELL) -> Path:
    return storage.cell_folder("tiny", cell, stage)


def built(stage: str, cell: str = CELL) -> dict[str, bytes]:
    """A stage's files, built anew."""
    shutil.rmtree(place(stage, cell))
    script(stage).main(run.Stage(f"{stage}@{cell}"))
    return {file.name: file.read_bytes() for file in sorted(place(stage, cell).iterdir())}


def shard_of(stage: str, folder: Path) -> dict[str, bytes]:
    """The files of a stage's first shard, which this process computes."""
    part = folder / "shard"
    storage.place(part, script(stage).shard(run.Stage(f"{stage}@{CELL}"), slice(0, 8)))
    content = {file.name: file.read_bytes() for file in sorted(part.iterdir())}
    shutil.rmtree(part)
    return content


def stop_after(monkeypatch, count: int) -> None:
    """Lets a stage be stopped after some shards."""
    real, done = shards.compute, []

    def compute(task):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(real(task))

    monkeypatch.setattr(shards, "compute", compute)


@pytest.mark.parametrize("backend", ["processes", pytest.param("dask", marks=needs_dask)])
def test_backends_give_the_same_bytes(study, backend, monkeypatch):
    for stage in ("attack", "score"):
        monkeypatch.setenv("CAMDRIFT_BACKEND", "serial")
        alone = built(stage, LARGE)
        monkeypatch.setenv("CAMDRIFT_BACKEND", backend)
        assert built(stage, LARGE) == alone, stage
    assert not list(storage.SHARDS.glob("*"))  # cleared in the end


@pytest.mark.parametrize(("gpu", "usual"), [(False, backends.processes), (True, backends.serial)])
def test_without_a_gpu_processes_share_the_shards(monkeypatch, gpu, usual):
    monkeypatch.delenv("CAMDRIFT_BACKEND")
    monkeypatch.setattr(run, "on_gpu", lambda: gpu)
    assert backends.current() is usual


@dataclass(frozen=True)
class Sheet:
    """A file that a task signs, and how many in its folder must be signed before it goes on."""

    path: Path
    company: int

    @property
    def signer(self) -> int:
        """The process that signed it."""
        return int(self.path.read_text())


def sheets(folder: Path, count: int, company: int) -> list[Sheet]:
    return [Sheet(folder / str(number), company) for number in range(count)]


def sign(sheet: Sheet) -> None:
    """Signs and waits for the company, two minutes at most: other processes load meanwhile."""
    sheet.path.write_text(str(os.getpid()))
    until = time.monotonic() + 120
    while len(list(sheet.path.parent.iterdir())) < sheet.company:
        assert time.monotonic() < until, f"{sheet.company} processes did not meet"
        time.sleep(0.05)


def test_this_process_works_beside_the_others(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMDRIFT_WORKERS", "3")
    signed = sheets(tmp_path, 3, company=3)
    assert list(backends.processes(sign, signed)) == [None] * 3
    signers = {sheet.signer for sheet in signed}
    assert os.getpid() in signers
    assert len(signers) == 3


BARS = """
import time
from pathlib import Path
from tqdm import tqdm
from camdrift.pipeline import backends

def show(path):  # a bar, as attacks do, in both processes
    path.touch()
    while len(list(path.parent.iterdir())) < 2:
        time.sleep(0.05)
    list(tqdm([1]))

if __name__ == "__main__":
    list(backends.processes(show, [Path("tasks/0"), Path("tasks/1")]))
"""


def test_processes_that_show_bars_leave_nothing_behind(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "bars.py").write_text(BARS)
    answer = subprocess.run(
        [sys.executable, "bars.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"CAMDRIFT_WORKERS": "2", "PYTHONPATH": str(ROOT / "lib")},
    )  # fmt: skip
    assert answer.stderr.count("100%") == 2
    assert "leaked" not in answer.stderr


def test_work_of_a_moment_waits_for_no_other_process(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMDRIFT_WORKERS", "2")
    signed = sheets(tmp_path, 9, company=1)
    list(backends.processes(sign, signed))
    assert {sheet.signer for sheet in signed} == {os.getpid()}
    assert not multiprocessing.active_children()


def fail(sheet: Sheet) -> None:
    """Fails in the other process, where the one that started it does not."""
    sign(sheet)
    if multiprocessing.parent_process():
        raise files.UnwrittenError("could not write x: the disk is full")


def test_a_fault_in_another_process_ends_the_stage(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMDRIFT_WORKERS", "2")
    with pytest.raises(files.UnwrittenError, match="the disk is full"):
        list(backends.processes(fail, sheets(tmp_path, 2, company=2)))
    assert not multiprocessing.active_children()


def suffer(sheet: Sheet) -> None:
    """Kills the other process, as a system does that is short of memory."""
    sign(sheet)
    if multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)


def test_where_another_process_is_killed_this_one_does_its_task(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CAMDRIFT_WORKERS", "2")
    signed = sheets(tmp_path, 2, company=2)
    assert len(list(backends.processes(suffer, signed))) == 2
    assert {sheet.signer for sheet in signed} == {os.getpid()}
    assert "a process was lost, by SIGKILL, perhaps for memory" in capsys.readouterr().err


def _wait(path: Path) -> str:
    """Says that it has begun, and ends when it is asked to."""
    path.touch()
    while not path.with_suffix(".end").exists():
        time.sleep(0.05)
    return "done"


def test_an_abandoned_stage_ends_no_process_of_another(monkeypatch, tmp_path):
    """As after a fault that a test or a notebook keeps: its generator ends at any later time."""
    monkeypatch.setenv("CAMDRIFT_WORKERS", "2")
    begun = tmp_path / "begun"
    parts = backends.processes(sign, sheets(tmp_path, 3, company=1))
    next(parts)

    def abandon() -> None:
        while not begun.exists():
            time.sleep(0.05)
        parts.close()
        begun.with_suffix(".end").touch()

    thread = threading.Thread(target=abandon)
    thread.start()
    assert processor.alike(1, _wait, begun) == "done"
    thread.join()
    assert not multiprocessing.active_children()


def test_a_shard_has_one_thread_and_its_stage_as_many_as_before(study, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run.shard_threads() == 1
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with shards._torch_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        built("attack")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run.shard_threads() == 3
    monkeypatch.setenv("CAMDRIFT_SHARD_THREADS", "2")
    assert (run.threads(), run.shard_threads()) == (3, 2)


def test_a_run_that_was_stopped_takes_up_where_it_was(study, monkeypatch):
    whole = built("cam")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 3)
        built("cam")
    there = sorted(storage.SHARDS.rglob(files.MANIFEST))
    assert len(there) == 3
    damaged = there[1].parent / "values.npy"
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"ab")
    done = []
    real = shards.compute
    monkeypatch.setattr(shards, "compute", lambda task: done.append(task.places) or real(task))
    place("cam").mkdir(exist_ok=True)
    assert built("cam") == whole
    assert [places.start for places in done] == [8, 24, 32, 40, 48]  # the damaged one again


def test_another_setting_or_code_takes_nothing_from_a_stopped_run(study):
    before = shards.fingerprint(run.Stage(f"cam@{CELL}"))
    assert before == shards.fingerprint(run.Stage(f"cam@{CELL}"))
    other = run.Stage(f"cam@{CELL}")
    other.params["micro_batch"] = 16
    assert shards.fingerprint(other) != before
    script_ = study / "stages/cam.py"
    script_.write_text(script_.read_text() + "# changed\n")
    assert shards.fingerprint(run.Stage(f"cam@{CELL}")) != before


def test_inputs_of_a_shard_are_part_of_its_name(study):
    before = shards.fingerprint(run.Stage(f"cam@{CELL}"))
    noise = storage.read(storage.Noise, place("noise"))
    raised = noise.raised.assign(scale=noise.raised["scale"] + 1)
    other = dataclasses.replace(
        noise, draws=noise.draws[:], controls=noise.controls[:], raised=raised
    )
    storage.write(place("noise"), other)
    assert shards.fingerprint(run.Stage(f"cam@{CELL}")) != before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CAMDRIFT_BACKEND", "cluster", "wanted one of serial, processes, dask, got 'cluster'"),
        ("CAMDRIFT_WORKERS", "many", "wanted a number from 1, got 'many'"),
        ("CAMDRIFT_WORKERS", "0", "wanted a number from 1, got '0'"),
    ],
)
def test_a_wrong_backend_is_refused_before_work_begins(study, monkeypatch, name, value, message):
    monkeypatch.setenv("CAMDRIFT_BACKEND", "processes")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(shards, "compute", lambda task: pytest.fail("work began"))
    with pytest.raises(settings.SettingsError, match=message):
        script("score").main(run.Stage(f"score@{CELL}"))


def test_a_worker_of_another_revision_is_refused(study):
    stage = run.Stage(f"score@{CELL}")
    task = shards.Task(
        stage, "shard", slice(0, 8), (), Path("x"), Path.cwd(), shards.code_of(stage.name), "other",
        1,
    )  # fmt: skip
    with pytest.raises(settings.SettingsError, match="another camdrift"):
        shards.compute(task)
    assert not Path("x").exists()


@needs_dask
def test_a_scheduler_that_is_not_there_is_named(study, monkeypatch):
    import dask

    monkeypatch.setenv("CAMDRIFT_BACKEND", "dask")
    monkeypatch.setenv("CAMDRIFT_SCHEDULER", "tcp://127.0.0.1:9")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(settings.SettingsError, match="tcp://127.0.0.1:9 cannot be reached"),
    ):
        built("score")


def full(task: object) -> None:
    raise files.UnwrittenError("could not write x: the disk is full")


@needs_dask
def test_what_a_worker_says_is_not_taken_for_a_scheduler_that_is_gone(monkeypatch):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        monkeypatch.setenv("CAMDRIFT_SCHEDULER", cluster.scheduler_address)
        with pytest.raises(files.UnwrittenError, match="the disk is full"):
            list(backends.dask(full, [1]))


def test_a_shard_of_two_writers_is_whole(study, tmp_path):
    stage = run.Stage(f"noise@{CELL}")
    artefact = script("noise").match(stage, slice(0, 4))
    folder = tmp_path / "0000000"
    storage.place(folder, artefact)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    storage.place(folder, artefact)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path != study] == ["0000000"]
    assert storage.read(storage.Noise, folder).facts == artefact.facts
    with pytest.raises(FileNotFoundError):  # a stage that has cleared its shards wants no more
        storage.place(tmp_path / "cleared" / "0000000", artefact)
    assert not (tmp_path / "cleared").exists()


def test_one_run_waits_for_another_at_the_same_shards(tmp_path):
    folder, order = tmp_path / "shards", []

    def second() -> None:
        with shards._alone(folder):
            order.append("second")

    with shards._alone(folder):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
        shutil.rmtree(folder)  # as a stage that ends
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_workers_have_as_many_threads_as_the_run_whatever_they_were_started_with(study):
    """Dask starts its workers with one."""
    stage = run.Stage(f"score@{CELL}")
    before = shards.fingerprint(stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        assert shards.fingerprint(stage) != before
        seen = []
        module = script("score")
        patch.setattr(shards, "_script", lambda path: module)
        patch.setattr(
            module, "shard", lambda *given: seen.append(torch.get_num_threads()) or Nothing()
        )
        with shards.results(stage, "shard", 8, size=8):
            pass
    assert seen == [2]


def test_several_threads_give_the_same_bytes_every_time(study, monkeypatch):
    """Whatever `make test` gives each of its workers: most stages have more than one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    for stage in ("attack", "cam", "score"):
        assert shard_of(stage, study) == shard_of(stage, study), stage
    weights = storage.model_folder("vgg11_eighth")
    trained = []
    for _ in range(2):
        shutil.rmtree(weights)
        script("train").main(run.Stage("train@vgg11_eighth"))
        trained.append({file.name: file.read_bytes() for file in weights.iterdir()})
    assert trained[0] == trained[1]


@dataclass(frozen=True)
class Nothing:
    pass


def test_a_process_holds_a_model_once(study):
    stage = run.Stage(f"cam@{CELL}")
    first = loading.load("vgg11_eighth", **stage.calling)
    script("cam").shard(stage, slice(0, 4))
    assert loading.load("vgg11_eighth", **stage.calling) is first


def test_workers_end_with_a_stage_that_was_killed(study):
    """SIGKILL lets a process say nothing to those that it started."""
    program = study / "killed.py"
    program.write_text(
        "import multiprocessing, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from pathlib import Path\n"
        "from camdrift.pipeline import children\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    with ProcessPoolExecutor(1, mp_context=spawn, initializer=children.follow) as pool:\n"
        "        pool.submit(Path('begun').touch)\n"
        "        pool.submit(time.sleep, 60)\n"
        "        time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, str(program)])
    for _ in range(600):
        if (study / "begun").exists():  # the worker watches from before its first task
            break
        time.sleep(0.1)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2  # the worker and multiprocessing's tracker
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert gone


@needs_dask
def test_a_lost_worker_changes_nothing(study, monkeypatch):
    alone = built("cam")
    monkeypatch.setenv("CAMDRIFT_BACKEND", "dask")
    lost: list[int] = []
    update = shards.tqdm.update

    def lose(bar, n=1):
        for child in psutil.Process().children(recursive=True):
            if not lost and "spawn_main" in " ".join(child.cmdline()):
                child.kill()
                lost.append(child.pid)
        return update(bar, n)

    monkeypatch.setattr(shards.tqdm, "update", lose)
    assert built("cam") == alone
    assert lost


@needs_dask
def test_workers_that_were_started_by_hand(study, monkeypatch, tmp_path):
    """The README's commands: a scheduler, and a worker in the repository's folder."""
    alone = built("score")
    named = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file"]
    with subprocess.Popen([*scheduler, str(named)], stderr=subprocess.DEVNULL) as first:
        address = ""
        while not address and first.poll() is None:
            time.sleep(0.1)
            with contextlib.suppress(OSError, ValueError):  # not there, or half written
                address = files.read_json(named)["address"]
        worker = [*dask, "worker", "--nthreads", "1", "--no-dashboard", address]
        with subprocess.Popen(worker, stderr=subprocess.DEVNULL) as second:
            monkeypatch.setenv("CAMDRIFT_BACKEND", "dask")
            monkeypatch.setenv("CAMDRIFT_SCHEDULER", address)
            try:
                assert built("score") == alone
            finally:
                second.terminate()
                first.terminate()


@needs_dask
def test_slurm_is_asked_for_as_many_jobs(study, monkeypatch):
    import dask_jobqueue

    class Cluster:
        asked = 0

        def __enter__(self) -> "Cluster":
            return self

        def __exit__(self, *fault: object) -> None:
            pass

        def scale(self, *, jobs: int) -> None:
            self.asked = jobs

    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", Cluster)
    monkeypatch.setenv("CAMDRIFT_SCHEDULER", "slurm")
    monkeypatch.setenv("CAMDRIFT_WORKERS", "16")
    with backends._cluster() as cluster:
        assert cluster.asked == 16

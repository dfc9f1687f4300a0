"""The tiny study, disturbed: killed, starved, started twice; in the end the same `dvc.lock`."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from concurrent import futures
from pathlib import Path

import psutil
import pytest

from camdrift.storage import files
from conftest import stage_names
from small import environment, repro, start, study

pytestmark = pytest.mark.faults

KILLS = 20
CELL_STAGES = ("attack", "noise", "cam", "score", "detect", "report")
TOLERANCE = 0.001  # one in the last digit that metrics and the claims table show


def stage(
    folder: Path, name: str, limit: int | None = None, **more: str
) -> subprocess.CompletedProcess:
    """Runs one stage; no file may grow above a limit in bytes, as if the disk were full."""

    def starve() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        ["sh", "stages/run", name], cwd=folder, preexec_fn=starve,
        env=environment(**more), capture_output=True, text=True,
    )  # fmt: skip


def scripts(process: subprocess.Popen) -> list[psutil.Process]:
    """The running stage's processes."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "stages/" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def running(process: subprocess.Popen, *, after: float = 0) -> list[psutil.Process]:
    """The processes of a stage that runs then, or as soon as one does, in seconds."""
    until, stages = time.monotonic() + after, []
    while process.poll() is None and not (time.monotonic() > until and stages):
        time.sleep(0.05)
        stages = scripts(process)
    assert process.poll() is None, process.communicate()[0]  # it came to its end first
    return stages


def leftovers(folder: Path) -> list[Path]:
    return [*(folder / "data").rglob("*.tmp"), *(folder / "data/shards").rglob("*")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, str]:
    folder = study(tmp_path_factory.mktemp("undisturbed") / "study")
    repro(folder)
    return folder, (folder / "dvc.lock").read_text()


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_stages_killed_at_random_moments(undisturbed, tmp_path, backend):
    """Half of the twenty in this process, half with workers; and DVC itself once each."""
    folder = study(tmp_path / "study")
    rng, killed = random.Random(backend), 0
    more = {"CAMDRIFT_BACKEND": backend, "CAMDRIFT_WORKERS": "2"}
    while killed < KILLS // 2:
        process = start(folder, "repro", **more)
        for number, script in enumerate(running(process, after=rng.uniform(3, 8))):
            with contextlib.suppress(psutil.NoSuchProcess):
                script.kill()
                killed += number == 0
        process.communicate()
    process = start(folder, "repro", **more)
    running(process, after=rng.uniform(3, 8))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    repro(folder, **more)
    assert (folder / "dvc.lock").read_text() == undisturbed[1]
    assert not leftovers(folder)


@pytest.mark.parametrize("what", ["shard", "whole"])
def test_a_full_disk_is_said_and_the_next_run_goes_on(undisturbed, what):
    folder, lock = undisturbed
    values = folder / "data/studies/tiny/tiny_dlfuzz/cam/values.npy"
    limit = {"shard": 50_000, "whole": values.stat().st_size - 1}[what]
    answer = stage(folder, "cam@tiny_dlfuzz", limit=limit)
    assert answer.returncode == 1
    last = answer.stderr.strip().splitlines()[-1]
    assert re.search(r"could not write .*cam.*make room", last), last
    assert "Traceback" not in answer.stderr
    assert not list((folder / "data").rglob("*.tmp"))
    assert bool(list((folder / "data/shards").rglob(files.MANIFEST))) == (what == "whole")
    repro(folder, "--force", "--single-item", "cam@tiny_dlfuzz")
    assert (folder / "dvc.lock").read_text() == lock
    assert not leftovers(folder)


@pytest.mark.parametrize("how", ["truncated", "flipped", "another's"])
def test_a_damaged_artefact_is_named_and_built_anew_by_what_is_said(undisturbed, how):
    folder, lock = undisturbed
    path = folder / "data/studies/tiny/tiny_fgsm/cam/values.npy"
    before, facts = path.read_bytes(), path.stat()
    other = (folder / "data/studies/tiny/tiny_dlfuzz/cam/values.npy").read_bytes()
    path.chmod(0o644)
    flipped = before[:-1] + bytes([before[-1] ^ 1])
    path.write_bytes({"truncated": before[:-9], "flipped": flipped, "another's": other}[how])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a disk that fails leaves it
    answer = stage(folder, "score@tiny_fgsm")
    assert answer.returncode == 1
    assert "values.npy" in answer.stderr and "Traceback" not in answer.stderr
    match = re.search(r"To build it anew: dvc (.*)", answer.stderr)
    assert match, answer.stderr
    process = start(folder, *match[1].split())
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert path.read_bytes() == before
    repro(folder)
    assert (folder / "dvc.lock").read_text() == lock


def test_two_runs_at_once(undisturbed, tmp_path):
    """DVC lets one work; the other says so, or comes to the same end."""
    folder = study(tmp_path / "study")
    first = start(folder, "repro")
    running(first)
    second = start(folder, "repro")
    with futures.ThreadPoolExecutor() as pool:  # a pipe that nobody reads would stop the first
        (own, _), (said, _) = pool.map(subprocess.Popen.communicate, (first, second))
    assert first.returncode == 0, own
    assert second.returncode == 0 or re.search("lock|busy", said), said
    repro(folder)
    assert (folder / "dvc.lock").read_text() == undisturbed[1]
    assert not leftovers(folder)


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_ctrl_c_leaves_no_traceback_and_the_next_run_goes_on(undisturbed, backend):
    folder, lock = undisturbed
    process = subprocess.Popen(
        ["sh", "stages/run", "cam@tiny_dlfuzz"], cwd=folder, stderr=subprocess.PIPE, text=True,
        env=environment(
            CAMDRIFT_BACKEND=backend, CAMDRIFT_WORKERS="2"
        ),
        start_new_session=True,
    )  # fmt: skip
    for _ in range(600):
        if list((folder / "data/shards").rglob(files.MANIFEST)):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "cam@tiny_dlfuzz was stopped" in said
    assert "Traceback" not in said, said
    assert list((folder / "data/shards").rglob(files.MANIFEST))
    repro(folder, "--force", "--single-item", "cam@tiny_dlfuzz")
    assert (folder / "dvc.lock").read_text() == lock
    assert not leftovers(folder)


def test_one_thread_and_two_give_the_same_metrics(undisturbed, tmp_path):
    """With the same weights: training makes much of last digits."""
    folder = shutil.copytree(undisturbed[0], tmp_path / "study", symlinks=True)
    place = folder / "data/reports/tiny/metrics.json"
    one = json.loads(place.read_text())
    names = stage_names(folder)
    for name in (n for group in CELL_STAGES for n in names if n.partition("@")[0] == group):
        answer = stage(folder, name, OMP_NUM_THREADS="2")
        assert answer.returncode == 0, answer.stderr
    two = json.loads(place.read_text())
    assert one.keys() == two.keys()
    for cell in two:
        assert one[cell] == pytest.approx(two[cell], rel=0, abs=TOLERANCE)

"""Shards: a stage's images, some at a time, in this process, in several, or on a cluster.

CAMDRIFT_BACKEND says where: `serial` (the default), `processes` on this machine, CAMDRIFT_WORKERS
of them, or `dask`. CAMDRIFT_SCHEDULER names Dask's scheduler, or is `slurm`: then as many jobs are
asked for, as dask-jobqueue's own file describes them. A cluster shares the repository's folder.

What a shard gives is kept in a folder that a digest of its code, settings and inputs names, so a
run that was stopped takes up where it was, whatever the backend. A finished stage clears its own.
Results are the same byte for byte with as many threads a process (OMP_NUM_THREADS); another number
of threads changes last digits.
"""

import contextlib
import hashlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

import camdrift
from camdrift import artifacts, files, params, run
from camdrift.settings import SettingsError

PACKAGE = Path(camdrift.__file__).parent
SOURCE = Path("lib/camdrift")  # where a repository has it


@dataclass(frozen=True)
class Task:
    """One shard's work.

    stage: its settings travel with it.
    work: the function in the stage's script, (stage, places, *given) -> artefact.
    places: of the images.
    given: folders of what an earlier step of the stage made.
    folder: of the result.
    root: of the repository.
    files: of code that the stage depends on.
    code: a digest of these.
    """

    stage: run.Stage
    work: str
    places: slice
    given: tuple[Path, ...]
    folder: Path
    root: Path
    files: tuple[Path, ...]
    code: str


@contextlib.contextmanager
def of(
    stage: run.Stage, work: str, count: int, *, size: int, given: Sequence[Path] = ()
) -> Iterator[list[Path]]:
    """Lends the folders of the results of all shards, in order, and clears them in the end.

    They stay where the block does not end well.

    Args:
        stage: whose script has the function.
        work: its name; it takes the stage, the places of some images as a slice, and what is given.
        count: of images.
        size: images of a shard.
        given: folders of what an earlier step of the stage made, in this same way.

    Raises:
        SettingsError: the backend is unknown, or Dask is not installed.
    """
    compute_all = _backend()
    key = fingerprint(stage)
    paths = code_of(stage.name)
    version = code(paths)
    tasks = [
        Task(
            stage, work, slice(start, min(start + size, count)), tuple(given),
            artifacts.shard_folder(stage.name, key, work, start), Path.cwd(), paths, version,
        )
        for start in range(0, count, size)
    ]  # fmt: skip
    waiting = [task for task in tasks if not _whole(task.folder)]
    done = len(tasks) - len(waiting)
    with tqdm(total=len(tasks), initial=done, desc=stage.name, unit="shard") as bar:
        for _ in compute_all(waiting):
            bar.update()
    yield [task.folder for task in tasks]
    own = artifacts.shard_folder(stage.name, key, work, 0).parent
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):
        own.parent.rmdir()


def of_attacked(stage: run.Stage, kind: type, *, size: int) -> None:
    """Writes a cell's artefact of a kind: what the script's `shard` gives of its attacked images.

    Args:
        stage: of the cell.
        kind: of the artefact.
        size: images of a shard.
    """
    of_cell = (stage.cell.study, stage.key)
    attacked = artifacts.read(artifacts.Attacked, artifacts.cell_folder(*of_cell, "attack"))
    with of(stage, "shard", len(attacked.images), size=size) as parts:
        folder = artifacts.cell_folder(*of_cell, stage.group)
        artifacts.join(folder, artifacts.each(kind, parts))


def fingerprint(stage: run.Stage) -> str:
    """Returns a digest of what a stage's results depend on: code, settings, inputs, packages."""
    inputs = {
        path.as_posix(): artifacts.digest(path)
        for path in params.dependencies(stage.name)
        if path.is_relative_to(artifacts.DATA) and path != artifacts.CHECKED
    }
    versions = run.environment()["packages"]
    facts = [stage.name, stage.params, code(code_of(stage.name)), inputs, versions]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_of(stage: str) -> tuple[Path, ...]:
    """Returns the files and folders of code that a stage depends on."""
    paths = params.dependencies(stage)
    return tuple(p for p in paths if p.is_relative_to(SOURCE) or p.suffix == ".py")


def code(paths: Sequence[Path]) -> str:
    """Returns a digest of files of code, those of the library as this process imports them."""
    found = hashlib.sha256()
    for path in paths:
        if path.is_relative_to(SOURCE):
            own = PACKAGE / path.relative_to(SOURCE)
            for file in sorted(own.rglob("*.py")) if own.is_dir() else [own]:
                found.update(file.read_bytes())
        else:
            found.update(path.read_bytes())
    return found.hexdigest()


def _whole(folder: Path) -> bool:
    """Whether a shard is there; one that was damaged is cleared away."""
    if not (folder / files.MANIFEST).exists():
        return False
    try:
        parts = list(files.read_json(folder / files.MANIFEST)["files"])
        files.check(folder, folder.as_posix(), parts, content=True)
    except (ValueError, KeyError, OSError, files.DamagedError):
        shutil.rmtree(folder)
        return False
    return True


def compute(task: Task) -> None:
    """Does one shard's work and writes its result.

    Raises:
        SettingsError: this process has another version of the library.
    """
    with contextlib.chdir(task.root):
        if _loaded(task.files) != task.code:
            raise SettingsError(
                f"a worker has another camdrift ({PACKAGE}) than the run in {task.root}; start "
                "workers from the same revision"
            )
        work = getattr(_script(task.stage.group, task.code), task.work)
        run.deterministic()
        artifacts.write(task.folder, work(task.stage, task.places, *task.given))


@lru_cache(maxsize=64)
def _loaded(paths: tuple[Path, ...]) -> str:
    """Returns the digest when this process first saw the files: what it has imported stays."""
    return code(paths)


@lru_cache(maxsize=8)
def _script(group: str, version: str) -> ModuleType:
    """Returns a stage's script as a module; `version` tells later ones of a long-lived worker."""
    spec = importlib.util.spec_from_file_location(f"stage_{group}", f"stages/{group}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Backend = Callable[[Sequence[Task]], Iterator[None]]


def _backend() -> Backend:
    chosen = os.environ.get("CAMDRIFT_BACKEND") or "serial"
    known: dict[str, Backend] = {"serial": _serial, "processes": _processes, "dask": _dask}
    if chosen not in known:
        raise SettingsError(f"CAMDRIFT_BACKEND: wanted one of {', '.join(known)}, got '{chosen}'")
    return known[chosen]


def _serial(tasks: Sequence[Task]) -> Iterator[None]:
    yield from map(compute, tasks)


def _processes(tasks: Sequence[Task]) -> Iterator[None]:
    count = min(run.workers(), len(tasks))
    if not count:
        return
    with (
        _environment(OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS") or str(_share())),
        futures.ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_follow
        ) as pool,
    ):
        try:
            for done in futures.as_completed([pool.submit(compute, task) for task in tasks]):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # What they work at is lost and made again; to wait for it may take minutes.
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


def _share() -> int:
    """Returns the number of threads that each process has where none is asked for."""
    return max(1, run.threads() // run.workers())


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets environment variables for processes that start within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _follow() -> None:
    """Lets a worker end with the process that started it, however that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent answers
    parent = multiprocessing.parent_process()
    assert parent

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _dask(tasks: Sequence[Task]) -> Iterator[None]:
    if not tasks:
        return
    try:
        import distributed
    except ImportError as fault:
        raise SettingsError(
            "CAMDRIFT_BACKEND=dask wants Dask, which is not installed; run "
            "`pip install -c constraints.txt -e .[dask]`"
        ) from fault
    with _cluster() as address, distributed.Client(address) as client:
        for done in distributed.as_completed(client.map(compute, tasks, pure=False)):
            yield done.result()


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Lends Dask's cluster: the one that CAMDRIFT_SCHEDULER names, or one on this machine."""
    named = os.environ.get("CAMDRIFT_SCHEDULER") or ""
    if named == "slurm":
        from dask_jobqueue import SLURMCluster

        with SLURMCluster() as cluster:
            cluster.scale(jobs=run.workers())
            yield cluster
    elif named:
        yield named
    else:
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=run.workers(), threads_per_worker=1, dashboard_address=None
        ) as cluster:
            yield cluster

"""Shards: parts of a stage's images, computed one by one by a backend, see `backends`.

A shard's result is kept in a folder named by a digest of its code, settings, inputs and packages,
so an interrupted run resumes where it stopped, with any backend. A finished stage deletes its
shards. Every shard is computed with the same number of threads (see `run.shard_threads`), so
results are the same byte for byte; another number of threads changes last digits.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from filelock import FileLock
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import camdrift
from camdrift import storage
from camdrift.pipeline import backends, run
from camdrift.settings import SettingsError, params
from camdrift.storage import files

PACKAGE = Path(camdrift.__file__).parent
SOURCE = Path("lib/camdrift")  # the package's folder in a repository
# The device of models and the order of sums: no settings, but they change last digits.
PLACES = ("CAMDRIFT_DEVICE", "CUDA_VISIBLE_DEVICES", "MKL_CBWR")


@dataclass(frozen=True)
class Task:
    """One shard's work.

    stage: the stage, with its settings.
    work: the function in the stage's script, (stage, places, *parts) -> artefact.
    places: the indices of the images.
    parts: folders with the results of an earlier step of the stage.
    folder: the folder of the result.
    root: the root of the repository.
    files: the files of code that the stage depends on.
    code: a digest of these.
    threads: the number of threads to compute with.
    """

    stage: run.Stage
    work: str
    places: slice
    parts: tuple[Path, ...]
    folder: Path
    root: Path
    files: tuple[Path, ...]
    code: str
    threads: int


@contextlib.contextmanager
def results(
    stage: run.Stage, work: str, count: int, *, size: int, parts: Sequence[Path] = ()
) -> Iterator[list[Path]]:
    """Lends the folders of the results of all shards, in order, and deletes them in the end.

    They stay if the block fails. Another run that needs the same ones waits. Afterwards the
    stage's `measured` holds `images_a_second` by work, which includes the start of workers, and the
    number of `processes` on this machine.

    Args:
        stage: the stage whose script has the function.
        work: the function's name; it takes the stage, a slice of the images, and `parts`.
        count: the number of images.
        size: the number of images in a shard.
        parts: folders with the results of an earlier step of the stage, from this same function.

    Raises:
        SettingsError: the backend is unknown, or cannot be used.
        DamagedError: an input is not the file that was written.
    """
    compute_all = backends.current()
    key = fingerprint(stage)
    paths = code_of(stage.name)
    version = code(paths)
    tasks = [
        Task(
            stage, work, slice(start, min(start + size, count)), tuple(parts),
            storage.shard_folder(stage.name, key, work, start), Path.cwd(), paths, version,
            run.shard_threads(),
        )
        for start in range(0, count, size)
    ]  # fmt: skip
    own = storage.shard_folder(stage.name, key, work, 0).parent
    with _alone(own):
        waiting = [task for task in tasks if not _whole(task.folder)]
        done = len(tasks) - len(waiting)
        began = time.monotonic()
        with tqdm(total=len(tasks), initial=done, desc=stage.name, unit="shard") as bar:
            for _ in compute_all(compute, waiting):
                bar.update()
        if compute_all is backends.processes:
            processes = min(run.workers(), len(waiting))
            stage.measured["processes"] = max(processes, stage.measured.get("processes", 1))
        if images := sum(task.places.stop - task.places.start for task in waiting):
            pace = round(images / (time.monotonic() - began), 2)
            stage.measured.setdefault("images_a_second", {})[work] = pace
        yield [task.folder for task in tasks]
        shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):
        own.parent.rmdir()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Creates a folder and locks it for this process, as soon as no other process has it."""
    lock = FileLock(folder / ".lock")
    while not lock.is_locked:
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except FileNotFoundError:  # another process has just deleted it
                continue
            except OSError as fault:
                if fault.errno not in NO_LOCKS:
                    raise
                break
    try:
        yield
    finally:
        lock.release()


# Of file systems that lock no file: there, runs at the same shards do not wait for one another.
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def by_image(stage: run.Stage, work: str, kind: type, part: str, *, size: int) -> None:
    """Writes a cell's artefact, joined from what a function of the script returns for all images.

    Args:
        stage: the stage of the cell.
        work: the function's name, see `results`.
        kind: the artefact's class.
        part: the artefact's name within the cell.
        size: the number of images in a shard.
    """
    of_cell = (stage.cell.study, stage.key)
    attacked = storage.read(storage.Attacked, storage.cell_folder(*of_cell, "attack"))
    with results(stage, work, len(attacked.images), size=size) as parts:
        folder = storage.cell_folder(*of_cell, part)
        storage.join(folder, storage.each(kind, parts))


def fingerprint(stage: run.Stage) -> str:
    """Returns a digest of everything that a stage's results depend on.

    Code, settings, inputs (which are checked), packages, threads and the device of models.

    Raises:
        DamagedError: an input is not the file that was written.
    """
    inputs = {
        path.as_posix(): storage.digest(path, content=True)
        for dependency in params.dependencies(stage.name)
        if dependency.is_relative_to(storage.DATA) and dependency != storage.CHECKED
        for path in _artefacts(dependency)
    }
    packages = sorted(f"{d.name} {d.version}" for d in importlib.metadata.distributions())
    places = [run.shard_threads(), *(os.environ.get(name, "") for name in PLACES)]
    facts = [stage.name, stage.params, code(code_of(stage.name)), inputs, packages, places]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _artefacts(folder: Path) -> list[Path]:
    """Returns the folder of an artefact, or those of all artefacts within a folder."""
    inside = sorted(manifest.parent for manifest in folder.glob(f"*/{files.MANIFEST}"))
    return inside or [folder]


def code_of(stage: str) -> tuple[Path, ...]:
    """Returns the files and folders of code that a stage depends on."""
    paths = params.dependencies(stage)
    return tuple(p for p in paths if p.is_relative_to(SOURCE) or p.suffix == ".py")


def code(paths: Sequence[Path]) -> str:
    """Returns a digest of files of code, those of the library as this process imports them."""
    return _combine(hashlib.sha256(file.read_bytes()).digest() for file in _files(paths))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        own = PACKAGE / path.relative_to(SOURCE) if path.is_relative_to(SOURCE) else path
        yield from sorted(own.rglob("*.py")) if own.is_dir() else [own]


def _combine(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _whole(folder: Path) -> bool:
    """Returns whether a shard is there; a damaged one is deleted."""
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
    """Does one shard's work and writes its result, whole or not at all.

    The process that starts the stage has checked the inputs.

    Raises:
        SettingsError: this process has another version of the library or of the stage's script.
    """
    # A worker's threads share the folder, and nothing may call a network while another is traced.
    with ONE, contextlib.chdir(task.root), threadpool_limits(task.threads):
        if _code_at_import(task.files) != task.code:
            raise SettingsError(
                f"a worker has another camdrift ({PACKAGE}), or another stages/"
                f"{task.stage.group}.py, than the run in {task.root}; start workers anew, from the "
                "same revision"
            )
        work = getattr(_script(Path("stages", f"{task.stage.group}.py").absolute()), task.work)
        run.deterministic()
        with _torch_threads(task.threads), files.checked():
            artefact = work(task.stage, task.places, *task.parts)
        storage.place(task.folder, artefact)


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Lets torch, if it is loaded, compute with some threads within the block."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else count
    if torch:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


ONE = threading.Lock()


def _code_at_import(paths: Sequence[Path]) -> str:
    """Returns the `code` of files as this process first read them, since it keeps its imports."""
    return _combine(_digest(file.absolute()) for file in _files(paths))


@cache
def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


for _file in PACKAGE.rglob("*.py"):
    _digest(_file.absolute())  # now, before any of them changes


@cache
def _script(path: Path) -> ModuleType:
    """Returns a stage's script as a module."""
    spec = importlib.util.spec_from_file_location(f"stage_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

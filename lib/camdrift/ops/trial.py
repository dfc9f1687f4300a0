"""Trial: runs a stage on two pinches, in a process of its own, and measures it."""

import contextlib
import multiprocessing
import os
import platform
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import psutil

from camdrift.pipeline import run
from camdrift.settings import params

MB = 1e6
SHORT = 1.5  # seconds
# The fastest way to start many stages: a process that has loaded what most of them load first, and
# forks itself for each. It computes nothing, since threads of OpenMP would not survive the fork.
PRELOADED = ("camdrift.pipeline.shards", "camdrift.models.loading", "camdrift.pipeline.vision")
# It also loads what some of them load, one to three seconds each, which then is not counted.
SELDOM = (
    "torch._dynamo", "timm", "pytorch_grad_cam", "scipy.stats", "sklearn.linear_model",
    "sklearn.covariance", "sklearn.manifold", "matplotlib.backends.backend_agg",
    "plotly.graph_objects", "zennit.rules", "umap",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A stage as it ran.

    seconds: of a first run in a fresh process, and by how much they grow with the pinch.
    memory: MB that this run held at most, beyond those of the fresh process, and their growth.
    disk: MB of its files, and their growth.
    in_shards: whether it works at its images in shards.
    """

    seconds: tuple[float, float]
    memory: tuple[float, float]
    disk: tuple[float, float]
    in_shards: bool


@contextlib.contextmanager
def processes(workers: int) -> Iterator[futures.ProcessPoolExecutor]:
    """Lends a pool that gives each task a process of its own, forked from one that has imported.

    `workers` is the number of tasks that it does at once.
    """
    context = multiprocessing.get_context("forkserver")
    # Each process imports the command's module again, and so all that this one imports.
    own = ("camdrift.ops.build", "camdrift.ops.forecast")
    context.set_forkserver_preload([*PRELOADED, *SELDOM, *own])
    before = {name: os.environ.pop(name, None) for name in ("CAMDRIFT_SHARDS", "CAMDRIFT_RUNS")}
    before["CAMDRIFT_BACKEND"] = os.environ.get("CAMDRIFT_BACKEND")
    os.environ["CAMDRIFT_BACKEND"] = "serial"
    try:
        pool = futures.ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1)
        with pool:
            yield pool
    finally:
        del os.environ["CAMDRIFT_BACKEND"]
        os.environ |= {name: value for name, value in before.items() if value is not None}


def once(name: str, folder: Path) -> Trial:
    """Runs a stage of a pinch, and returns what it took; nothing is known to grow."""
    start = _quiet()
    seconds, peak, disk, in_shards = _run(name, folder)
    return Trial((seconds, 0), (peak - start, 0), (disk, 0), in_shards)


def twice(name: str, folder: Path, patience: float) -> Trial:
    """Runs a stage of a pinch, and again without what is done once: all of that grows.

    So do its arrays, while weights and tables stay as they are. There is no second run if the first
    takes more seconds than `patience`.
    """
    start = _quiet()
    seconds, peak, disk, in_shards = _run(name, folder)
    again = seconds if seconds > patience else _run(name, folder)[0]
    with contextlib.chdir(folder):
        arrays = sum(_size(path, "*.npy") for path in params.outputs(name)) / MB
    return Trial((seconds, again), (peak - start, 0), (disk, arrays), in_shards)


def compare(name: str, small: Path, large: Path) -> Trial:
    """Runs a stage of two pinches, and returns what the small one took and the large one more.

    Args:
        name: of the stage.
        small: folder of a pinch.
        large: folder of another, which differs in its number of images.
    """
    start = _quiet()
    first, *_ = _run(name, small)
    again, peak, disk, in_shards = _run(name, small)
    second, most, more, _ = _run(name, large)
    if second < SHORT:  # else shapes of tensors that are new hardly count
        second = min(second, _run(name, large)[0])
    return Trial(
        (first, max(0.0, second - again)),
        (peak - start, most - peak),
        (disk, more - disk),
        in_shards,
    )


def _quiet() -> float:
    """Drops what this process prints from here on, and returns the MB that it holds."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    return float(psutil.Process().memory_info().rss / MB)


def _run(name: str, folder: Path) -> tuple[float, float, float, bool]:
    """Runs a stage in a folder: seconds, peak in MB so far, MB of its files, whether in shards."""
    with contextlib.chdir(folder):
        began = time.perf_counter()
        main = runpy.run_path(f"stages/{name.partition('@')[0]}.py")["main"]
        run.deterministic()
        stage = run.Stage(name)
        main(stage)
        seconds = time.perf_counter() - began
        disk = sum(map(_size, params.outputs(name)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if platform.system() == "Darwin" else 1024
    return seconds, peak * unit / MB, disk / MB, "images_a_second" in stage.measured


def _size(path: Path, pattern: str = "*") -> int:
    inside = path.rglob(pattern) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())


@dataclass(frozen=True)
class Base:
    """Seconds and MB that a stage takes before it computes."""

    seconds: float
    mb: float


def base(modules: Sequence[str]) -> Base:
    """Returns what a fresh interpreter takes that imports some modules.

    Not the process's peak: Linux hands that of a parent on to its child.
    """
    names = ", ".join(["psutil", *modules])
    code = f"import {names}\nprint(psutil.Process().memory_info().rss / 1e6)"
    began = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return Base(time.perf_counter() - began, float(answer.stdout))

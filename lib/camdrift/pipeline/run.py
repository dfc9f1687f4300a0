"""The framework of a stage script: its stage, its settings, its run time and its memory."""

import argparse
import contextlib
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from camdrift import storage
from camdrift.pipeline import processor
from camdrift.settings import Cell, Protocol, Settings, SettingsError, params, protocols
from camdrift.storage import files

# Faults that are reported by their message alone, without a traceback.
FAULTS = (SettingsError, files.DamagedError, files.MissingError, files.UnwrittenError)
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn", "dvc")
CODE = ("--", ":(top)", ":(top,exclude)data/results", ":(top,exclude)dvc.lock")
COPIED = Path("revision.json")  # of a copy of the repository, which has no git


@dataclass(frozen=True)
class Stage:
    """A stage as DVC names it, `attack@fgsm`, and the settings that dvc.yaml declares for it."""

    name: str
    measured: dict[str, Any] = field(default_factory=dict)  # further facts for the run's record

    @property
    def key(self) -> str:
        """The stage's item within its group: a set, a model, a cell or a study."""
        return self.name.partition("@")[2]

    @property
    def group(self) -> str:
        """The stage's group, which is also the name of its script."""
        return self.name.partition("@")[0]

    @cached_property
    def params(self) -> dict[str, Any]:
        """The declared settings, nested as in params.yaml."""
        return params.declared(self.name)

    @cached_property
    def settings(self) -> Settings:
        """The declared settings, typed; reading any other setting fails."""
        return params.typed(self.params)

    @property
    def calling(self) -> dict[str, Any]:
        """Arguments for `loading.load`: the batch size and the precision."""
        settings = self.settings
        return {"micro_batch": settings.micro_batch, "precision": settings.precision}

    @property
    def training_threads(self) -> int | None:
        """The number of threads of training, None where its weights may depend on the processor."""
        return None if on_gpu() else self.settings.training_threads

    @property
    def cell(self) -> Cell:
        """The settings of the stage's cell."""
        return self.settings.cells[self.key]

    @property
    def protocols(self) -> list[Protocol]:
        """The protocols of the stage's cell; the first one decides its figures."""
        by_name = protocols(self.settings.protocols)
        return [by_name[name] for name in self.cell.protocols]


def stage(main: Callable[[Stage], None], *, trains: bool = False) -> None:
    """Runs a stage script's `main` and writes the run's costs to `<stage>.json` in `storage.RUNS`.

    The stage is the script's argument. Torch, if the script uses it, is limited to deterministic
    algorithms; if all that the stage does is to train, also to what all processors compute alike.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", help="as `dvc stage list` names it: attack@fgsm")
    name = parser.parse_args().stage
    deterministic()
    try:
        current = Stage(name)
        if trains and current.training_threads:
            processor.limit(current.training_threads)
        main(current)
        _record(current)
    except FAULTS as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit(f"{name} was stopped; what it had done is kept where it works by shards")


def _record(stage: Stage) -> None:
    # Of processes side by side, the system tells the peak of the largest.
    own, largest = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    others = stage.measured.get("processes", 1) - 1
    peak = own + others * largest if others else max(own, largest)
    peak_mb = peak / (2**20 if platform.system() == "Darwin" else 2**10)
    facts = {
        "stage": stage.name,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - psutil.Process().create_time(), 1),
        "peak_memory_mb": round(peak_mb),
        **stage.measured,
        "environment": environment(),
    }
    files.write_json(storage.RUNS / f"{stage.name}.json", facts)


def deterministic() -> None:
    """Limits torch, if it is loaded, to deterministic algorithms.

    Some operations have none on a GPU: there PyTorch warns, and last digits may change. New memory
    is not filled first, which PyTorch does so that a use of it before a write shows, and which
    makes training a sixth slower.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    if torch := sys.modules.get("torch"):
        # As `use_deterministic_algorithms`, but without its import of a compiler, which takes 1 s.
        torch.set_deterministic_debug_mode("warn" if on_gpu() else "error")
        torch.utils.deterministic.fill_uninitialized_memory = False


def on_gpu() -> bool:
    """Returns whether this stage computes on a GPU; one that has not loaded torch does not."""
    torch = sys.modules.get("torch")
    is_there = torch is not None and torch.cuda.is_available()
    return is_there and os.environ.get("CAMDRIFT_DEVICE") != "cpu"


def last_runs(keys: Collection[str], folder: Path = storage.RUNS) -> dict[str, Any] | None:
    """Returns the costs of the last run of each stage of some items, None where none has run.

    `stages`, in the order in which they ran, and the last one's `environment`.
    """
    records = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
    stages = [files.read_json(file) for file in records if file.stem.partition("@")[2] in keys]
    if not stages:
        return None
    environments = [stage.pop("environment") for stage in stages]
    return {"environment": environments[-1], "stages": stages}


def workers() -> int:
    """Returns the number of processes that a stage may use.

    CAMDRIFT_WORKERS, else the number of cores divided by `shard_threads`.

    Raises:
        SettingsError: it is no number from 1.
    """
    return _number("CAMDRIFT_WORKERS", max(1, _cores() // shard_threads()))


def threads() -> int:
    """Returns the number of threads that a stage may use: OMP_NUM_THREADS, else all cores.

    Raises:
        SettingsError: it is no number from 1.
    """
    return _number("OMP_NUM_THREADS", _cores())


def shard_threads() -> int:
    """Returns the number of threads that compute a shard.

    CAMDRIFT_SHARD_THREADS, else OMP_NUM_THREADS, else one, whatever the number of cores, so that
    the bytes do not depend on it.

    Raises:
        SettingsError: it is no number from 1.
    """
    return _number("CAMDRIFT_SHARD_THREADS", _number("OMP_NUM_THREADS", 1))


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable) or str(otherwise)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{variable}: wanted a number from 1, got '{text}'")
    return int(text)


def environment() -> dict[str, Any]:
    """Returns the machine, the packages and the revision of a run.

    `processor` is 'any' where it was limited to what all processors compute alike, else 'own'.
    """
    own = files.read_json(COPIED) if COPIED.exists() else revision()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "processor": os.environ.get("CAMDRIFT_PROCESSOR", "own"),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "packages": {name: version(name) for name in PACKAGES},
        **own,
    }


def revision() -> dict[str, Any]:
    """Returns the commit that is checked out, None without git, and the number of changed files.

    Published results do not count as changes: they are no code.
    """
    changed = _git("status", "--porcelain", *CODE) or ""
    return {"revision": _git("rev-parse", "HEAD"), "changed_files": len(changed.splitlines())}


def _cpu() -> str:
    """Returns the model of the processor as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*words: str) -> str | None:
    """Returns git's answer, None where there is no git or no repository."""
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()

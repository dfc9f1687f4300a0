"""Fixtures: a small random network, and the whole study on tiny data, run once for all workers."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from jaxtyping import install_import_hook
from torch import nn

# Modules whose hints are checked at every call, shapes included; before camdrift is imported.
# Detectors are not among them: torch's types are known there to type checkers alone.
CHECKED = [
    "camdrift.attacks",
    "camdrift.detectors.detector",
    "camdrift.evaluation.adaptive",
    "camdrift.evaluation.square",
    "camdrift.explain",
    "camdrift.features",
    "camdrift.models.coverage",
    "camdrift.models.gradients",
    "camdrift.models.incremental",
    "camdrift.models.model",
    "camdrift.models.training",
    "camdrift.papers.chakraborty2022.experiment",
    "camdrift.papers.klawikowska2020.experiment",
    "camdrift.papers.klawikowska2020.inspection",
    "camdrift.papers.klawikowska2020.signatures",
    "camdrift.perturbations",
    "camdrift.scores",
    "camdrift.storage.pixels",
]
install_import_hook(CHECKED, "hints.check")
# Tests compare what stages write with what this process computes, which is not limited.
os.environ.setdefault("CAMDRIFT_PROCESSOR", "own")

from camdrift import settings
from camdrift.models.model import Model
from camdrift.ops import build
from camdrift.pipeline import run
from camdrift.settings import params, presets

# Bytes are compared; a GPU does not promise them.
os.environ.setdefault("CAMDRIFT_DEVICE", "cpu")
os.environ.setdefault("CAMDRIFT_BACKEND", "serial")  # pytest's workers have a core each

ROOT = Path(__file__).resolve().parents[1]
TINY = "tests/tiny.yaml"
ORDER = [
    "check",
    "fetch",
    "train",
    "retrain",
    "signatures",
    "gradient_sign",
    "transfer",
    "attack",
    "noise",
    "cam",
    "score",
    "detect",
    "report",
]


def small_network(classes: int = 4) -> nn.Module:
    """Two conv blocks with norm, an odd number of channels, one linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, classes),
    )


def deep_network(classes: int = 4) -> nn.Module:
    """`small_network` with a third conv layer."""
    first = small_network(classes)
    return nn.Sequential(
        *first[:-3],
        nn.Conv2d(7, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


def as_model(network: nn.Module, *, size: int = 12, micro_batch: int = 4) -> Model:
    return Model(network, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], size=size,
                 micro_batch=micro_batch)  # fmt: skip


@pytest.fixture(autouse=True)
def _main_stays():
    """Gives back the main module, for which Streamlit's AppTest puts the page that it runs.

    A process that is spawned later would run that page, or end where it is deleted.
    """
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def model() -> Model:
    return as_model(small_network())


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(10, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def script(name: str):
    """The module of a stage script."""
    spec = importlib.util.spec_from_file_location(f"stage_{name}", ROOT / "stages" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_of_repository(folder: Path, *, preset: str | None) -> Path:
    """A copy of what is in git, with `preset` active, as a DVC repository without git.

    `preset` is a name, or the path of a file from the root of the repository.
    """
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.split("\n")  # fmt: skip
    names = [n for n in names if n and not n.startswith(("data/", "tests/"))]
    if not names:  # a source archive
        parts = ["lib", "stages", ".dvc/config", "dvc.yaml", "params.yaml", "constraints.txt"]
        files = [f for part in parts for f in [ROOT / part, *(ROOT / part).rglob("*")]]
        names = [f.relative_to(ROOT).as_posix() for f in files if f.is_file()]
    for name in names:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    if preset:
        activate(folder / "params.yaml", preset)
    return folder


def tiny_settings() -> settings.Settings:
    """The settings of the tiny study."""
    with inside(ROOT):
        return presets.read(TINY).settings


def activate(path: Path, preset: str) -> None:
    """Turns a params.yaml into that of a preset, a name or a file in this repository."""
    file = str(ROOT / preset) if preset.endswith(".yaml") else preset
    with inside(path.parent):
        content = presets.read(file).content
        parts = params.parse(content).model_dump(mode="json", include=set(presets.PARTS))
        build.write(content | parts, path)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The READMEs and the published results, without those that a run has written here.

    As git has staged them, so that one who publishes others can test them before a commit.
    """
    wanted = ["README.md", "*/README.md", "params.yaml", "stages/presets", "data/results"]
    names = subprocess.run(
        ["git", "ls-files", "-z", *wanted], cwd=ROOT, capture_output=True, check=False
    ).stdout
    folder = tmp_path_factory.mktemp("published")
    if not names:  # a source archive has no git
        for name in (file for want in wanted for file in ROOT.glob(want)):
            copy = shutil.copytree if name.is_dir() else shutil.copy
            target = folder / name.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(name, target)
        return folder
    checkout = ["git", "checkout-index", "-z", "--stdin", f"--prefix={folder}/"]
    subprocess.run(checkout, cwd=ROOT, input=names, check=True)
    return folder


@dataclass(frozen=True)
class Tiny:
    folder: Path
    settings: settings.Settings
    stages: list[str]


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def stage_names(folder: Path) -> list[str]:
    dvc = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    answer = subprocess.run(dvc, cwd=folder, capture_output=True, text=True, check=True)
    return answer.stdout.split()


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder of this worker's own with what `build` writes, which one worker calls for all.

    Others wait. The lock ends with the process that holds it, and what that one left half built is
    built anew.
    """
    own = factory.mktemp(name)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        build(own)
        return own
    shared = factory.getbasetemp().parent / name
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            part = shared.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            build(part)
            part.rename(shared)
    return shutil.copytree(shared, own, symlinks=True, dirs_exist_ok=True)


def build_tiny(folder: Path) -> None:
    copy_of_repository(folder, preset=TINY)
    run_stages(folder)


def run_stages(folder: Path) -> None:
    """Runs every stage script's `main` in a repository, in the order of the pipeline."""
    names = stage_names(folder)
    with inside(folder):
        for group in ORDER:
            main = script(group).main
            for name in (n for n in names if n.partition("@")[0] == group):
                main() if group == "check" else main(run.Stage(name))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The study on digits: every stage script's `main`, in the order of the pipeline."""
    torch.use_deterministic_algorithms(True)
    folder = built_once(tmp_path_factory, "tiny", build_tiny)
    with inside(folder):
        return Tiny(folder, params.load(), stage_names(folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets one worker build the tiny study while the others test what does without it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    uses = dict.fromkeys((item.path for item in items), False)
    for item in items:
        uses[item.path] |= "tiny" in getattr(item, "fixturenames", ())
    first = next((path for path, use in uses.items() if use), None)
    items.sort(key=lambda item: 0 if item.path == first else 1 + uses[item.path])

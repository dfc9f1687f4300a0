"""Paths of all artefacts, relative to the root of the repository."""

import os
from pathlib import Path

from camdrift.settings import RETRAINED

DATA = Path("data")
CHECKED = DATA / "checked"
MODULES = DATA / "modules"  # digests of the user's modules, by which stages notice an edit
REPORTS = DATA / "reports"  # results of this machine, as stages write them
RESULTS = DATA / "results"  # published results, in git: `make publish` copies them there
RUNS = Path(os.environ.get("CAMDRIFT_RUNS", DATA / "run"))  # costs of runs, in no revision
SHARDS = Path(os.environ.get("CAMDRIFT_SHARDS", DATA / "shards"))  # shards of interrupted runs
COPIES = DATA / "copies"  # copies of the repository, in which presets are built


def set_folder(name: str) -> Path:
    """Returns the folder of an `ImageSet`."""
    return DATA / "sets" / name


def model_folder(name: str) -> Path:
    """Returns the folder of a model's `Weights`."""
    return DATA / "models" / name


def cell_folder(study: str, cell: str, stage: str) -> Path:
    """Returns the folder of a stage's artefact in a cell or a retraining."""
    return DATA / "studies" / study / cell / stage


def end_folder(study: str, stage: str, end: str) -> Path:
    """Returns the folder of a stage's artefact for a source or a target."""
    return DATA / "studies" / study / stage / end


def shard_folder(stage: str, digest: str, work: str, start: int) -> Path:
    """Returns the folder of a shard's result; `digest` covers everything that it depends on."""
    return SHARDS / f"{stage}-{digest[:16]}" / work / f"{start:07d}"


def module(part: str, name: str) -> Path:
    """Returns the file with the digest of the user's module of a set or a model.

    `part` is `sets` or `models`.
    """
    return MODULES / part / name


def set_datasheet(name: str) -> Path:
    """Returns the path of a set's datasheet."""
    return REPORTS / "sets" / f"{name}.json"


def model_card(name: str) -> Path:
    """Returns the path of a model's card."""
    return REPORTS / "models" / f"{name}.json"


def results(study: str, part: str) -> Path:
    """Returns the path of a part of a study's results: `figures`, `tables`, `metrics.json`."""
    return REPORTS / study / part


def published(path: Path) -> Path:
    """Returns where a file of `REPORTS` stands once it is published."""
    return RESULTS / path.relative_to(REPORTS)


def is_own(study: str) -> bool:
    """Returns whether this machine has the whole results of a study."""
    return results(study, "settings.json").exists()


def shown(study: str, part: str) -> Path:
    """Returns the path of a part of a study's results: this machine's, or else the published."""
    path = results(study, part)
    return path if is_own(study) else published(path)


def report(study: str) -> Path:
    """Returns the path of a study's report."""
    return REPORTS / f"{study}.html"


def writer(folder: Path) -> str:
    """Returns the stage that writes an artefact's folder, as DVC names it; '' for none."""
    match folder.as_posix().removeprefix(f"{DATA.as_posix()}/").split("/"):
        case ["sets", name]:
            return f"fetch@{name}"
        case ["models", name]:
            for kind in RETRAINED:
                if name.endswith(f"_{kind}") and not model_card(name).exists():
                    return f"retrain@{name.removesuffix('_' + kind)}"
            return f"train@{name}"
        case ["studies", _, ("signs" | "transferred") as part, end]:
            return f"{'gradient_sign' if part == 'signs' else 'transfer'}@{end}"
        case ["studies", _, cell, "coverage"]:
            return f"noise@{cell}"
        case ["studies", _, cell, "similarity" | "record"]:
            return f"score@{cell}"
        case ["studies", _, cell, stage]:
            return f"{stage}@{cell}"
    return ""

"""Presets: other choices of what is built, run in a copy of the repository.

`python -m camdrift.ops.presets NAME [STUDY]` runs a preset as a DVC experiment and brings its
results back into `data/results`. Folders from elsewhere come from the environment: see
stages/README.md.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import dvc.api
from dvc.exceptions import DvcException
from dvc.utils import hydra
from omegaconf.errors import OmegaConfBaseException

from camdrift import storage
from camdrift.analysis import drawing
from camdrift.pipeline import run
from camdrift.settings import Preset, Settings, SettingsError, params
from camdrift.storage import files

PARTS = (
    "sets", "models", "studies", "cells", "hardenings", "generalisations", "sources", "targets",
)  # fmt: skip
FOLDERS = {"DATA": "CAMDRIFT_DATA", "WEIGHTS": "CAMDRIFT_WEIGHTS"}  # and what names them


def experiment(name: str) -> str:
    """Returns the name of a preset's DVC experiment."""
    return f"study-{name}"


def folders(name: str, preset: Preset) -> dict[str, Path]:
    """Returns the folders that a preset needs from elsewhere.

    Raises:
        SettingsError: one is not named, or is not there; three lines for each.
    """
    found: dict[str, Path] = {}
    faults = []
    for folder, need in preset.needs.items():
        given = os.environ.get(FOLDERS[folder], "")
        if not given or not Path(given).is_dir():
            got = f"got no folder '{given}'" if given else "got nothing"
            wanted = f"preset '{name}' wanted {folder}=<folder> (or {FOLDERS[folder]}), {got}"
            faults.append(need.lacking(f"{wanted}: {need.what}"))
        found[folder] = Path(given).resolve()
    if faults:
        raise SettingsError("\n".join(faults))
    return found


def overrides(name: str, preset: Preset, places: dict[str, Path]) -> list[str]:
    """Returns what `dvc exp run -S` takes to build a preset.

    Args:
        name: of the preset.
        preset: its settings.
        places: the folders that stand for `DATA` and `WEIGHTS` in its paths.

    Raises:
        SettingsError: a file of weights is not there, or is another than its name says.
    """
    given = [(f"sets.{item}.path", chosen.path) for item, chosen in preset.sets.items()]
    given += [
        (f"sets.{item}.arguments.root", str(chosen.arguments.get("root")))
        for item, chosen in preset.sets.items()
        if chosen.kind == "torchvision"
    ]
    given += [(f"models.{item}.weights", str(m.weights)) for item, m in preset.models.items()]
    found = []
    for key, value in given:
        first, _, rest = value.partition("/")
        if first not in places:
            continue
        path = places[first] / rest
        if not path.exists():
            need = preset.needs[first]  # type: ignore[index]
            raise SettingsError(need.lacking(f"preset '{name}' wanted {path}, not there"))
        quoted = path.as_posix().replace("'", "\\'")
        found.append(f"presets.{name}.{key}='{quoted}'")
        model = preset.models.get(key.split(".")[1]) if key.endswith(".weights") else None
        if model is not None and model.sha256 is None:
            found.append(f"presets.{name}.{key.removesuffix('weights')}sha256={_checked(path)}")
    found += [f"{path}={value}" for path, value in preset.override.items()]
    return found + [f"{part}=${{presets.{name}.{part}}}" for part in PARTS]


def _checked(file: Path) -> str:
    """Returns the sha256 of a file whose name ends in the first digits of it, as torch.hub's do."""
    found = files.sha256(file)
    digits = file.stem.rpartition("-")[2]
    if not found.startswith(digits):
        raise SettingsError(f"{file} is damaged: wanted a sha256 that begins {digits}, got {found}")
    return found


def resolved(changes: Sequence[str]) -> Settings:
    """Returns the settings with changes as `dvc exp run -S` makes them; no file is touched.

    Raises:
        SettingsError: a change names what is not there, or the settings are then not valid.
    """
    from camdrift.ops import checks  # which loads torch; `summary` does without

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / params.PARAMS
        shutil.copy(params.PARAMS, copy)
        try:
            hydra.apply_overrides(copy, list(changes))
            plan = params.load(copy)
            checks.everything(plan)
            return plan
        except (DvcException, OmegaConfBaseException) as fault:
            raise SettingsError(f"SET: {fault.__cause__ or fault}") from fault
        except SettingsError as fault:
            raise SettingsError(
                str(fault).replace(str(copy), "params.yaml, so changed,")
            ) from fault


def stages(plan: Preset | Settings) -> dict[str, str]:
    """Returns the stage that reports each study, hardening and generalisation, by its name."""
    kinds: dict[str, Collection[str]] = {
        "report": plan.studies, "review": plan.hardenings, "generalise": plan.generalisations
    }  # fmt: skip
    return {name: f"{stage}@{name}" for stage, plans in kinds.items() for name in plans}


def gather(preset: Preset, names: Sequence[str], rev: str) -> None:
    """Copies results of a preset's groups, and cards of their sets and models.

    Figures that hold images from elsewhere stay behind: `data/results` is in git, and not every
    licence lets an image be passed on. What the stages took stands beside them: it is of no
    revision, and what DVC took from its cache has run before, maybe elsewhere.
    """
    tree = dvc.api.DVCFileSystem(repo=".", rev=rev)
    cells = [cell for cell in preset.cells.values() if cell.study in names]
    hardenings = [hardening for key, hardening in preset.hardenings.items() if key in names]
    ends = [
        (key, end)
        for part in (preset.sources, preset.targets)
        for key, end in part.items()
        if end.generalisation in names
    ]
    sets = {cell.set for cell in cells} | {hardening.set for hardening in hardenings}
    sets |= {end.set for _, end in ends}
    wanted = [storage.set_datasheet(name) for name in sets]
    models = {cell.model for cell in cells} | {cell.source for cell in cells}
    models |= {hardening.model for hardening in hardenings} | {end.model for _, end in ends}
    wanted += [storage.model_card(name) for name in models & set(preset.models)]
    for name in names:
        wanted += [Path(file) for file in tree.find((storage.RESULTS / name).as_posix())]
    for file in sorted(set(wanted)):
        content = tree.cat_file(file.as_posix())
        if "DATA" in preset.needs and file.suffix == ".png" and drawing.holds_images(content):
            continue
        with files.whole(file) as temporary:
            temporary.write_bytes(content)
    for name in names:
        # Of a run before; pictures of images from elsewhere are not among them.
        for file in (storage.RESULTS / name).rglob("*.*"):
            if file not in wanted:
                file.unlink()
        keys = {name} | {key for key, cell in preset.cells.items() if cell.study == name}
        keys |= {key for key, end in ends if end.generalisation == name}
        took = run.taken(keys | sets | models)
        if took is not None:
            files.write_json(storage.results(name, "run.json"), took)


def find(chosen: Settings, name: str) -> Preset:
    """Returns a preset by name.

    Raises:
        SettingsError: there is none; the message names those that are there.
    """
    if name not in chosen.presets:
        there = ", ".join(chosen.presets)
        raise SettingsError(f"no preset '{name}' in params.yaml; there are: {there}")
    return chosen.presets[name]


def main() -> None:
    """Runs a preset and brings its results back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of `presets` in params.yaml")
    parser.add_argument("study", nargs="*", help="or another group of the preset, default all")
    parser.add_argument("-S", "--set", action="append", default=[], help="as of `dvc exp run`")
    asked = parser.parse_args()
    preset = find(params.load(), asked.name)
    changes = overrides(asked.name, preset, folders(asked.name, preset)) + asked.set
    from camdrift.ops import needs  # which loads torch, too

    plan = resolved(changes)
    for model, of in plan.models.items():
        needs.numbered(model, of, plan.sets[of.set])
        sys.stdout.writelines(f"{line}\n" for line in needs.weights(model, of))
    known = stages(preset)
    names = asked.study or list(known)
    strange = [name for name in names if name not in known]
    if strange:
        there = ", ".join(known)
        raise SettingsError(f"no study '{strange[0]}' in '{asked.name}'; there are: {there}")
    targets = [known[name] for name in names]
    rev = experiment("-".join([asked.name, *asked.study]))
    command = [sys.executable, "-m", "dvc", "exp"]
    subprocess.run([*command, "remove", "--quiet", rev], check=False, stderr=subprocess.DEVNULL)
    settings = [part for change in changes for part in ("-S", change)]
    done = subprocess.run(
        [*command, "run", "--temp", "--name", rev, *settings, *targets],
        env=os.environ | {
            "CAMDRIFT_RUNS": str(storage.RUNS.resolve()),
            "CAMDRIFT_SHARDS": str(storage.SHARDS.resolve()),  # outlives the copy
        },
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.returncode)
    gather(preset, names, rev)


if __name__ == "__main__":
    try:
        main()
    except SettingsError as fault:
        sys.exit(str(fault))

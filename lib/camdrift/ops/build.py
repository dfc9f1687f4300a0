"""Builds a preset, another choice of what is built, in a copy of the repository.

`python -m camdrift.ops.build NAME [STUDY]` brings the preset's results into `data/reports`.
Folders from elsewhere come from the environment: see stages/README.md.
"""

import argparse
import copy
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils import hydra
from dvc.utils.serialize import modify_yaml
from omegaconf.errors import OmegaConfBaseException

from camdrift import storage
from camdrift.ops import stages
from camdrift.pipeline import run
from camdrift.settings import Settings, SettingsError, owners, params, presets
from camdrift.settings.presets import Preset
from camdrift.settings.studies import OWNERS
from camdrift.storage import files

FOLDERS = {"DATA": "CAMDRIFT_DATA", "WEIGHTS": "CAMDRIFT_WEIGHTS"}  # and their variables
# The digits of a sha256 in a file's name; of those without a letter, some are dates.
HASHED = re.compile(r"-((?=[0-9]*[a-f])[0-9a-f]{8,})\.")
# Of a source archive, which has no git to ask.
PIPELINE = ("lib", "stages", "dashboard", ".dvc/config", "constraints.txt", "dvc.yaml",
            "params.yaml", ".dvcignore")  # fmt: skip


def folders(preset: Preset) -> dict[str, Path]:
    """Returns the folders that a preset needs from elsewhere.

    Raises:
        SettingsError: one is not named, or is not there; three lines for each.
    """
    places: dict[str, Path] = {}
    faults = []
    for folder, need in preset.needs.items():
        value = os.environ.get(FOLDERS[folder], "")
        if not value or not Path(value).is_dir():
            problem = f"got no folder '{value}'" if value else "got nothing"
            request = (
                f"preset '{preset.name}' wanted {folder}=<folder> (or {FOLDERS[folder]}), {problem}"
            )
            faults.append(need.lacking(f"{request}: {need.what}"))
        places[folder] = Path(value).resolve()
    if faults:
        raise SettingsError("\n".join(faults))
    # A file of your own may name DATA and WEIGHTS without saying what it needs.
    for folder, variable in FOLDERS.items():
        if folder not in places and os.environ.get(variable):
            places[folder] = Path(os.environ[variable]).resolve()
    return places


def placed(preset: Preset, places: dict[str, Path]) -> dict[str, Any]:
    """Returns the params.yaml of a preset, with the folders of this machine in its paths.

    The sha256 of a file of weights may be left out: it is that of the file as it is now.

    Raises:
        SettingsError: a file of weights is not there, or is another than its name says.
    """
    content = copy.deepcopy(preset.content)
    spots = [(image_set, key) for image_set in content["sets"].values()
             for key in ("path", "links") if image_set.get(key)]  # fmt: skip
    spots += [(model, "weights") for model in content["models"].values() if model.get("weights")]
    spots += [
        (image_set["arguments"], "root")
        for image_set in content["sets"].values()
        if isinstance(image_set.get("arguments"), dict) and "root" in image_set["arguments"]
    ]
    for item, key in spots:
        first, _, rest = str(item.get(key)).partition("/")
        if first in FOLDERS:
            path = _lent(preset, first, rest, places)
        elif Path(str(item.get(key))).exists() and item[key] != presets.BUNDLED:
            path = Path(item[key]).resolve()
        else:
            continue
        item[key] = path.as_posix()
        if key == "weights" and item.get("sha256") is None:
            item["sha256"] = _checked(path)
    return content


def _lent(preset: Preset, folder: str, rest: str, places: dict[str, Path]) -> Path:
    if folder not in places:
        raise SettingsError(
            f"preset '{preset.name}' wanted {folder}=<folder> (or {FOLDERS[folder]}), got nothing"
        )
    path = places[folder] / rest
    if not path.exists():
        lack = f"preset '{preset.name}' wanted {path}, not there"
        need = preset.needs.get(folder)
        raise SettingsError(need.lacking(lack) if need else lack)
    return path


def _checked(file: Path) -> str:
    """Returns the sha256 of a file, which must begin with the digits in a name as torch.hub's."""
    digest = files.sha256(file)
    named = HASHED.search(file.name)
    if named and not digest.startswith(named[1]):
        raise SettingsError(
            f"{file} is damaged: wanted a sha256 that begins {named[1]}, got {digest}"
        )
    return digest


def write(content: dict[str, Any], path: Path) -> None:
    """Writes a params.yaml: this repository's, comments and all, with other values."""
    with files.whole(path) as temporary:
        shutil.copy(params.PARAMS, temporary)
        with modify_yaml(temporary) as whole:
            _replace(whole, content)


def _replace(place: Any, content: dict[str, Any]) -> None:
    for key, value in content.items():
        if key in presets.PARTS or key not in place or not isinstance(place[key], dict):
            if key not in place or place[key] != value:
                place[key] = value
        else:
            _replace(place[key], value)


def changed(content: dict[str, Any] | None, changes: Sequence[str], path: Path) -> Settings:
    """Writes a params.yaml with changes as `dvc exp run -S` makes them, and returns its settings.

    Args:
        content: of a preset; None for this repository's params.yaml.
        changes: each `key=value`.
        path: of the file that is written.

    Raises:
        SettingsError: a change names what is not there, or the settings are then not valid.
    """
    from camdrift.ops import checks  # which loads torch; `summary` does without

    if content is None:
        shutil.copy(params.PARAMS, path)
    else:
        # Written out with every default, so that a change may name any key.
        parts = params.parse(content).model_dump(mode="json", include=set(presets.PARTS))
        write(content | parts, path)
    try:
        if changes:
            hydra.apply_overrides(path, list(changes))
        plan = params.load(path)
        checks.everything(plan)
        return plan
    except (DvcException, OmegaConfBaseException) as fault:
        raise SettingsError(f"SET: {fault.__cause__ or fault}") from fault
    except SettingsError as fault:
        raise SettingsError(str(fault).replace(str(path), "params.yaml, so changed,")) from fault


def resolved(content: dict[str, Any] | None, changes: Sequence[str]) -> Settings:
    """Returns what `changed` returns, and leaves no file."""
    with tempfile.TemporaryDirectory() as folder:
        return changed(content, changes, Path(folder) / params.PARAMS)


def copied(folder: Path) -> None:
    """Brings the code of this repository into a copy, which keeps what was built in it.

    The copy is a DVC repository without git, and shares this one's cache. Beside the code stands
    its revision, since this repository may change while the copy runs.
    """
    code = {file for file in _code() if Path(file).is_file()}
    for file in code:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != Path(file).read_bytes():
            shutil.copy(file, target)
    for part in ("lib", "stages", "dashboard"):
        for there in (folder / part).rglob("*.*"):
            own = there.relative_to(folder).as_posix()
            if there.is_file() and there.suffix != ".pyc" and own not in code:
                there.unlink()
    cache = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    local = f"[core]\n    no_scm = true\n[cache]\n    dir = {Path(cache).resolve().as_posix()}\n"
    files.write_text(folder / ".dvc" / "config.local", local)
    files.write_json(folder / run.COPIED, run.revision())


def _code() -> Iterator[str]:
    """Yields the files of this repository that its pipeline may need, as git lists them."""
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if answer.returncode:
        for part in PIPELINE:
            inside = Path(part).rglob("*.*") if Path(part).is_dir() else [Path(part)]
            yield from (file.as_posix() for file in inside if "__pycache__" not in file.parts)
        return
    # dvc.lock of the copy is its own, and its params.yaml that of the preset.
    others = ("data/", "tests/", "dvc.lock", "params.yaml")
    yield from (f for f in answer.stdout.split("\0") if f and not f.startswith(others))


def gather(plan: Settings, names: Sequence[str], folder: Path) -> None:
    """Brings the results of some studies home from a copy, and cards of their sets and models.

    Seconds and memory of the stages go to `run.json` beside them. They belong to no revision: DVC
    may have taken a result from its cache, after a run long ago or elsewhere.
    """
    items = [(key, item) for part in OWNERS for key, item in getattr(plan, part).items()]
    used = [item for _, item in items if owners(item) & {*names}]
    sets = {item.set for item in used}
    models = {item.model for item in used} | {getattr(item, "source", item.model) for item in used}
    paths = [storage.set_datasheet(name) for name in sets]
    paths += [storage.model_card(name) for name in models & set(plan.models)]
    for name in names:
        there = folder / storage.results(name, "")
        paths += [file.relative_to(folder) for file in there.rglob("*.*") if file.is_file()]
        paths.append(storage.report(name))
    for name in names:  # which are whole again when their settings are there
        storage.results(name, "settings.json").unlink(missing_ok=True)
    for file in sorted(set(paths), key=lambda file: (file.name == "settings.json", file)):
        with files.whole(file) as temporary:
            shutil.copyfile(folder / file, temporary)
    for name in names:
        for file in storage.results(name, "").rglob("*.*"):
            if file.is_file() and file not in paths:  # of a run before
                file.unlink()
        keys = {name} | {key for key, item in items if name in owners(item)}
        took = run.last_runs(keys | sets | models, folder / storage.RUNS)
        if took is not None:
            files.write_json(storage.results(name, "run.json"), took)


def main() -> None:
    """Builds a preset and brings its results back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of a file in stages/presets, or the path of a .yaml file")
    parser.add_argument("study", nargs="*", help="of the preset; default: all")
    parser.add_argument("-S", "--set", action="append", default=[], help="as of `dvc exp run`")
    arguments = parser.parse_args()
    preset = presets.read(arguments.name)
    content = placed(preset, folders(preset))
    plan = resolved(content, arguments.set)
    from camdrift.ops import needs  # which loads torch; `summary` and the tests do without

    for model, of in plan.models.items():
        needs.numbered(model, of, plan.sets[of.set])
        sys.stdout.writelines(f"{line}\n" for line in needs.weights(model, of))
    names = arguments.study or list(plan.studies)
    stages.known(plan, names)
    folder = storage.COPIES / preset.name
    copied(folder)
    changed(content, arguments.set, folder / params.PARAMS)
    sys.stdout.write(f"building in {folder}\n")
    sys.stdout.flush()
    process = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *(f"report@{name}" for name in names)],
        cwd=folder, env=os.environ | {"CAMDRIFT_PYTHON": sys.executable}, check=False,
    )  # fmt: skip
    if process.returncode:
        sys.exit(process.returncode)
    gather(plan, names, folder)
    from camdrift.ops import readme  # whose tables are at home now

    for name in names:
        command = f"make study NAME={arguments.name} STUDY={name}"
        page = readme.study_readme(name, storage.results, command=command)
        files.write_text(storage.results(name, "README.md"), page)


if __name__ == "__main__":
    try:
        main()
    except SettingsError as fault:
        sys.exit(str(fault))

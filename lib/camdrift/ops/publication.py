"""Publication copies this machine's results into `data/results`, which is in git, and back.

Stages write to `data/reports`: a rebuild leaves the published results alone, and `make compare`
compares the two.
"""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.ops import combination, readme
from camdrift.papers import interface, outputs
from camdrift.pipeline import run
from camdrift.settings import Settings, owners, params, presets
from camdrift.settings.studies import OWNERS
from camdrift.storage import files


def publish(plan: Settings, studies: Sequence[str]) -> None:
    """Copies results of studies, and cards of their sets and models, into `data/results`.

    Figures that hold images from elsewhere are left out: not every licence allows others to pass
    an image on. With all studies of params.yaml, seconds, memory and environment of their stages go
    to `run.json`; the study of a preset has one of its own.

    Args:
        plan: of params.yaml.
        studies: to publish.

    Raises:
        FileNotFoundError: this machine has no results of a study, or knows of no run; the message
            names the command.
    """
    for name in studies:
        if not storage.is_own(name):
            built = "make repro" if name in plan.studies else "make study NAME=<preset>"
            raise FileNotFoundError(
                f"{storage.results(name, 'settings.json')}: not there; run `{built} STUDY={name}`"
            )
    costs = _costs(plan) if set(plan.studies) <= set(studies) else None
    for name in studies:
        _publish(name, _built_by(plan, name))
    if costs is not None:
        files.write_json(readme.RUN, costs)


def _publish(study: str, plan: Settings | None) -> None:
    """Copies the results of a study that a plan built, None where the plan is not known."""
    folder = storage.results(study, "")
    there = {file for file in folder.rglob("*.*") if file.is_file()}
    if _is_bundled(plan, study):  # anyone can build it, and its records with it
        there = {file for file in there if "records" not in file.relative_to(folder).parts}
    else:
        there = {f for f in there if f.suffix != ".png" or not drawing.holds_images(f)}
    cards = _cards(plan or results.settings_of(study, storage.results), study)
    for file in sorted(there | {card for card in cards if card.exists()}):
        with files.whole(storage.published(file)) as temporary:
            copy = lighten if file.suffix == ".png" else shutil.copyfile
            copy(file, temporary)
    for file in (storage.published(file) for file in there if file.name == files.MANIFEST):
        files.sign(file.parent, file.parent.as_posix(), sorted(files.read_json(file)["files"]))
    published = {storage.published(file) for file in there}
    for file in storage.published(folder).rglob("*.*"):
        if file.is_file() and file not in published:  # of an earlier revision
            file.unlink()


def reanalyse(study: str) -> str:
    """Writes the outputs of a study anew, from its records, and returns its results as a text.

    Published records are copied to this machine's results first. Figures that show images or maps
    stay as they are, unless the study's stages ran here.

    Raises:
        FileNotFoundError: there are no records; the message names the command that writes them.
        SettingsError: they are of an earlier revision that had other settings.
    """
    settings = results.settings_of(study)
    if not storage.shown(study, "records").is_dir():
        raise FileNotFoundError(
            f"{storage.shown(study, 'records')}: not there, so that nothing can be analysed again; "
            f"run `make repro STUDY={study}`, or `make study` with its preset"
        )
    artefacts = interface.paper(settings.studies[study].paper).artefacts(study, settings)
    if not storage.is_own(study):
        for name, (kind, _) in artefacts.items():
            record: Any = storage.read(kind, results.published(study, f"records/{name}"))
            storage.write(storage.results(study, f"records/{name}"), record)
        for file in results.published(study, "figures").glob("*.png"):
            with files.whole(storage.results(study, "figures") / file.name) as temporary:
                shutil.copyfile(file, temporary)
    built = all(folder.is_dir() for _, folder in artefacts.values())
    return outputs.write(study, settings, panels=built)


def lighten(source: Path, target: Path) -> None:
    """Writes a picture with 256 colours, a third of the bytes; as it is if that is no smaller."""
    picture = Image.open(source)
    texts = PngInfo()
    for key, text in picture.text.items():  # type: ignore[attr-defined]
        texts.add_text(key, text)
    few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    light = io.BytesIO()
    few.save(light, "png", optimize=True, pnginfo=texts)
    content = source.read_bytes()
    target.write_bytes(min(light.getvalue(), content, key=len))


def _built_by(plan: Settings, study: str) -> Settings | None:
    """Returns the settings that built a study: this params.yaml, or that of a preset's copy.

    None where neither is there.
    """
    if study in plan.studies:
        return plan
    for file in sorted(storage.COPIES.glob(f"*/{params.PARAMS}")):
        copy = params.load(file)
        if study in copy.studies:
            return copy
    return None


def _is_bundled(plan: Settings | None, study: str) -> bool:
    """Returns whether a study's images come with packages, so that all may pass them on."""
    if plan is None:
        return False
    kinds = {plan.sets[item.set].kind for item in _items(plan, study)}
    return kinds <= set(combination.BUNDLED)


def _cards(plan: Settings, study: str) -> set[Path]:
    """Returns the paths of the datasheets and cards of a study's sets and models."""
    items = _items(plan, study)
    models = {getattr(item, end, item.model) for item in items for end in ("model", "source")}
    return {storage.set_datasheet(item.set) for item in items} | {
        storage.model_card(name) for name in models
    }


def _items(plan: Settings, study: str) -> list[Any]:
    """Returns the cells, retrainings, sources and targets of a study."""
    items = [item for part in OWNERS for item in getattr(plan, part, {}).values()]
    return [item for item in items if study in owners(item)]


def _costs(plan: Settings) -> dict[str, Any]:
    """Returns seconds, memory and environment of a plan's stages.

    Raises:
        FileNotFoundError: none has run here.
    """
    keys = {key for part in presets.PARTS for key in getattr(plan, part)}
    costs = run.last_runs(keys)
    if costs is None:
        raise FileNotFoundError(f"no runs in {storage.RUNS}; run `make repro`")
    stages = params.stages()  # those of now: a folder keeps the runs of stages that had other names
    costs["stages"] = [stage for stage in costs["stages"] if stage["stage"] in stages]
    return costs

"""Presets: other things to build, a file each, as changes to params.yaml.

A preset's file holds the parts that name the things to build (`sets`, `models`, `studies`, `cells`
and others): these replace those of params.yaml. Any other key in it changes that setting alone.
Beside them, `needs` lists the data that the preset takes from elsewhere. Names that can only mean
one thing may be left out, see `filled`.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from camdrift.settings import RENKHOFF, TAN, Settings, SettingsError, lines_of, params
from camdrift.settings.cells import in_attack
from camdrift.settings.section import Count, Line, Section, nearest
from camdrift.settings.studies import NAMED, OWNERS

FOLDER = Path("stages/presets")
PARTS = ("sets", "models", "studies", "cells", "retrainings", "sources", "targets")
BUNDLED = "constraints.txt"  # pins the packages that ship images


class Need(Section):
    """The content of a folder from elsewhere, where to get it, and under which terms.

    images, classes, megabytes: of data that torchvision downloads, as their publisher says.
    """

    what: Line
    where: Line
    terms: Line
    images: Count | None = None
    classes: Count | None = None
    megabytes: Count | None = None

    def lacking(self, requirement: str) -> str:
        """Returns three lines: the requirement, where to get it, and under which terms."""
        return f"{requirement}\n  where: {self.where}\n  terms: {self.terms}"


LENT = Literal["DATA", "WEIGHTS"]  # names that stand for folders from elsewhere


@dataclass(frozen=True)
class Preset:
    """A preset: its needs from elsewhere, and the whole params.yaml that it stands for.

    In paths, `DATA` and `WEIGHTS` stand for the folders that are needed.
    """

    name: str
    needs: Mapping[str, Need]
    content: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """The settings; raises as `params.parse` does."""
        return params.parse(self.content, Path(f"preset '{self.name}'"))


def names() -> list[str]:
    """Returns the names of the presets of this repository."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read(name: str) -> Preset:
    """Returns a preset by its name, or by the path of its file.

    Raises:
        SettingsError: there is none, or it is not valid.
    """
    file = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not file.is_file():
        there = ", ".join(names())
        raise SettingsError(f"no preset '{name}': wanted a .yaml file or one of {there}")
    own = params.read(file)
    content = params.read(params.PARAMS)
    try:
        needs = TypeAdapter(dict[LENT, Need]).validate_python(own.pop("needs", {}))
    except ValidationError as fault:
        raise SettingsError("\n".join(lines_of(fault, f"{file}: needs"))) from fault
    parts = unfolded({key: own.pop(key, None) or {} for key in PARTS})
    parts = filled(parts, file.stem)
    strange = [key for key in own if key not in content]
    if strange:
        there = ", ".join(sorted({*content, "needs"}))
        near = nearest(strange[0], [*content, "needs"])
        raise SettingsError(f"{file}: no key '{strange[0]}'{near}; there are: {there}")
    return Preset(
        file.stem, {str(key): need for key, need in needs.items()}, _merge(content, own) | parts
    )


def builder(study: str) -> str | None:
    """Returns the preset that builds a study, by the study's name; None if there is none."""
    for name in names():
        if study in read(name).content["studies"]:
            return name
    return None


def _merge(content: Any, own: Any) -> Any:
    """Returns settings with some of them changed; maps are merged, anything else is replaced."""
    if not isinstance(content, dict) or not isinstance(own, dict):
        return own
    return content | {key: _merge(content.get(key), value) for key, value in own.items()}


def unfolded(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of a preset with everything once for each fold of a set.

    A set `orl` with `folds: 5` stands for `orl_0` to `orl_4`, each with its own test images. Its
    models, and the cells, retrainings, sources and targets that use these, get the same endings;
    where a study names one of them, it names that of the first fold.

    Raises:
        SettingsError: `folds` is no whole number above 1.
    """
    full: dict[str, Any] = copy.deepcopy(dict(parts))
    if not _are_maps(full):
        return full  # the settings refuse it
    folds = {key: item.pop("folds") for key, item in full["sets"].items() if "folds" in item}
    for key, count in folds.items():
        if type(count) is not int or count < 2:
            raise SettingsError(f"sets.{key}.folds: wanted a whole number above 1, got {count}")
    for model in full["models"].values():
        _fill(model, "set", _only(full["sets"]))
    sets = {key: model.get("set") for key, model in full["models"].items()}
    several = {*folds, *(key for key, name in sets.items() if name in folds)}

    def in_fold(item: dict[str, Any], fold: int) -> dict[str, Any]:
        own = {key: f"{item[key]}_{fold}" for key in ("set", "model", "source")
               if item.get(key) in several}  # fmt: skip
        return item | own

    for part in (part for part in PARTS if part != "studies"):
        items, own = full[part], {}
        for key, item in items.items():
            uses = key if part == "sets" else item.get("set", sets.get(item.get("model")))
            if uses not in folds:
                own[key] = item
                continue
            several.add(key)
            for fold in range(folds[uses]):
                more = {"fold": fold} if part == "sets" else {}
                own[f"{key}_{fold}"] = in_fold(item, fold) | more
        full[part] = own
    for study in full["studies"].values():
        study |= {key: f"{study[key]}_0" for key in ("headline", "retraining")
                  if study.get(key) in several}  # fmt: skip
    return full


def _are_maps(parts: Mapping[str, Any]) -> bool:
    return all(
        isinstance(item, dict) and all(isinstance(value, dict) for value in item.values())
        for item in parts.values()
    )


def filled(parts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the parts of a preset with names filled in that can only mean one thing.

    - A set of bundled images has the path `BUNDLED`. A set that trains no model is all test.
    - A model belongs to the only set. Cells, sources and targets use the only model, on its set.
    - Retrainings use the only model, too. Sources and targets have networks with the names of their
      models' architectures. A cell's source is its own model.
    - A study is after renkhoff2022. Cells, retrainings, sources and targets belong to the only
      study of their paper: cells to that of renkhoff2022, or of zhang2020 where there is none of
      the former; cells without a study, to one with the preset's name. The first cell of a study,
      or the first that detectors see, is its headline.
    - A cell's evaluation is the only study of tan2023; without one, the cell's own study. A cell
      `within` another is within that one's attack.

    Args:
        parts: by the names of `PARTS`, each a map of names to maps of settings.
        name: of the preset.
    """
    full: dict[str, Any] = copy.deepcopy(dict(parts))
    if not _are_maps(full):
        return full  # the settings refuse it
    sets, models = full["sets"], full["models"]
    for model in models.values():
        _fill(model, "set", _only(sets))
    training_sets = {
        m.get("set") for m in models.values() if m.get("training") is not None or m.get("new_head")
    }
    for key, image_set in sets.items():
        if image_set.get("kind") != "folder":
            image_set.setdefault("path", BUNDLED)
        if key not in training_sets:
            image_set.setdefault("shares", {"train": 0.0, "validation": 0.0, "test": 1.0})
    if full["cells"] and not full["studies"]:
        full["studies"] = {name: {}}
    studies = full["studies"]
    for key, study in studies.items():
        study.setdefault("paper", RENKHOFF)
        study.setdefault("title", key)
    for part, papers in OWNERS.items():
        by_paper = [[k for k, s in studies.items() if s["paper"] == paper] for paper in papers]
        mine = next(filter(None, by_paper), [])
        for item in full[part].values():
            _fill(item, "study", _only(mine))
            _fill(item, "model", _only(models))
            _fill(item, "set", models.get(item.get("model"), {}).get("set"))
    evaluations = [key for key, study in studies.items() if study["paper"] == TAN]
    for cell in full["cells"].values():
        _fill(cell, "source", cell.get("model"))
        _fill(cell, "evaluation", _only(evaluations or [cell.get("study")]))
        other = full["cells"].get(cell.get("within"))
        if other is not None:
            cell["within"] = in_attack(other.get("study"), cell["within"])
    for name, study in studies.items():
        if study["paper"] in NAMED:
            key, part, owner = NAMED[study["paper"]]
            own = [k for k, item in full[part].items() if item.get(owner) == name
                   and (study["paper"] != TAN or item.get("detect"))]  # fmt: skip
            _fill(study, key, next(iter(own), None))
    for end in [end for kind in ("sources", "targets") for end in full[kind].values()]:
        _fill(end, "network", models.get(end.get("model"), {}).get("architecture"))
    return full


def _only(items: Collection[str]) -> str | None:
    """Returns the only one of some names, None where there are several or none."""
    return next(iter(items)) if len(items) == 1 else None


def _fill(item: dict[str, Any], key: str, value: Any) -> None:
    if value is not None:
        item.setdefault(key, value)

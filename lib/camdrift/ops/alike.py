"""Alike: stages that do the same work on other names, of which one is tried for all."""

import json
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from camdrift.settings import params, presets

# Settings that change no work: what people read, and names of parts that are declared themselves.
WORDS = ("title", "headline", "study", "evaluation", "retraining")
MODELS = ("model", "source")  # settings that name a model
# Settings that change the work of these groups of stages alone.
OF_GROUPS = {
    "attack": ("attack", "detect"), "label": ("attack", "detect"), "override": ("attack", "detect"),
    "detect": ("detect",), "adaptive": ("detect",), "network": (), "within": (),
    "training": ("train", "retrain"), "weights": ("train",), "sha256": ("train",),
    "new_head": ("train",), "mean": ("train",), "std": ("train",),
}  # fmt: skip


def upstream() -> dict[str, set[str]]:
    """Returns the stages of the params.yaml of this folder, and those that each rests on.

    Each stands after those that it rests on.
    """
    writers: dict[Path, set[str]] = {}  # of a file or folder itself
    within: dict[Path, set[str]] = {}  # of it, or of anything in it
    for stage in params.stages():
        for path in params.outputs(stage):
            writers.setdefault(path, set()).add(stage)
            for folder in (path, *path.parents):
                within.setdefault(folder, set()).add(stage)
    graph: dict[str, set[str]] = {stage: set() for stage in params.stages()}
    for stage, others in graph.items():
        for path in params.dependencies(stage):
            others |= within.get(path, set())
            for folder in path.parents:
                others |= writers.get(folder, set())
    return {stage: graph[stage] for stage in TopologicalSorter(graph).static_order()}


def groups(stages: Sequence[str], images: Mapping[str, Any]) -> list[list[str]]:
    """Returns stages that do the same work together, in the order of the first of each group.

    Args:
        stages: of the params.yaml of this folder.
        images: facts on a set's images that decide its work, by the set's name.
    """
    content = params.read(params.PARAMS)
    members: dict[str, list[str]] = {}
    for stage in stages:
        group = stage.partition("@")[0]
        facts = _facts(params.declared(stage), content, images, group)
        members.setdefault(json.dumps([group, facts]), []).append(stage)
    return list(members.values())


def _facts(value: Any, content: Mapping[str, Any], images: Mapping[str, Any], group: str) -> Any:
    """Returns the settings that change a group's work, names replaced by what they stand for."""

    def facts_of(item: Any) -> Any:
        return _facts(item, content, images, group)

    if isinstance(value, list):
        return [facts_of(item) for item in value]
    if not isinstance(value, dict):
        return value
    facts: dict[str, Any] = {}
    for key, item in value.items():
        if key in presets.PARTS:
            facts[key] = [facts_of(each) for each in item.values()]
        elif key == "set":
            facts[key] = images[item]
        elif key in MODELS:
            facts[key] = facts_of(content["models"].get(item, item))
        elif key == "attack" and item == "none":  # there is nothing to apply at a strength
            facts[key] = item
        elif key not in WORDS and group in OF_GROUPS.get(key, (group,)):
            facts[key] = facts_of(item)
    return facts

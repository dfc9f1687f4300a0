"""params.yaml: reads it, checks it, and gives each stage the settings that dvc.yaml declares."""

import copy
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from camdrift.settings import Settings, SettingsError, lines_of, renamed

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")


def declared(stage: str) -> dict[str, Any]:
    """Returns the settings that a stage declares in dvc.yaml, and no others, as plain values.

    Replaces `dvc.api.params_show(stages=stage)`, which costs each stage two seconds.

    Raises:
        SettingsError: dvc.yaml has no such stage.
    """
    content = read(PARAMS)
    values: dict[str, Any] = {}
    for path in _list(stage, "params", content):
        source, target = content, values
        *parents, last = path.split(".")
        for parent in parents:
            source, target = source[parent], target.setdefault(parent, {})
        target[last] = source[last]
    return values


def dependencies(stage: str) -> list[Path]:
    """Returns the files and folders that a stage depends on, as dvc.yaml lists them.

    Raises:
        SettingsError: dvc.yaml has no such stage.
    """
    return [Path(path) for path in _list(stage, "deps", read(PARAMS))]


def outputs(stage: str) -> list[Path]:
    """Returns the files and folders that a stage writes, as dvc.yaml lists them.

    Raises:
        SettingsError: dvc.yaml has no such stage.
    """
    content = read(PARAMS)
    lists = (_list(stage, part, content) for part in ("outs", "metrics", "plots"))
    return [Path(path) for paths in lists for path in paths]


def stages() -> list[str]:
    """Returns the stages that are made for each item of a part of params.yaml, as DVC names them.

    They are in the order of dvc.yaml, and of params.yaml within a group.
    """
    content, pipeline = read(PARAMS), read(PIPELINE)["stages"]
    return [
        f"{group}@{key}"
        for group, template in pipeline.items()
        if "foreach" in template
        for key in content[_items(template)]
    ]


def part(stage: str) -> str:
    """Returns the part of params.yaml that a stage's item stands in, `cells` for `attack@fgsm`."""
    return _items(read(PIPELINE)["stages"][stage.partition("@")[0]])


def _items(template: dict[str, Any]) -> str:
    """Returns the part of params.yaml for whose items a group's stages are, `cells` of `attack`."""
    return str(template["foreach"]).strip("${}")


def _list(stage: str, part: str, content: dict[str, Any]) -> list[str]:
    """Returns one of a stage's lists in dvc.yaml, with its names filled in."""
    pipeline = read(PIPELINE)["stages"]
    group, _, key = stage.partition("@")
    template, names = pipeline.get(group, {}), {}
    if "foreach" in template:
        item = content[_items(template)].get(key)
        if item is None:
            raise SettingsError(f"no stage '{stage}'; `dvc stage list` names those that are there")
        names = {"key": key} | {f"item.{name}": value for name, value in item.items()}
        template = template["do"]
    elif not template or key:
        raise SettingsError(f"no stage '{stage}'; `dvc stage list` names those that are there")
    return [
        re.sub(r"\$\{([\w.]+)\}", lambda match: str(names[match[1]]), text)
        for text in template.get(part, [])
    ]


def load(path: Path = PARAMS) -> Settings:
    """Returns the settings in a params.yaml.

    Raises:
        SettingsError: the file is missing or not YAML, or a key, a value or a name is wrong.
    """
    return parse(read(path), path)


def parse(content: dict, path: Path = PARAMS) -> Settings:
    """Returns the settings in the content of a params.yaml; raises as `load` does."""
    if old := renamed.lines(content):
        raise SettingsError("\n".join([f"{path} has keys of an earlier version:", *old]))
    try:
        return Settings.model_validate(content)
    except ValidationError as fault:
        lines = "\n".join(f"  {line}" for line in lines_of(fault, ""))
        raise SettingsError(f"{path} is not valid:\n{lines}") from fault


def typed(declared: dict[str, Any]) -> Settings:
    """Returns settings that hold the declared ones alone: the others are no attributes of them.

    The params.yaml has been checked before, so references between settings are not checked again.
    """
    kinds: dict[str, Any] = {name: Settings.model_fields[name].annotation for name in declared}
    values = {
        name: TypeAdapter(kind).validate_python(declared[name]) for name, kind in kinds.items()
    }
    return holding(values)


def holding(values: dict[str, Any]) -> Settings:
    """Returns settings that hold some values alone, which have been checked before."""
    return Settings.model_construct(_fields_set=set(values), **values)


def read(path: Path) -> dict:
    """Returns the content of a YAML file of settings; raises as `load` does for a bad file."""
    try:
        # Parsing takes a fifth of a second, and a stage asks several times.
        content = copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except FileNotFoundError as fault:
        raise SettingsError(f"no {path} in {Path.cwd()}; run from the repository's root") from fault
    except (YAMLError, UnicodeDecodeError) as fault:
        raise SettingsError(f"{path} is not YAML: {fault}") from fault
    if not isinstance(content, dict):
        raise SettingsError(f"wanted a map of settings in {path}, got {type(content).__name__}")
    return content


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    # DVC reads YAML 1.2 through ruamel; PyYAML would read 1e-3 as a string.
    return YAML(typ="safe").load(text)

"""Attacks: one file an attack, each with its `Settings` and a function `perturb`.

`perturb(model, pixels, labels, *, generators, **settings) -> Perturbation` is batched, takes one
random generator an image, and leads away from `labels`. It may return any values in the images'
shape: the caller (`stages/attack.py`) clips, measures and judges them the same for every attack.
With a parameter `limits` it can follow the size of another attack on each image; one without is
made smaller afterwards, in a cell that is `within` another.
`Settings` has a field for each of its settings, all of which params.yaml lists under `attacks:`. A
function `fault` of a cell's settings may return what else is wrong with them, '' for nothing.
"""

import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from camdrift import settings
from camdrift.settings import ATTACKING, SettingsError, lines_of


def names() -> list[str]:
    """Returns the names of all attacks, which are their files' names."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def perturbing(name: str) -> Callable[..., Any]:
    """Returns the function `perturb` of an attack, which returns a `Perturbation`.

    Raises:
        SettingsError: there is no such attack.
    """
    return _module(name).perturb


def resolved(
    name: str, common: Mapping[str, Mapping[str, Any]], override: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns an attack's settings: those under `attacks:`, overridden by a cell's own.

    Args:
        name: the attack's name.
        common: `attacks:` of params.yaml.
        override: the cell's own settings.

    Raises:
        SettingsError: there is no such attack.
        ValidationError: pydantic's; a value is not valid.
    """
    values = {**common.get(name, {}), **override}
    return _module(name).Settings.model_validate(values).model_dump()


def faults(plan: settings.Settings) -> list[str]:
    """Returns a line for each fault in attacks' settings, those of cells and retrainings, too."""
    lines = []
    for name in plan.attacks:
        try:
            resolved(name, plan.attacks, {})
        except SettingsError as fault:
            lines.append(f"attacks.{name}: {fault}")
        except ValidationError as fault:
            lines += lines_of(fault, f"attacks.{name}")
    if lines:
        return lines
    for key, cell in plan.cells.items():
        place = f"cells.{key}.override"
        try:
            own = resolved(cell.attack, plan.attacks, cell.override)
        except ValidationError as fault:
            lines += lines_of(fault, place)
            continue
        check = getattr(_module(cell.attack), "fault", None)
        if check is not None and (text := check(**own)):
            lines.append(f"{place}.{text}")
    for key, retraining in plan.retrainings.items():
        for attack in ATTACKING:
            place = f"retrainings.{key}.{attack}"
            try:
                own = resolved(attack, plan.attacks, getattr(retraining, attack))
            except ValidationError as fault:
                lines += lines_of(fault, place)
                continue
            if own.get("target") is not None:
                lines.append(
                    f"{place}.target: wanted null, since models are trained against any change "
                    f"of class, got {own['target']}"
                )
            if own.get("pixels", 1) != 1:
                lines.append(
                    f"{place}.pixels: wanted 1, since the relevance around one pixel is looked "
                    f"at, got {own['pixels']}"
                )
    return lines


def _module(name: str) -> Any:
    if name not in names():
        raise SettingsError(
            f"no attack '{name}' in lib/camdrift/attacks; there are: {', '.join(names())}"
        )
    return import_module(f"camdrift.attacks.{name}")

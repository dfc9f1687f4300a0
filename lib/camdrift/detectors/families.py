"""Families: the detectors that params.yaml names, each with its file and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from camdrift.detectors.detector import SENSITIVE, Detector
from camdrift.pipeline import discovery
from camdrift.settings import DetectionSettings, SettingsError, lines_of
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.features.reference import Reference
    from camdrift.models.model import Model

PLACE = "detection.detectors"


@dataclass(frozen=True)
class Family:
    """A detector's file and its settings; the package describes the contents of a file.

    name: of the file, and in params.yaml.
    """

    name: str
    settings: Section
    module: ModuleType

    @property
    def passes(self) -> int:
        """Number of forward passes of the model for each image."""
        return self.module.passes(self.settings)

    @property
    def stream(self) -> str:
        """Name of its stream of random numbers."""
        return getattr(self.module, "STREAM", self.name)

    @property
    def layers(self) -> dict[str, int]:
        """The layers that it reads, by setting, without those that are chosen by images."""
        names = getattr(self.module, "LAYERS", ())
        layers = {name: getattr(self.settings, name) for name in names}
        return {name: layer for name, layer in layers.items() if layer != SENSITIVE}

    @property
    def has_surrogate(self) -> bool:
        """Whether there is an adaptive attack on it."""
        return hasattr(self.module, "surrogate")

    @property
    def shares_surrogate(self) -> bool:
        """Whether one adaptive attack serves all its readings."""
        return getattr(self.module, "ONE_SURROGATE", False)

    def measure(self, images: Images) -> Columns:
        """Returns the feature of images: arrays (n,) by name."""
        return self.module.measure(images, self.settings)

    def readings(self) -> dict[str, Detector]:
        """Returns new detectors by their names in tables."""
        return self.module.readings(self.settings)

    @property
    def compares(self) -> bool:
        """Whether it compares images with training images, see `features.reference`."""
        return getattr(self.module, "REFERENCE", False)

    def surrogate(
        self, detector: Detector, model: Model, reference: Reference | None = None
    ) -> Objective:
        """Returns the objective that the adaptive attack on a fitted detector lowers."""
        more = (reference,) if self.compares else ()
        return self.module.surrogate(detector, model, self.settings, *more)

    def within(self, count: int) -> Family:
        """Returns a copy for a model with `count` layers: larger layer numbers become the last."""
        layers = {name: max(-count, min(count, layer)) for name, layer in self.layers.items()}
        return replace(self, settings=self.settings.model_copy(update=layers))


def with_layer(settings: DetectionSettings, layer: int) -> DetectionSettings:
    """Returns the settings with a layer, counted from 1, wherever the most sensitive is asked for.

    See `camdrift.evaluation.sensitivity`.
    """
    detectors = {
        name: {key: layer if value == SENSITIVE else value for key, value in content.items()}
        for name, content in settings.detectors.items()
    }
    return settings.model_copy(update={"detectors": detectors})


def families(settings: DetectionSettings) -> list[Family]:
    """Returns the detectors to evaluate, in the order of params.yaml, which tables keep.

    Raises:
        SettingsError: a detector is unknown, or its settings are wrong; a line for each fault.
    """
    faults = check(settings.detectors)
    if faults:
        raise SettingsError("\n".join(faults))
    return [_family(name, content) for name, content in settings.detectors.items()]


def check(detectors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line for each detector that is unknown or whose settings are wrong."""
    names = discovery.members(__package__, "readings")
    faults: list[str] = []
    owners: dict[str, str] = {}
    for name, content in detectors.items():
        if name not in names:
            faults.append(f"{PLACE}.{name}: no detector '{name}'; there are: {', '.join(names)}")
            continue
        try:
            family = _family(name, content)
        except ValidationError as fault:
            faults += lines_of(fault, f"{PLACE}.{name}")
            continue
        for reading in family.readings():
            if owners.setdefault(reading, name) != name:
                faults.append(
                    f"{PLACE}.{name}: wanted names of its own, got '{reading}', which "
                    f"'{owners[reading]}' has, too"
                )
    return faults


def _family(name: str, content: Mapping[str, Any]) -> Family:
    module = discovery.members(__package__, "readings")[name]
    return Family(name, module.Settings.model_validate(content), module)

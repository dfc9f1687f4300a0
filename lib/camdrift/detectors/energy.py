"""Energy: minus the logarithm of the sum of the exponentials of an image's logits.

Liu et al. 2020, "Energy-based Out-of-distribution Detection", equation 4, at temperature 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, PerImage, Pixels


class Settings(Section):
    """No settings."""


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `energy`."""
    return {"energy": -images.logits.logsumexp(1).numpy()}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"energy": Single("energy")}


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the energy itself."""

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits = model(batch)
        return logits, -logits.logsumexp(1)

    return score

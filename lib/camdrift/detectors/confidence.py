"""Confidence: the largest probability that the model gives a class; a low one is suspicious.

Hendrycks & Gimpel 2017, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
Neural Networks".
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
    """Returns `probability`, of the top class, in [0, 1]."""
    return {"probability": images.logits.softmax(1).amax(1).numpy()}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"confidence": Single("probability", sign=-1)}


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the score itself."""

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits = model(batch)
        return logits, -logits.softmax(1).amax(1)

    return score

"""Chance: a random number for each image, the lower bound for every detector.

It has no surrogate: an attack cannot lower a random number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from camdrift.features.images import Columns, Images

# Shared with behaviour deviation, which draws its copies afterwards.
STREAM = ""


class Settings(Section):
    """No settings."""


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 0


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `chance`, in [0, 1)."""
    return {"chance": np.array([generator.random() for generator in images.generators])}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"chance": Single("chance")}

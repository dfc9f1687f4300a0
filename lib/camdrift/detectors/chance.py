"""Chance: a number drawn for each image, which no detector should be worse than.

It has no surrogate: there is nothing that an attack could lower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from camdrift.features.images import Columns, Images

# Behaviour deviation draws its copies behind it.
STREAM = ""


class Settings(Section):
    """It has none."""


def passes(settings: Settings) -> int:
    """Returns the forward passes of the model that an image costs."""
    return 0


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `chance`, in [0, 1)."""
    return {"chance": np.array([generator.random() for generator in images.generators])}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"chance": Single("chance")}

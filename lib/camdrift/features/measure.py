"""Measures every feature of images, each image on its own."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from camdrift.features import behaviour, confidence, noisecam, profile
from camdrift.models import Model
from camdrift.settings import DetectionSettings

GROUPS = ("confidence", "residual", "profile", "noisecam", "behaviour", "chance")


def of_images(
    model: Model,
    pixels: Tensor,
    generators: Sequence[np.random.Generator],
    chosen: DetectionSettings,
    *,
    groups: Sequence[str] = GROUPS,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns the features of images, a row each, and the seconds that each group of them took.

    Args:
        model: the model under attack.
        pixels: (n, 3, h, w), in [0, 1].
        generators: one an image, for noisy copies and for chance.
        chosen: the settings.
        groups: of `GROUPS`, those that are wanted.
    """
    measures: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "confidence": lambda: confidence.measure(
            model, pixels, bits=chosen.bits, window=chosen.window
        ),
        "residual": lambda: {
            "residual": behaviour.residual(pixels, variance=chosen.variance).numpy()
        },
        "profile": lambda: profile.measure(model, pixels),
        "noisecam": lambda: noisecam.measure(
            model, pixels, place=chosen.place("layer"), thresholds=chosen.brightness,
            radius=chosen.radius, neighbours=chosen.neighbours,
        ),
        "chance": lambda: {"chance": np.array([rng.random() for rng in generators])},
        "behaviour": lambda: behaviour.measure(
            model, pixels, generators, variance=chosen.variance, count=chosen.copies,
            place=chosen.place("probe"),
        ),
    }  # fmt: skip
    columns: dict[str, np.ndarray] = {}
    seconds = {}
    for group, measure in measures.items():
        if group in groups:
            start = time.perf_counter()
            columns |= measure()
            seconds[group] = time.perf_counter() - start
    return pd.DataFrame(columns), seconds

"""Measures every feature of images, each image on its own."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from camdrift.detectors import behaviour, confidence, noisecam, profile
from camdrift.models.model import Model
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

    A micro-batch of images at a time, so that memory does not grow with their number.

    Args:
        model: the model under attack.
        pixels: (n, 3, h, w), in [0, 1].
        generators: one an image, for noisy copies and for chance.
        chosen: the settings.
        groups: of `GROUPS`, those that are wanted.
    """
    parts = []
    seconds = dict.fromkeys((group for group in GROUPS if group in groups), 0.0)
    for start in range(0, len(pixels), model.micro_batch):
        stop = start + model.micro_batch
        columns: dict[str, np.ndarray] = {}
        for group, measure in _measures(
            model, pixels[start:stop], generators[start:stop], chosen
        ).items():
            if group in groups:
                began = time.perf_counter()
                columns |= measure()
                seconds[group] += time.perf_counter() - began
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True), seconds


def _measures(
    model: Model,
    pixels: Tensor,
    generators: Sequence[np.random.Generator],
    chosen: DetectionSettings,
) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    return {
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

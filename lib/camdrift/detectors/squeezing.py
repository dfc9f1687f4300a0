"""Feature squeezing: the distance of an image's probabilities from those of simpler copies.

Xu et al. 2018, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks", section
5: fewer grey levels, and the median filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Section, Window

if TYPE_CHECKING:
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, PerImage, Pixels


class Settings(Section):
    """The bits of a level, and the median filter's window in px."""

    bits: Annotated[int, Field(ge=1, le=8)]
    window: Window


def fewer_levels(pixels: Pixels, *, bits: int) -> Pixels:
    """Returns images at 2 ** bits levels."""
    steps = 2**bits - 1
    return pixels.mul(steps).round().div(steps)


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 3


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `squeezing`, in [0, 2].

    The largest L1 distance between the probabilities of the image and of a squeezed copy.
    """
    import torch

    from camdrift.features.cleaning import median

    copies = [
        fewer_levels(images.pixels, bits=settings.bits),
        median(images.pixels, size=settings.window),
    ]
    chances = images.logits.softmax(1)
    with torch.no_grad():
        others = [images.model(copy).softmax(1) for copy in copies]
    distances = torch.stack([(chances - other).abs().sum(1) for other in others])
    return {"squeezing": distances.amax(0).numpy()}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"squeezing": Single("squeezing")}


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the distance; rounding to fewer levels passes its gradient straight through."""
    import torch

    from camdrift.features.cleaning import median

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits = model(batch)
        chances = logits.softmax(1)
        rounded = batch + (fewer_levels(batch, bits=settings.bits) - batch).detach()
        others = [rounded, median(batch, size=settings.window)]
        distances = [(chances - model(other).softmax(1)).abs().sum(1) for other in others]
        return logits, torch.stack(distances).amax(0)

    return score

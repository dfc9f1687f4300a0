"""Residual: the size of the part of an image that cleaning by principal components removes.

Behaviour deviation (tan2023, section III-D) removes the same part; its size does not require the
model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, PerImage, Pixels


class Settings(Section):
    """The share of its variance that a cleaned image keeps."""

    variance: Annotated[float, Field(gt=0, lt=1)]


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 0


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `residual`, the L2 norm of the removed part, in pixel values."""
    return {"residual": norm(images.pixels, variance=settings.variance).numpy()}


def norm(pixels: Pixels, *, variance: float) -> PerImage:
    """Returns the L2 norm of the removed part, with constant components."""
    import torch

    from camdrift.features.cleaning import rebuild

    with torch.no_grad():
        clean = rebuild(pixels, variance=variance)
    return (pixels - clean).flatten(1).norm(dim=1)


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"residual": Single("residual")}


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the norm; the gradient takes the cleaned image as constant."""

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        return model(batch), norm(batch, variance=settings.variance)

    return score

"""Residual: how much cleaning by principal components takes away from an image.

What behaviour deviation (tan2023, section III-D) cleans an image of, by its size alone, without the
model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model


class Settings(Section):
    """The share of its variance that a cleaned image keeps."""

    variance: Annotated[float, Field(gt=0, lt=1)]


def passes(settings: Settings) -> int:
    """Returns the forward passes of the model that an image costs."""
    return 0


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `residual`, the L2 norm of what cleaning removes, in pixel values."""
    return {"residual": norm(images.pixels, variance=settings.variance).numpy()}


def norm(pixels: Tensor, *, variance: float) -> Tensor:
    """Returns the L2 norm of what cleaning removes: (n,), the components held fixed."""
    import torch

    from camdrift.features.cleaning import rebuild

    with torch.no_grad():
        clean = rebuild(pixels, variance=variance)
    return (pixels - clean).flatten(1).norm(dim=1)


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"residual": Single("residual")}


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the norm; the components that cleaning keeps are held fixed in a step."""

    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        return model(batch), norm(batch, variance=settings.variance)

    return score

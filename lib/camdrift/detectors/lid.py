"""Local intrinsic dimensionality of an image among training images, layer by layer.

Ma et al. 2018, "Characterizing Adversarial Subspaces Using Local Intrinsic Dimensionality",
equation 4 and algorithm 1. Departs: the layers are those that have a map, pooled, see
`features.pooled`; the neighbours are sought among all reference images, not in a batch of 100; and
beside the paper's regression over layers stands a distance that has seen benign images alone, for
which small values are as strange as large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from camdrift.detectors import joint
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.features.reference import Reference
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, Pixels

NAMES = ("lid", "lid_logistic")
REFERENCE = True
TINY = 1e-12


class Settings(Section):
    """The number of neighbours, 2 at least (published: 20), of all reference images at most."""

    neighbours: Annotated[int, Field(ge=2)]


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def dimensions(layers: list[Tensor], reference: Reference, *, neighbours: int) -> Tensor:
    """Returns the local intrinsic dimensionality at each layer: double (n, layers).

    It is minus 1 over the mean logarithm of the nearest neighbours' distances, each divided by the
    largest of them; 0 where these are equal, as for a layer that is 0 for all images.
    """
    import torch

    from camdrift.features.reference import squared_distances

    columns = []
    for layer, others in zip(layers, map(torch.from_numpy, reference.layers), strict=True):
        squares = squared_distances(layer.double(), others)
        nearest = squares.topk(min(neighbours, len(others)), dim=1, largest=False).values
        logs = (nearest + TINY).log() / 2
        mean = (logs - logs[:, -1:]).mean(1)
        columns.append(torch.where(mean < 0, -1 / mean.clamp(max=-TINY), 0.0))
    return torch.stack(columns, dim=1)


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `lid_<layer>`, layers from 0, above 0."""
    from camdrift.features import pooled

    layers = images.once(pooled.measure)
    values = dimensions(layers, images.reference, neighbours=settings.neighbours)
    return joint.columns("lid", values)


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the two detectors by their names in tables."""
    return joint.pair("lid", NAMES)


def surrogate(
    detector: Detector, model: Model, settings: Settings, reference: Reference
) -> Objective:
    """Returns the distance or the log odds themselves."""
    from camdrift.features import pooled

    def measure(batch: Pixels) -> tuple[Logits, Tensor]:
        logits, layers = pooled.differentiable(model, batch)
        return logits, dimensions(layers, reference, neighbours=settings.neighbours)

    return joint.objective(detector, measure)

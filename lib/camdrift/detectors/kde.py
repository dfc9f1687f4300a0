"""Density of training images of the predicted class around an image, at the last layer.

Feinman et al. 2017, "Detecting Adversarial Samples from Artifacts", equation 4. Departs:
the layer is the last that has a map, pooled (see `features.pooled`), where the paper has the last
hidden one; without a `bandwidth`, that one is taken under which the training images are likeliest,
each judged by the others of its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from camdrift.detectors.detector import Detector, Single
from camdrift.settings.section import Positive, Section

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.features.images import Columns, Images, Objective
    from camdrift.features.reference import Reference
    from camdrift.models.model import Model
    from camdrift.models.tensors import Labels, Logits, PerImage, Pixels

REFERENCE = True
FACTORS = 2.0 ** np.arange(-4, 4.5, 0.5)  # of the median distance of a nearest neighbour


class Settings(Section):
    """The kernel's bandwidth, or null (published: 0.26 for CIFAR-10)."""

    bandwidth: Positive | None


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def likeliest(reference: Reference) -> float:
    """Returns the bandwidth, see above, of the last layer."""
    layer, labels = reference.layers[-1], reference.labels
    squares = cdist(layer, layer, "sqeuclidean")
    squares[labels[:, None] != labels] = np.inf
    np.fill_diagonal(squares, np.inf)
    nearest = squares.min(1)
    apart = nearest[nearest > 0]  # equal images have no scale
    scale = np.sqrt(np.median(apart)) if len(apart) else 1.0
    chances = [
        logsumexp(-squares / width**2, axis=1).mean() - layer.shape[1] * np.log(width)
        for width in scale * FACTORS
    ]
    return float(scale * FACTORS[np.argmax(chances)])


def log_density(layer: Tensor, classes: Labels, reference: Reference, width: float) -> Tensor:
    """Returns the logarithm of the mean kernel over training images of a class: double (n,).

    It is that of all training images for a class that has none.
    """
    import torch

    from camdrift.features.reference import squared_distances

    others, labels = torch.from_numpy(reference.layers[-1]), torch.from_numpy(reference.labels)
    squares = squared_distances(layer.double(), others)
    mine = classes[:, None] == labels
    mine = mine | ~mine.any(1, keepdim=True)
    kernels = torch.where(mine, -squares / width**2, -torch.inf)
    return kernels.logsumexp(1) - mine.sum(1).log()


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `kde`, minus the logarithm of the density."""
    from camdrift.features import pooled

    width = settings.bandwidth or images.reference.once(likeliest)
    layer, classes = images.once(pooled.measure)[-1], images.logits.argmax(1)
    return {"kde": -log_density(layer, classes, images.reference, width).numpy()}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"kde": Single("kde", trained_on="benign")}


def surrogate(
    detector: Detector, model: Model, settings: Settings, reference: Reference
) -> Objective:
    """Returns minus the logarithm of the density itself."""
    from camdrift.features import pooled

    width = settings.bandwidth or reference.once(likeliest)

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits, layers = pooled.differentiable(model, batch)
        return logits, -log_density(layers[-1], logits.argmax(1), reference, width).float()

    return score

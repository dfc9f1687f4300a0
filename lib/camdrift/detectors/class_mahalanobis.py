"""Distance of an image's activations from those of the nearest class, layer by layer.

Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
Adversarial Attacks", equations 1 and 2. Departs: the layers are all that have a map, where the
paper has the ends of blocks; covariances are shrunk (Ledoit & Wolf 2004), since training images may
be fewer than channels; images are not moved before they are judged; and beside the paper's
regression over layers stands a distance that has seen benign images alone, for which small values
are as strange as large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.covariance import LedoitWolf

from camdrift.detectors import joint
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.features.reference import Reference
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, Pixels

NAMES = ("class_mahalanobis", "class_mahalanobis_logistic")
REFERENCE = True


class Settings(Section):
    """No settings."""


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def fit(reference: Reference) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the means of classes (k, channels), and the precision that they share, by layer."""
    classes, places = np.unique(reference.labels, return_inverse=True)
    fits = []
    for layer in reference.layers:
        means = np.stack([layer[places == place].mean(0) for place in range(len(classes))])
        shared = LedoitWolf(assume_centered=True).fit(layer - means[places])
        fits.append((means, shared.precision_))
    return fits


def distances(layers: list[Tensor], reference: Reference) -> Tensor:
    """Returns the squared distance from the nearest class at each layer: double (n, layers)."""
    import torch

    columns = []
    for layer, fits in zip(layers, reference.once(fit), strict=True):
        means, precision = map(torch.from_numpy, fits)
        off = layer.double()[:, None] - means
        columns.append(((off @ precision) * off).sum(2).amin(1))
    return torch.stack(columns, dim=1)


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `class_mahalanobis_<layer>`, layers from 0."""
    from camdrift.features import pooled

    values = distances(images.once(pooled.measure), images.reference)
    return joint.columns("class_mahalanobis", values)


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the two detectors by their names in tables."""
    return joint.pair("class_mahalanobis", NAMES)


def surrogate(
    detector: Detector, model: Model, settings: Settings, reference: Reference
) -> Objective:
    """Returns the distance or the log odds themselves."""
    from camdrift.features import pooled

    def measure(batch: Pixels) -> tuple[Logits, Tensor]:
        logits, layers = pooled.differentiable(model, batch)
        return logits, distances(layers, reference)

    return joint.objective(detector, measure)

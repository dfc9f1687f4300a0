"""Recovery testing: how well the last layer's activations tell those of earlier layers.

Yun et al. 2025, "A Few Large Shifts: Layer-Inconsistency Based Minimal Overhead Adversarial Example
Detection" (AFLS-AED), the recovery test as their public code computes it: both small and large
values are strange. Departs: training images are few, so that ridge regressions stand in the place
of perceptrons with four layers, and a normal distribution in that of the benign images' quantiles,
which tell no two values beyond them apart; the layers are all that have a map, where the code has
the ends of blocks. The logit-layer test is left out, since its masks must be trained.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from camdrift.detectors import joint
from camdrift.detectors.mahalanobis import Mahalanobis
from camdrift.settings.section import Section, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.features.reference import Reference
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, PerImage, Pixels

REFERENCE = True
FEWEST = 3  # layers: with one regression the test is 0 for all images
PENALTIES = np.logspace(-2, 4, 13)  # of the regressions, on activations of variance 1
TINY = 1e-8


class Settings(Section):
    """No settings."""


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def fit(reference: Reference) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the regression of each layer but the last on the last: weights (k, c), offset (c,).

    The penalty is the one under which the training images, left out one at a time, have the least
    error.

    Raises:
        SettingsError: there are fewer than three layers.
    """
    if len(reference.layers) < FEWEST:
        raise SettingsError(
            f"detection.detectors.recovery: wanted a network with {FEWEST} layers that have maps, "
            f"got {len(reference.layers)}; leave this detector out"
        )
    *earlier, last = reference.layers
    scaler = StandardScaler().fit(last)
    fits = []
    for layer in earlier:
        ridge = RidgeCV(PENALTIES).fit(scaler.transform(last), layer)
        # scikit-learn drops the axis of a layer that has one channel.
        weights = np.atleast_2d(ridge.coef_).T / scaler.scale_[:, None]
        fits.append((weights, ridge.intercept_ - scaler.mean_ @ weights))
    return fits


def recoverability(layers: list[Tensor], reference: Reference) -> PerImage:
    """Returns the recovery test of each image, with a gradient: double (n,).

    With e_l the squared error, summed over channels, at layer l of the L layers before the last,
    and p the softmax of all e_l: sum_l (log L + p_l log p_l) * log(mean_l e_l).
    """
    import torch

    *earlier, last = [layer.double() for layer in layers]
    errors = []
    for layer, fits in zip(earlier, reference.once(fit), strict=True):
        weights, offset = map(torch.from_numpy, fits)
        errors.append((layer - last @ weights - offset).square().sum(1))
    each = torch.stack(errors, dim=1)
    shares = each.softmax(1)
    evenness = (log(len(errors)) + shares * (shares + TINY).log()).sum(1)
    return evenness * (each.mean(1) + TINY).log()


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `recovery_test`."""
    from camdrift.features import pooled

    values = recoverability(images.once(pooled.measure), images.reference)
    return {"recovery_test": values.numpy()}


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"recovery": Mahalanobis("recovery")}


def surrogate(
    detector: Detector, model: Model, settings: Settings, reference: Reference
) -> Objective:
    """Returns the squared distance from benign images itself."""
    from camdrift.features import pooled

    def measure(batch: Pixels) -> tuple[Logits, Tensor]:
        logits, layers = pooled.differentiable(model, batch)
        return logits, recoverability(layers, reference)[:, None]

    return joint.objective(detector, measure)

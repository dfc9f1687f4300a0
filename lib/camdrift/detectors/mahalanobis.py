"""Mahalanobis distance of all layers' profiles from those of benign images.

Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
Adversarial Attacks", equation 2, without classes and on profiles in place of activations; the
covariance is shrunk (Ledoit & Wolf 2004), since calibration images are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from camdrift.detectors.detector import Detector, feature_columns
from camdrift.settings.section import Section
from camdrift.storage import arrays

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, PerImage, Pixels


class Settings(Section):
    """No settings."""


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def measure(images: Images, settings: Settings) -> Columns:
    """Returns the profile of each image at all layers, see `camdrift.features.profile`."""
    from camdrift.features import profile

    return images.once(profile.measure)


class Mahalanobis(Detector):
    """The distance, with mean and covariance of the benign calibration images.

    Args:
        feature: the name with which its columns begin.
    """

    trained_on = "benign"

    def __init__(self, feature: str = "profile") -> None:
        self.feature = feature

    def learn(self, features: pd.DataFrame, adversarial: arrays.Mask) -> None:
        """Fits the benign images' mean and covariance."""
        benign = feature_columns(features[~adversarial], self.feature)
        self.scaler_ = StandardScaler().fit(benign)
        self.covariance_ = LedoitWolf().fit(self.scaler_.transform(benign))

    def score_samples(self, features: pd.DataFrame) -> arrays.PerImage:
        """Returns the squared distance."""
        return self.covariance_.mahalanobis(
            self.scaler_.transform(feature_columns(features, self.feature))
        )


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"mahalanobis": Mahalanobis()}


def surrogate(detector: Mahalanobis, model: Model, settings: Settings) -> Objective:
    """Returns the squared distance itself."""
    from camdrift.features import profile

    distance = squared_distance(detector)

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits, profiles = profile.differentiable(model, batch)
        return logits, distance(profiles)

    return score


def squared_distance(detector: Mahalanobis) -> Callable[[Tensor], PerImage]:
    """Returns the squared distance as a function of columns, double (n, k), with a gradient."""
    import torch

    mean, scale = map(torch.from_numpy, (detector.scaler_.mean_, detector.scaler_.scale_))
    centre = torch.from_numpy(detector.covariance_.location_)
    precision = torch.from_numpy(detector.covariance_.get_precision())

    def distance(columns: Tensor) -> PerImage:
        off = (columns - mean) / scale - centre
        return (off @ precision * off).sum(1).float()

    return distance

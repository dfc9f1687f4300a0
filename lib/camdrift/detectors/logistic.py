"""Logistic regression on the standardised profiles of all layers, with balanced classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from camdrift.detectors.detector import Detector, UnfitError, feature_columns
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


class Logistic(Detector):
    """The regression, fitted to benign and adversarial calibration images.

    Args:
        feature: the name with which its columns begin.
    """

    trained_on = "attacked"

    def __init__(self, feature: str = "profile") -> None:
        self.feature = feature

    def learn(self, features: pd.DataFrame, adversarial: arrays.Mask) -> None:
        """Fits the regression."""
        if not adversarial.any():
            raise UnfitError("no adversarial image to learn from")
        self.model_ = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
        ).fit(feature_columns(features, self.feature), adversarial)

    def score_samples(self, features: pd.DataFrame) -> arrays.PerImage:
        """Returns the log odds."""
        return self.model_.decision_function(feature_columns(features, self.feature))


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"logistic": Logistic()}


def surrogate(detector: Logistic, model: Model, settings: Settings) -> Objective:
    """Returns the log odds themselves."""
    from camdrift.features import profile

    odds = log_odds(detector)

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits, profiles = profile.differentiable(model, batch)
        return logits, odds(profiles)

    return score


def log_odds(detector: Logistic) -> Callable[[Tensor], PerImage]:
    """Returns the log odds as a function of columns, double (n, k), with a gradient."""
    import torch

    scaler, linear = (step for _, step in detector.model_.steps)
    mean, scale, weights = map(torch.from_numpy, (scaler.mean_, scaler.scale_, linear.coef_[0]))
    return lambda columns: ((columns - mean) / scale @ weights + linear.intercept_[0]).float()

"""Detector: the base class of all detectors, and the detector that is a single feature.

Each has scikit-learn's `fit` / `score_samples` / `predict`. For every detector, `score_samples` is
higher the more an image looks attacked; `predict` is the detector's own decision. Features are a
table with a row for each image and the columns of the detectors' `measure`; `fit` takes those of
the calibration images, and a mask of the adversarial ones.
"""

from typing import Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from camdrift.storage.arrays import Mask, PerImage

# In place of a layer: the most sensitive one, which is chosen on the calibration images.
SENSITIVE = "sensitive"


class UnfitError(Exception):
    """The calibration images lack a kind that a detector needs; the message names it."""


class Detector(BaseEstimator):
    """Base class: a threshold on the score, for detectors without a rule of their own.

    It is the `1 - false_alarms` quantile of the scores of benign calibration images.

    Attributes:
        own_rule: whether `predict` uses a rule of the detector's own.
        trained_on: the kind of images that the score is fitted to, if it is fitted at all.
        unfit: the reason why fitting failed, or "".
    """

    false_alarms = 0.05
    own_rule = False
    trained_on: Literal["none", "benign", "attacked"] = "none"
    unfit = ""

    def fit(self, features: pd.DataFrame, adversarial: Mask) -> "Detector":
        """Fits the detector to calibration images, of which some are `adversarial`.

        Raises:
            UnfitError: there is no benign image, or no image of another kind that is required.
        """
        if adversarial.all():
            raise UnfitError("no benign image to calibrate on")
        self.learn(features, adversarial)
        scores = self.score_samples(features[~adversarial])
        self.threshold_ = float(np.quantile(scores, 1 - self.false_alarms, method="higher"))
        return self

    def learn(self, features: pd.DataFrame, adversarial: Mask) -> None:
        """Fits the parameters of the score, if it has any; arguments as in `fit`."""

    def score_samples(self, features: pd.DataFrame) -> PerImage:
        """Returns a score for each image, higher the more it looks attacked."""
        raise NotImplementedError

    def predict(self, features: pd.DataFrame) -> Mask:
        """Returns whether each image is called adversarial."""
        return self.score_samples(features) > self.threshold_


class Single(Detector):
    """A detector whose score is one feature, or its negative."""

    def __init__(
        self, feature: str, sign: int = 1, trained_on: Literal["none", "benign"] = "none"
    ) -> None:
        self.feature = feature
        self.sign = sign
        self.trained_on = trained_on

    def score_samples(self, features: pd.DataFrame) -> PerImage:
        """Returns the feature times the sign."""
        return self.sign * features[self.feature].to_numpy(dtype=float)


def feature_columns(features: pd.DataFrame, name: str) -> np.ndarray:
    """Returns the columns `<name>_...` of features, in their order: float64 (n, columns)."""
    names = [column for column in features if column.startswith(f"{name}_")]
    return features[names].to_numpy(dtype=float)

"""Detector: what the rules of all detectors share, and the rule that is one feature alone.

Each follows scikit-learn's `fit` / `score_samples` / `predict`. `score_samples` is higher the more
an image looks attacked, for every detector; `predict` is the detector's own decision. Features are
a table, a row an image, with the columns that detectors' files measure; `fit` takes the calibrating
images and which of them are adversarial.
"""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator


class UnfitError(Exception):
    """The calibrating images do not tell a detector what it needs; the message says what."""


class Detector(BaseEstimator):
    """What all detectors share: a threshold on the score, for those that have no rule of their own.

    It is the calibrating benign images' quantile at `1 - false_alarms`.

    Attributes:
        own_rule: whether `predict` follows a rule of the detector's own.
        unfit: why it could not be fitted, "" where nothing is known against it.
    """

    false_alarms = 0.05
    own_rule = False
    unfit = ""

    def fit(self, features: pd.DataFrame, adversarial: np.ndarray) -> "Detector":
        """Learns from calibrating images; `adversarial` is bool (n,).

        Raises:
            UnfitError: there is no benign image, or none of another kind that the detector needs.
        """
        if adversarial.all():
            raise UnfitError("no benign image to calibrate on")
        self.learn(features, adversarial)
        scores = self.score_samples(features[~adversarial])
        self.threshold_ = float(np.quantile(scores, 1 - self.false_alarms, method="higher"))
        return self

    def learn(self, features: pd.DataFrame, adversarial: np.ndarray) -> None:
        """Learns what the score needs, as `fit`; nothing for most."""

    def score_samples(self, features: pd.DataFrame) -> np.ndarray:
        """Returns a score an image (n,), higher where it looks more attacked."""
        raise NotImplementedError

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Returns whether each image is called adversarial: bool (n,)."""
        return self.score_samples(features) > self.threshold_


class Single(Detector):
    """One feature alone, or its negative."""

    def __init__(self, feature: str, sign: int = 1) -> None:
        self.feature = feature
        self.sign = sign

    def score_samples(self, features: pd.DataFrame) -> np.ndarray:
        """Returns the feature times the sign."""
        return self.sign * features[self.feature].to_numpy(dtype=float)


def feature_columns(features: pd.DataFrame, name: str) -> np.ndarray:
    """Returns the columns `<name>_...` of features, in their order: float64 (n, columns)."""
    names = [column for column in features if column.startswith(f"{name}_")]
    return features[names].to_numpy(dtype=float)

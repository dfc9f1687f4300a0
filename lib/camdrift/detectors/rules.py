"""Detectors: does an image look attacked? They work on features, so they see one image alone.

Each follows scikit-learn's `fit` / `score_samples` / `predict`. `score_samples` is higher the more
an image looks attacked, for every detector; `predict` is the detector's own decision. Features are
a table, a row an image, as `features.measure` writes it; `fit` takes the calibrating images and
which of them are adversarial.
"""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from camdrift.detectors.names import PROFILE, READINGS


class UnfitError(Exception):
    """The calibrating images do not tell a detector what it needs; the message says what."""


class Detector(BaseEstimator):
    """What all detectors share: a threshold on the score, for those that have no rule of their own.

    It is the calibrating benign images' quantile at `1 - false_alarms`.
    """

    false_alarms = 0.05

    def fit(self, features: pd.DataFrame, adversarial: np.ndarray) -> "Detector":
        """Learns from calibrating images; `adversarial` is bool (n,).

        Raises:
            UnfitError: there is no benign image, or none of another kind that the detector needs.
        """
        if adversarial.all():
            raise UnfitError("no benign image to calibrate on")
        self._learn(features, adversarial)
        scores = self.score_samples(features[~adversarial])
        self.threshold_ = float(np.quantile(scores, 1 - self.false_alarms, method="higher"))
        return self

    def _learn(self, features: pd.DataFrame, adversarial: np.ndarray) -> None:
        """Learns what the score needs; nothing for most."""

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


class BehaviourDeviation(Detector):
    """tan2023, section III-D, step 5: the image's map drifts further than its noisy copies'.

    Args:
        rule: what a similarity must be below to be called adversarial, of the copies': 'median'
            (the paper's), 'quantile' (5 %) or 'deviations' (mean minus two standard deviations).
    """

    def __init__(self, rule: str = "median") -> None:
        self.rule = rule

    def score_samples(self, features: pd.DataFrame) -> np.ndarray:
        """Returns how far the similarity lies below the rule's limit."""
        limit = {
            "median": features["copies_median"],
            "quantile": features["copies_quantile"],
            "deviations": features["copies_mean"] - 2 * features["copies_std"],
        }[self.rule]
        return (limit - features["similarity"]).to_numpy(dtype=float)

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Returns whether the similarity lies below the rule's limit."""
        return self.score_samples(features) > 0


class NoiseCam(Detector):
    """tan2023, section III-E: more than 3 clusters of bright pixels are adversarial.

    The paper does not say what is bright: the threshold is the one, of those that were measured,
    at which the rule is most often right on the calibrating images, both kinds weighing the same.

    Args:
        reading: see `features.noisecam`.
        thresholds: number of thresholds that were measured.
        limit: clusters that are still benign.
    """

    def __init__(self, reading: str, thresholds: int, limit: int = 3) -> None:
        self.reading = reading
        self.thresholds = thresholds
        self.limit = limit

    def _learn(self, features: pd.DataFrame, adversarial: np.ndarray) -> None:
        if not adversarial.any():
            raise UnfitError("no adversarial image to choose the brightness by")
        rates = []
        for place in range(self.thresholds):
            called = self._clusters(features, place) > self.limit
            rates.append((called[adversarial].mean() + (~called[~adversarial]).mean()) / 2)
        self.place_ = int(np.argmax(rates))

    def _clusters(self, features: pd.DataFrame, place: int) -> np.ndarray:
        return features[f"clusters_{self.reading}_{place}"].to_numpy(dtype=float)

    def score_samples(self, features: pd.DataFrame) -> np.ndarray:
        """Returns the number of clusters."""
        return self._clusters(features, self.place_)

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Returns whether there are more clusters than the limit."""
        return self.score_samples(features) > self.limit


class Logistic(Detector):
    """Logistic regression on all layers' profiles, standardised, both kinds weighing the same."""

    def _learn(self, features: pd.DataFrame, adversarial: np.ndarray) -> None:
        if not adversarial.any():
            raise UnfitError("no adversarial image to learn from")
        self.model_ = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
        ).fit(_profile(features), adversarial)

    def score_samples(self, features: pd.DataFrame) -> np.ndarray:
        """Returns the log odds."""
        return self.model_.decision_function(_profile(features))


class Mahalanobis(Detector):
    """Distance of the layers' profiles from those of benign images.

    Lee et al. 2018, equation 2, without classes and on profiles in place of activations; the
    covariance is shrunk (Ledoit & Wolf 2004), since calibrating images are few.
    """

    def _learn(self, features: pd.DataFrame, adversarial: np.ndarray) -> None:
        benign = _profile(features[~adversarial])
        self.scaler_ = StandardScaler().fit(benign)
        self.covariance_ = LedoitWolf().fit(self.scaler_.transform(benign))

    def score_samples(self, features: pd.DataFrame) -> np.ndarray:
        """Returns the squared distance."""
        return self.covariance_.mahalanobis(self.scaler_.transform(_profile(features)))


def _profile(features: pd.DataFrame) -> np.ndarray:
    names = [name for name in features if name.rpartition("_")[0] in PROFILE]
    return features[names].to_numpy(dtype=float)


BEHAVIOUR = ("behaviour_median", "behaviour_quantile", "behaviour_deviations")
NOISECAM = tuple(f"noisecam_{reading}" for reading in READINGS)
BASELINES = ("confidence", "energy", "squeezing", "residual", "logistic", "mahalanobis")
CHANCE = "chance"
WITH_RULE = (*BEHAVIOUR, *NOISECAM)  # of the paper: they decide without a chosen threshold
NAMES = (*BEHAVIOUR, *NOISECAM, *BASELINES, CHANCE)


def make(name: str, *, thresholds: int, clusters: int) -> Detector:
    """Returns a fresh detector by name, one of `NAMES`.

    Args:
        name: of the detector.
        thresholds: number of NoiseCAM's measured thresholds.
        clusters: more of them are adversarial, to NoiseCAM.
    """
    if name in BEHAVIOUR:
        return BehaviourDeviation(name.removeprefix("behaviour_"))
    if name in NOISECAM:
        return NoiseCam(name.removeprefix("noisecam_"), thresholds, clusters)
    if name == "confidence":
        return Single("probability", sign=-1)
    return {"logistic": Logistic, "mahalanobis": Mahalanobis}.get(name, lambda: Single(name))()

"""Evaluation: detectors are fitted, get thresholds, and are tested on three sets of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from camdrift.analysis import statistics
from camdrift.detectors.detector import Detector, UnfitError
from camdrift.detectors.families import Family
from camdrift.storage import ADVERSARIAL, ATTACKS, CLEAN, NOISE

# The variants of noise that is of the size of an attack on detectors, image by image.
NOISE_OF = {arm: f"{arm}_noise" for arm in ATTACKS}


def fit_detectors(
    features: pd.DataFrame, images: pd.DataFrame, strength: float, families: Sequence[Family]
) -> dict[str, Detector]:
    """Returns every detector, fitted on the calibration images, by name.

    Clean and noisy images are benign; images whose class the attack flips at that strength are
    adversarial. If fitting fails, the detector's `unfit` holds the reason.
    """
    rows = rows_at_strength(features, images, strength)
    rows = rows[(rows["split"] == "calibrate") & (rows["kind"] != "failure")]
    adversarial = (rows["kind"] == "success").to_numpy()
    detectors = {name: each for family in families for name, each in family.readings().items()}
    for detector in detectors.values():
        try:
            detector.fit(rows, adversarial)
        except UnfitError as fault:
            detector.unfit = str(fault)
    return detectors


def rows_at_strength(features: pd.DataFrame, images: pd.DataFrame, strength: float) -> pd.DataFrame:
    """Returns clean, attacked and noisy images at a strength, with the columns of `add_facts`."""
    at = (features["strength"] == strength) & features["variant"].isin([ADVERSARIAL, NOISE])
    rows = features[at | (features["variant"] == CLEAN)]
    return add_facts(rows, images)


def add_facts(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Returns rows of features with facts on their images.

    `split`, `source`, `label`, `clean` (prediction) and `kind`: 'clean', 'noise', or for attacked
    images 'success' if the prediction differs from that on the clean image, else 'failure'.
    """
    facts = images.set_index("image")[["split", "source", "label", "clean"]]
    rows = rows.join(facts, on="image").reset_index(drop=True)
    flipped = np.where(rows["prediction"] != rows["clean"], "success", "failure")
    benign = rows["variant"].isin([CLEAN, NOISE])
    return rows.assign(kind=np.where(benign, rows["variant"], flipped))


@dataclass(frozen=True)
class Evaluation:
    """Detectors fitted at one strength of a cell, tested on the rows of one strength of a cell.

    detectors: as `fit_detectors` returns it.
    rows: as `rows_at_strength` returns it, of the tested cell and strength.
    confidence: of the intervals.
    weights: (resamples, test images), see `draw_resamples`; the clean, attacked and noisy variant
        of an image are drawn together.
    fitted: as `rows`, of the cell and strength at which detectors were fitted and thresholds are
        chosen; None if that is the tested one.
    """

    detectors: dict[str, Detector]
    rows: pd.DataFrame
    confidence: float
    weights: np.ndarray
    fitted: pd.DataFrame | None = None

    def tested_on(self, rows: pd.DataFrame) -> "Evaluation":
        """Returns the evaluation of the same detectors, at the same thresholds, on other rows."""
        return replace(self, rows=rows, fitted=self.rows if self.fitted is None else self.fitted)

    @cached_property
    def choosing(self) -> pd.DataFrame:
        """Rows of the images on which thresholds are chosen, without attacks that fail."""
        rows = self.rows if self.fitted is None else self.fitted
        return rows[(rows["split"] == "choose") & (rows["kind"] != "failure")]

    @cached_property
    def test(self) -> pd.DataFrame:
        """Rows of the test images."""
        return self.rows[self.rows["split"] == "test"].reset_index(drop=True)

    @cached_property
    def place(self) -> np.ndarray:
        """The test image, counted from 0, of each test row."""
        return np.unique(self.test["image"], return_inverse=True)[1]

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Scores of the test rows by detector, without those whose fitting failed."""
        detectors = self.detectors.items()
        return {name: d.score_samples(self.test) for name, d in detectors if not d.unfit}

    def alarms(self, name: str, rule: str) -> np.ndarray:
        """Returns a mask of the test rows that a detector calls adversarial: bool (n,).

        It decides by its own rule ('own'), or by the threshold with the highest balanced accuracy
        on the choosing images ('chosen').
        """
        threshold = self.threshold(name)
        if rule == "own" or np.isnan(threshold):
            return self.detectors[name].predict(self.test)
        return self.scores[name] >= threshold

    def threshold(self, name: str) -> float:
        """Returns the chosen threshold, see `alarms`; NaN if choosing images are of one kind."""
        adversarial = (self.choosing["kind"] == "success").to_numpy()
        if adversarial.all() or not adversarial.any():
            return np.nan
        scores = self.detectors[name].score_samples(self.choosing)
        fpr, tpr, thresholds = roc_curve(adversarial, scores)
        return float(thresholds[np.argmax(tpr - fpr)])

    def members(self, positives: str, negatives: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the places of the test rows of each kind."""
        kinds_of = {"all": ["success", "failure"], "both": [CLEAN, NOISE]}
        kinds = self.test["kind"]
        return tuple(
            np.flatnonzero(kinds.isin(kinds_of.get(name, [name])))
            for name in (positives, negatives)
        )  # type: ignore[return-value]

    @cached_property
    def _aurocs(self) -> dict[tuple[str, str, str], np.ndarray]:
        return {}

    def auroc(self, name: str, positives: str, negatives: str) -> np.ndarray:
        """Returns the AUROC, followed by that of each resample: (1 + resamples,).

        It is the probability that an attacked image scores above a benign one; ties count half.
        """
        key = (name, positives, negatives)
        if key not in self._aurocs:
            self._aurocs[key] = self._auroc(*key)
        return self._aurocs[key]

    def _auroc(self, name: str, positives: str, negatives: str) -> np.ndarray:
        yes, no = self.members(positives, negatives)
        rows = np.concatenate([yes, no])
        positive = np.arange(len(rows)) < len(yes)
        return statistics.auroc(self.scores[name][rows], positive, weights=self.counts(rows))

    def rate(self, values: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Returns the mean of values over some test rows, followed by that of each resample."""
        weights = self.counts(members)
        with np.errstate(invalid="ignore"):
            return weights @ values[members] / weights.sum(1)

    def counts(self, members: np.ndarray) -> np.ndarray:
        """Returns counts of some test rows in each resample, after a row of ones: (1 + r, n)."""
        counts = self.weights[:, self.place[members]]
        return np.concatenate([np.ones((1, len(members))), counts])

    def balanced(self, name: str, rule: str, negatives: str = "both") -> np.ndarray:
        """Returns the balanced accuracy, successes against benign images, and of resamples."""
        alarms = self.alarms(name, rule)
        yes, no = self.members("success", negatives)
        return (self.rate(alarms, yes) + 1 - self.rate(alarms, no)) / 2

    def share(self, alarms: np.ndarray, members: np.ndarray) -> tuple[float, float, float]:
        """Returns the share of some test rows that raise an alarm, and its interval.

        If all or none do, the interval is that of a binomial with as many draws as source pictures.
        """
        value, low, high = self.interval(self.rate(alarms, members))
        if value in (0, 1):
            pictures = self.test["source"].iloc[members].nunique()
            low, high = statistics.far_ends(value, pictures, confidence=self.confidence)
        return value, low, high

    def interval(self, values: np.ndarray) -> tuple[float, float, float]:
        """Returns a value and its interval, from the value and its resamples."""
        low, high = statistics.interval(
            values[1:, None], confidence=self.confidence, clusters=self.test["source"].nunique()
        )
        return float(values[0]), float(low[0]), float(high[0])


def draw_resamples(images: pd.DataFrame, *, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the count of each test image in each resample: (resamples, test images).

    Source pictures are drawn with replacement, each with all its test images: tiles of one picture
    are not independent. NaN with fewer than two pictures, since there is no interval.
    """
    test = images[images["split"] == "test"].sort_values("image")
    names, place = np.unique(test["source"], return_inverse=True)
    if len(names) < 2:
        return np.full((resamples, len(test)), np.nan)
    share = np.full(len(names), 1 / len(names))
    return rng.multinomial(len(names), share, size=resamples)[:, place].astype(float)

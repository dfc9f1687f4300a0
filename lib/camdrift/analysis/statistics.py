"""Bootstrap and jackknife by cluster, Holm's correction, compromised layers, coverage curves."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import gammaln, ndtr, ndtri, stdtrit

# The largest number of resamples: 200 images and 500 comparisons then take a gigabyte.
MOST_RESAMPLES = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval: arrays of one value a column.

    p: one-sided bootstrap p-value of "the mean is not above 0".
    n: number of values that are not NaN.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    n: np.ndarray


@dataclass(frozen=True)
class Resampler:
    """Bootstrap draws of whole clusters, the same for everything that is computed from them.

    Tiles of one picture are not independent, so pictures are drawn, with replacement, and a
    resample's mean is that of all their tiles (Efron & Tibshirani 1993, sections 8.2 and 13.3).

    place: (n,), the cluster of each row, counted from 0.
    weights: (resamples, clusters), how often each cluster was drawn.
    """

    place: np.ndarray
    weights: np.ndarray

    @classmethod
    def draw(cls, clusters: np.ndarray, *, resamples: int, rng: np.random.Generator) -> "Resampler":
        """Returns the draws for rows that belong to `clusters` (n,)."""
        names, place = np.unique(clusters, return_inverse=True)
        if not len(names):
            return cls(place, np.zeros((resamples, 0), dtype=int))
        share = np.full(len(names), 1 / len(names))
        return cls(place, rng.multinomial(len(names), share, size=resamples))

    @property
    def clusters(self) -> int:
        """The number of clusters."""
        return self.weights.shape[1]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Returns the sums of each column within each cluster: (clusters, columns)."""
        member = self.place == np.arange(self.weights.shape[1])[:, None]
        return member.astype(float) @ values

    def means(self, values: np.ndarray) -> np.ndarray:
        """Returns each resample's mean of each column, NaN left out: (resamples, columns).

        All NaN with fewer than two clusters.
        """
        known = ~np.isnan(values)
        totals = self.weights @ self.sums(np.where(known, values, 0))
        counts = self.weights @ self.sums(known)
        if self.weights.shape[1] < 2:
            return np.full(totals.shape, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            return totals / counts

    def estimate(self, values: np.ndarray, *, confidence: float) -> Estimate:
        """Returns the mean of each column of `values` (n, columns) and its `interval`."""
        means = self.means(values)
        known = ~np.isnan(values)
        counts = known.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(known, values, 0).sum(0) / counts
        low, high = interval(means, confidence=confidence, clusters=self.clusters)
        p = np.full_like(mean, np.nan)
        defined = ~np.isnan(means).all(0)
        p[defined] = (1 + (means[:, defined] <= 0).sum(0)) / (1 + len(means))
        return Estimate(mean, low, high, p, counts)


def row_means(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each row, NaN left out: (rows, 1), NaN where all of the row are."""
    known = ~np.isnan(values)
    sums = values.sum(1, keepdims=True, where=known)
    with np.errstate(invalid="ignore"):
        return sums / known.sum(1, keepdims=True)


def interval(
    draws: np.ndarray, *, confidence: float, clusters: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the expanded percentile interval of each column of bootstrap draws.

    The draws of k clusters spread by sqrt((k - 1) / k) too little, and their tails are those of a
    normal distribution, not of Student's t: with 10 clusters a plain percentile interval of 95 %
    holds the mean of a normal population about 90 times in 100. The percentiles are moved outwards
    until the interval of a normal mean is its t interval (Hesterberg 2015, The American
    Statistician 69(4), "expanded percentile interval").

    Args:
        draws: (resamples, columns).
        confidence: in (0, 1).
        clusters: the number drawn in each resample; infinite for the plain percentiles.
    """
    low, high = (np.full(draws.shape[1], np.nan) for _ in range(2))
    defined = ~np.isnan(draws).all(0)
    if defined.any():
        tail = (1 - confidence) / 2
        if 1 < clusters < math.inf:
            tail = ndtr(stdtrit(clusters - 1, tail) * math.sqrt(clusters / (clusters - 1)))
        known = draws[:, defined]
        # The same values; `nanquantile` takes one column after another, in twice the time.
        quantile = np.nanquantile if np.isnan(known).any() else np.quantile
        low[defined], high[defined] = quantile(known, [tail, 1 - tail], axis=0)
    return low, high


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values adjusted for the family (Holm 1979); NaN stays out of the family."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def required_resamples(resamples: int, *, comparisons: int, confidence: float) -> int:
    """Returns the number of resamples that Holm's correction of the comparisons requires.

    A bootstrap p-value is at least 1 / (resamples + 1), and Holm multiplies the smallest by the
    number of comparisons. The result is twice the number that brings this below the level, so
    that a single draw beyond the limit does not decide.

    Args:
        resamples: the least, whatever the comparisons.
        comparisons: of the largest family.
        confidence: the level is 1 minus it.
    """
    minimum = math.ceil(2 * comparisons / (1 - confidence))
    return max(resamples, min(minimum, MOST_RESAMPLES))


def out_of_reach(comparisons: int, *, resamples: int, confidence: float) -> str:
    """Returns a note if no data could make a comparison significant, else ''."""
    least = comparisons / (resamples + 1)
    if least < 1 - confidence:
        return ""
    return (
        f"out of reach: after Holm over {comparisons} comparisons no p-value of {resamples} "
        f"resamples is below {least:.2g}"
    )


def folds(sources: pd.Series, *, count: int, rng: np.random.Generator) -> pd.Series:
    """Returns the fold, 0 to count - 1, of each row: a source's rows stay together."""
    names = np.unique(sources)
    fold = pd.Series(rng.permutation(len(names)) % count, index=names)
    return pd.Series(fold.loc[sources].to_numpy(), index=sources.index)


def thresholds(noise: pd.DataFrame, *, rule: str, quantile: float) -> pd.Series:
    """Returns the similarity below which a layer is compromised, by (strength, layer, fold).

    layer_median: the median under noise (renkhoff2022, IV-E). global_mean: the mean over layers of
    the layers' means, one number a strength (its public code). Both use the images that the attack
    flips, since the public code makes noise for adversarials alone; the noise then sets the
    threshold that judges it. held_out_quantile: a low quantile under noise, of all images of the
    other folds.

    Args:
        noise: `strength, layer, fold, success, value`, one draw.
        rule: one of the three.
        quantile: of the third, in (0, 1).
    """
    keys = ["strength", "layer"]
    tables = {}
    flipped = noise[noise["success"]] if noise["success"].any() else noise
    for fold in np.unique(noise["fold"]):
        others = noise[noise["fold"] != fold] if rule == "held_out_quantile" else flipped
        values = others.groupby(keys, observed=True)["value"]
        if rule == "held_out_quantile":
            limits = values.quantile(quantile)
        elif rule == "layer_median":
            limits = values.median()
        else:
            means = values.mean()
            limits = means.groupby("strength").transform("mean")
        tables[fold] = limits
    return pd.concat(tables, names=["fold"]).reorder_levels([*keys, "fold"]).rename("threshold")


def compromised(similarity: pd.DataFrame, *, rule: str, quantile: float) -> pd.DataFrame:
    """Returns whether each layer of each image is compromised.

    A layer is compromised where the map's similarity is below the threshold that draw 0 of the
    noise sets. The same rule applied to a further draw says how often it calls plain noise
    compromised; a held-out threshold, which other images set, may judge draw 0 where there is no
    other.

    Args:
        similarity: `image, variant, strength, draw, layer, fold, success, value`, of one cell,
            reading, score and target.
        rule: see `thresholds`.
        quantile: see `thresholds`.

    Returns:
        The rows of the attack and of that draw whose value is known, with `arm` ('attack' or
        'noise') and `compromised`.
    """
    known = similarity.dropna(subset="value")
    noise = known["variant"] == "noise"
    first = known[noise & (known["draw"] == 0)]
    second = (known.loc[noise, "draw"] == 1).any() or rule != "held_out_quantile"
    arms = {"attack": known["variant"] == "adversarial"}
    arms["noise"] = noise & (known["draw"] == (1 if second else 0))
    rows = pd.concat([known[mask].assign(arm=arm) for arm, mask in arms.items()])
    limits = thresholds(first, rule=rule, quantile=quantile)
    rows = rows.join(limits, on=list(limits.index.names), how="inner")
    rows["compromised"] = rows["value"] < rows["threshold"]
    return rows.drop(columns="threshold").reset_index(drop=True)


def spearman(x: np.ndarray, y: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Returns the rank correlation of x and y (n,) in each resample: (resamples,).

    `weights` (resamples, n) says how often each pair is in a resample; ties share the mean of
    their ranks. NaN where one of the two does not vary.
    """

    def ranks(values: np.ndarray) -> np.ndarray:
        known, place = np.unique(values, return_inverse=True)
        counts = weights @ (place[:, None] == np.arange(len(known)))
        middle = (counts.cumsum(1) - counts / 2)[:, place]
        total = weights.sum(1, keepdims=True)
        return middle - (weights * middle).sum(1, keepdims=True) / total

    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = ranks(x), ranks(y)
        norms = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
        return (weights * a * b).sum(1) / norms


def far_ends(value: float, count: int, *, confidence: float) -> tuple[float, float]:
    """Returns the interval of a share that is 0 or 1: that of a binomial of `count` draws.

    Resamples of such a share do not differ (Clopper & Pearson 1934).
    """
    tail = (1 - confidence) / 2
    reach = float(1 - tail ** (1 / count))
    return (0.0, reach) if value == 0 else (1 - reach, 1.0)


def auroc(scores: np.ndarray, positive: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Returns the AUROC in each resample: (resamples,), NaN where one of the kinds is missing.

    The chance that a positive scores above a negative, half for a tie.

    Args:
        scores: (n,).
        positive: bool (n,).
        weights: (resamples, n), how often each is in a resample.
    """
    yes, no = scores[positive], scores[~positive]
    above = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    positive_weights, negative_weights = weights[:, positive], weights[:, ~positive]
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = positive_weights.sum(1) * negative_weights.sum(1)
        return (
            np.einsum("ri,ij,rj->r", positive_weights, above, negative_weights, optimize=True)
            / pairs
        )


def jackknife(left_out: np.ndarray, value: float, *, confidence: float) -> tuple[float, float]:
    """Returns a normal interval from the statistic without each cluster in turn.

    For statistics of a union, as coverage is: a bootstrap resample holds some clusters twice,
    which covers nothing new, and so falls short of the whole (Efron & Tibshirani 1993, chapter
    11). NaN with fewer than two clusters.
    """
    count = len(left_out)
    if count < 2:
        return float("nan"), float("nan")
    error = np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())
    reach = float(ndtri((1 + confidence) / 2) * error)
    return value - reach, value + reach


def coverage_curve(covered: np.ndarray) -> np.ndarray:
    """Returns the share of neurons covered after 1, 2, ... images: (n,), in [0, 1].

    The mean over all orders of the images: after k of n, a neuron that m of them cover is still
    missing with the chance C(n - m, k) / C(n, k).

    Args:
        covered: bool (n, neurons).
    """
    n = len(covered)
    by_images, neurons = np.unique(covered.sum(0), return_counts=True)
    k, m = np.arange(1, n + 1)[:, None], by_images[None]
    remainder = np.maximum(n - m - k, 0)
    log = gammaln(n - m + 1) - gammaln(remainder + 1) + gammaln(n - k + 1) - gammaln(n + 1)
    missing = np.where(k <= n - m, np.exp(log), 0.0)
    return 1 - missing @ neurons / neurons.sum()


def shared_list(curves: dict[float, np.ndarray]) -> dict[float, np.ndarray]:
    """Returns the coverage of random images as renkhoff2022's public code stores it.

    Its list is not emptied between strengths and stands, as one object, under every strength: all
    curves in a row. Figure 2a cuts it off after the seeds, which leaves the first strength's.
    """
    joined = np.concatenate([curves[strength] for strength in sorted(curves)])
    return dict.fromkeys(curves, joined)

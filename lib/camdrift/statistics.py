"""Bootstrap by cluster, Holm's correction, compromised layers, coverage curves."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


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


def bootstrap(
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """Returns the mean of each column and a percentile interval, resampled by whole clusters.

    Tiles of one picture are not independent, so pictures are drawn, with replacement, and a
    resample's mean is that of all their tiles. NaN values are left out. With a single cluster the
    interval is undefined (NaN). Efron & Tibshirani 1993, sections 8.2 and 13.3.

    Args:
        values: (n, columns).
        clusters: (n,), the cluster of each row.
        resamples: number of bootstrap draws.
        confidence: coverage of the interval, in (0, 1).
        rng: draws the resamples; the same draw serves all columns, which stay paired.
    """
    names, place = np.unique(clusters, return_inverse=True)
    known = ~np.isnan(values)
    sums, counts = (np.zeros((len(names), values.shape[1])) for _ in range(2))
    np.add.at(sums, place, np.where(known, values, 0))
    np.add.at(counts, place, known)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (draws @ sums) / (draws @ counts)
        mean = sums.sum(0) / counts.sum(0)
    if len(names) < 2:
        means = np.full_like(means, np.nan)
    defined = ~np.isnan(means).all(0)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    p = np.full_like(mean, np.nan)
    if defined.any():
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        low[defined], high[defined] = np.nanquantile(means[:, defined], tails, axis=0)
    p[defined] = (1 + (means[:, defined] <= 0).sum(0)) / (1 + resamples)
    return Estimate(mean, low, high, p, counts.sum(0).astype(int))


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values adjusted for the family (Holm 1979); NaN stays out of the family."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def compromised(similarity: pd.DataFrame) -> pd.DataFrame:
    """Returns which layers of which images are compromised, by the rule of renkhoff2022, IV-E.

    A layer is compromised where the map's similarity is below the median, over images, of the
    similarity under noise (draw 0) at that layer and strength. The same rule applied to a further
    draw of noise says how often it calls plain noise compromised.

    Args:
        similarity: `image, variant, strength, draw, layer, value`, of one cell, score and target.

    Returns:
        The rows of the attack and of draw 1 whose value is known, with `arm` ('attack' or 'noise')
        and `compromised`.
    """
    known = similarity.dropna(subset="value")
    first = known[(known["variant"] == "noise") & (known["draw"] == 0)]
    medians = first.groupby(["strength", "layer"], observed=True)["value"].median()
    arms = {"attack": known["variant"] == "adversarial", "noise": known["draw"] == 1}
    rows = pd.concat([known[chosen].assign(arm=arm) for arm, chosen in arms.items()])
    rows = rows.join(medians.rename("median"), on=["strength", "layer"], how="inner")
    rows["compromised"] = rows["value"] < rows["median"]
    return rows.drop(columns="median").reset_index(drop=True)


def coverage_curve(seeds: np.ndarray, changed: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the share of neurons covered after each seed, in [0, 1]: (n,).

    Args:
        seeds: bool (n, neurons), covered by each clean image.
        changed: bool (n, neurons), covered by its changed twin.
        order: in which the seeds come.
    """
    both = (seeds | changed)[order]
    return np.logical_or.accumulate(both, axis=0).mean(axis=1)

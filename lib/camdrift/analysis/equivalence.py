"""Equivalence: two one-sided tests of a difference on its bootstrap draws."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr

from camdrift.analysis import statistics


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests of differences: arrays of one value a column, NaN where unknown.

    low, high: the interval of 1 minus twice the level, which lies within the margin where both
        tests reject.
    p: the larger of the two p-values, of "at or below the lower margin" and "at or above the
        upper".
    """

    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def equivalence(
    draws: np.ndarray, *, margin: float, confidence: float, clusters: float
) -> Equivalence:
    """Returns two one-sided tests of each difference against a margin on both sides of 0.

    Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach for
    assessing the equivalence of average bioavailability". The p-values are shares of draws beyond
    the margin, carried from the draws' spread to Student's t as `statistics.interval` carries its
    percentiles: of a normal mean they are those of the t tests. Several differences are all
    equivalent where each is at the level, without a correction (Berger 1982, "Multiparameter
    hypothesis testing and acceptance sampling").

    Args:
        draws: (resamples, columns), of the differences.
        margin: above 0.
        confidence: in (0.5, 1); the level of each test is 1 minus it.
        clusters: the number drawn in each resample; infinite for the plain percentiles.
    """
    low, high = statistics.interval(draws, confidence=2 * confidence - 1, clusters=clusters)
    # A draw that is not known speaks for no equivalence.
    beyond = [(~(draws > -margin)).sum(0), (~(draws < margin)).sum(0)]
    p = (1 + np.maximum(*beyond)) / (1 + len(draws))
    if 1 < clusters < math.inf:
        p = stdtr(clusters - 1, ndtri(p) * math.sqrt((clusters - 1) / clusters))
    return Equivalence(low, high, np.where(np.isnan(draws).all(0), np.nan, p))

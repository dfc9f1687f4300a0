"""Judgement of "the largest of several differences is below a limit", by two rules."""

from dataclasses import dataclass

import numpy as np

from camdrift.analysis import statistics
from camdrift.analysis.equivalence import Equivalence, equivalence
from camdrift.papers.findings import HOLDS, NOT, UNDECIDED


@dataclass(frozen=True)
class Differences:
    """Several differences, each with the sign that makes its value positive.

    values, low, high: (columns,), with the interval of each.
    most: the place of the largest value.
    beyond: the number of differences that are beyond the limit after Holm's correction.
    verdict: by intervals: it holds where all lie within the limit on both sides.
    tests: two one-sided tests of each.
    verdict_by_tests: it holds where all of these reject at the level.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    most: int
    beyond: int
    verdict: str
    tests: Equivalence
    verdict_by_tests: str

    @property
    def text(self) -> str:
        """The second verdict, in words."""
        return (
            f"by two one-sided tests, seen: largest p {self.tests.p.max():.2g}, would be "
            f"'{self.verdict_by_tests}'"
        )


def judge(
    values: np.ndarray, draws: np.ndarray, *, limit: float, confidence: float, clusters: float
) -> Differences:
    """Returns the judgement on "the largest of these differences is below the limit".

    The largest of several differences is biased upwards, so each has its own interval and test. By
    either rule the claim does not hold if a difference is beyond the limit after Holm's correction.

    Args:
        values: (columns,), with any sign.
        draws: (resamples, columns), bootstrap draws of them.
        limit: above 0.
        confidence: of the intervals; the level of the tests is 1 minus it.
        clusters: the number drawn in each resample, see `statistics.interval`.
    """
    signs = np.where(values < 0, -1, 1)
    values, draws = values * signs, draws * signs
    low, high = statistics.interval(draws, confidence=confidence, clusters=clusters)
    p = statistics.holm((1 + (~(draws > limit)).sum(0)) / (1 + len(draws)))
    beyond = int((p < 1 - confidence).sum())
    tests = equivalence(draws, margin=limit, confidence=confidence, clusters=clusters)
    otherwise = NOT if beyond else UNDECIDED
    within = (high < limit).all() and (low > -limit).all()
    rejected = (tests.p < 1 - confidence).all()
    return Differences(
        values, low, high, int(values.argmax()), beyond,
        HOLDS if within else otherwise, tests, HOLDS if rejected else otherwise,
    )  # fmt: skip

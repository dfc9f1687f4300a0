"""A reading: a statistic that bears on a claim, with a rule's verdict on it."""

from collections.abc import Callable
from dataclasses import dataclass

from camdrift.papers.findings import Finding, verdict_of_interval, worst
from camdrift.papers.klawikowska2020.tables import Interval

STATED, IN_8BIT = "stated", "8 bit"
NO_NUMBER = (float("nan"),) * 3
Rule = Callable[[float, float], str]  # (low, high) -> verdict


@dataclass(frozen=True)
class Reading:
    """A statistic that bears on a claim.

    claim: its id.
    name: of the reading, `STATED` for that of the claim.
    attack: of which the statistic is, 'both' if of both.
    estimate: value and interval.
    verdict: of the claim's rule on it.
    images: behind it.
    text: a few words for the claim's detail.
    """

    claim: str
    name: str
    attack: str
    estimate: Interval
    verdict: str
    images: int
    text: str = ""


def together(parts: list[Reading]) -> Finding:
    """Returns the finding on readings of both attacks: the worst, since both must bear it out."""
    estimates, verdicts = [part.estimate for part in parts], [part.verdict for part in parts]
    return worst(estimates, verdicts, "; ".join(part.text for part in parts))


def above(threshold: float) -> Rule:
    """Returns the rule that an interval lies above a threshold."""
    return lambda low, high: verdict_of_interval(low, high, above=threshold)

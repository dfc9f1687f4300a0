"""Claims of papers, findings on them, and the rules that turn a finding into a verdict."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

HOLDS, PARTLY, NOT, NO_EFFECT = "holds", "holds in part", "does not hold", "no effect"
UNDECIDED, NOT_RUN = "not decided", "not run here"
VERDICTS = (HOLDS, PARTLY, NOT, NO_EFFECT, UNDECIDED, NOT_RUN)

# Of cosine: an interval that lies wholly within it is "no effect", even if it lies above 0. A
# reader of maps could not see so small a difference, however certain it is.
MARGIN = 0.02
MARGINS = (0.01, 0.02, 0.05)  # also shown

# Of a count of images that would decide a claim: how often they do if the value is the true one.
POWER = 0.8

# Columns of a table of claims that describe a claim.
FACTS = ("id", "paper", "says", "where", "printed", "statistic", "holds_if")

# Above the claims of every report.
RULES = (
    "Statistics and thresholds were set before any result, except those of claims that are marked "
    "'seen', here or in data/results/README.md."
)


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, as `papers/*/claims.py` list them.

    Statistic and threshold were fixed before any result, unless the source says 'seen'; a change of
    one is a finding of its own and requires a reason in the commit.

    id: letter of the paper and number.
    paper: of the claim; 'f' and 'b' in an id mark a question that this study adds.
    says: the claim.
    where: section, figure or table of the paper, or 'ours'.
    printed: the number printed for it, if any.
    statistic: the measured quantity.
    holds_if: the threshold, set beforehand.
    tables: names of a study's tables that hold the numbers behind the statistic.
    figures: names of a study's figures that show them, the clearest first.
    """

    id: str
    paper: str
    says: str
    where: str
    printed: str
    statistic: str
    holds_if: str
    tables: tuple[str, ...]
    figures: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """The description of the claim in a table of claims, independent of any finding."""
        return {key: getattr(self, key) for key in FACTS}


@dataclass(frozen=True)
class Finding:
    """The finding on a claim.

    value, low, high: the statistic and its interval, NaN where there is none.
    verdict: one of `VERDICTS`.
    detail: of the finding, in a few words; a number that no map or image gives is a dash.
    images: their number, None for all images.
    """

    value: float
    low: float
    high: float
    verdict: str
    detail: str = ""
    images: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", re.sub(r"\bnan\b%?", "-", self.detail))

    def with_images_needed(self, images: int, *thresholds: float) -> "Finding":
        """Returns an undecided finding with the number of images that would decide it.

        With as many, an interval of 95 % keeps clear of the threshold with the probability `POWER`
        if the value is the true one. The interval's width is assumed to shrink with the root of
        their number. The threshold is the one closest to the value among those inside the interval.
        """
        straddled = [t for t in thresholds if self.low <= t <= self.high and self.value != t]
        if self.verdict != UNDECIDED or not straddled:
            return self
        nearest = min(abs(self.value - threshold) for threshold in straddled)
        # A width that only just reaches the threshold would keep clear of it every second time.
        half, away = (NormalDist().inv_cdf(share) for share in (0.975, POWER))
        times = ((half + away) / half * (self.high - self.low) / 2 / nearest) ** 2
        count = math.ceil(round(images * times / 10, 6)) * 10
        return replace(self, detail=f"{self.detail}; about {count} test images would decide it")


# Columns of a table of findings: one row for each protocol and claim.
FINDING_COLUMNS = ("protocol", "claim", "value", "low", "high", "verdict", "images", "detail")


# The rule of compromise that the paper states, as the details of A9 to A12 name it.
PAPERS_RULE = "rule layer_median"
# The control that the details of C3 and C5 quote.
CLASS_SWAP = "class swap"
RULE_REASON = (
    "judged by a quantile of held-out noise; the paper's rule is the median of a layer under noise"
)
CLASS_REASON = "each map explains its own top class, and no control swaps the classes"


def under_review(claim: str, detail: str) -> str:
    """Returns why a verdict is to be judged anew, or ''.

    Results of a study that was last built with an earlier rule keep its verdicts until the study is
    built again. The detail of a finding by the present rule names it.

    Args:
        claim: its id.
        detail: of the finding.
    """
    marks = dict.fromkeys(("A9", "A10", "A11", "A12"), (PAPERS_RULE, RULE_REASON))
    marks |= dict.fromkeys(("C3", "C5"), (CLASS_SWAP, CLASS_REASON))
    mark, reason = marks.get(claim, ("", ""))
    return "" if mark in detail else reason


def nothing(reason: str, verdict: str = UNDECIDED) -> Finding:
    """Returns a finding without a number."""
    return Finding(math.nan, math.nan, math.nan, verdict, reason)


def verdict_of_interval(low: float, high: float, *, above: float) -> str:
    """Returns the verdict on "the value is above `above`" from the value's interval."""
    if low > above:
        return HOLDS
    return NOT if high < above else UNDECIDED


def verdict_of_range(low: float, high: float, *, least: float, most: float) -> str:
    """Returns the verdict on "the value is within [least, most]" from the value's interval."""
    if least <= low and high <= most:
        return HOLDS
    return NOT if high < least or low > most else UNDECIDED


def verdict_of_parts(parts: list[str], *, least: int | None = None) -> str:
    """Returns the verdict on a claim about several layers or strengths.

    It holds if `least` of them (default: all) hold, and in part if at least half hold. Otherwise
    it does not hold if more than half speak against it, or has no effect if all of these are "no
    effect"; else it is not decided.
    """
    least = len(parts) if least is None else least
    holding = parts.count(HOLDS)
    against = parts.count(NOT) + parts.count(NO_EFFECT)
    if parts and holding >= least:
        return HOLDS
    if 2 * holding >= len(parts) > 0:
        return PARTLY
    if 2 * against > len(parts):
        return NO_EFFECT if parts.count(NOT) == 0 else NOT
    return UNDECIDED


def verdict_of_all(parts: list[str]) -> str:
    """Returns the verdict on a claim with several conditions: the worst of their verdicts."""
    return max(parts, key=[HOLDS, PARTLY, UNDECIDED, NO_EFFECT, NOT].index)


def worst(
    estimates: Sequence[tuple[float, float, float]], parts: list[str], detail: str
) -> Finding:
    """Returns the finding on a claim with several conditions.

    Args:
        estimates: value and interval of each.
        parts: their verdicts.
        detail: of the finding.

    Returns:
        The worst of the verdicts, with the value and the interval that decided it.
    """
    verdict = verdict_of_all(parts)
    return Finding(*estimates[parts.index(verdict)], verdict, detail)


def margin(low: float, high: float) -> float:
    """Returns the smallest of `MARGINS` within which an interval lies wholly, NaN if none."""
    fits = [size for size in MARGINS if -size <= low and high <= size]
    return min(fits) if fits else float("nan")

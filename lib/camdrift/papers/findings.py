"""What a paper claims, what was found on a claim, and the rules that make a verdict of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

HOLDS, PARTLY, NOT, NO_EFFECT = "holds", "holds in part", "does not hold", "no effect"
UNDECIDED, NOT_RUN = "not decided", "not run here"
VERDICTS = (HOLDS, PARTLY, NOT, NO_EFFECT, UNDECIDED, NOT_RUN)

# Of cosine: an interval that lies wholly within it is "no effect", even where it lies above 0: a
# difference that small, however sure, is none that a map's reader could see.
MARGIN = 0.02
MARGINS = (0.01, 0.02, 0.05)  # also shown

# Columns of a table of claims that say what a claim is.
FACTS = ("id", "paper", "says", "where", "printed", "statistic", "holds_if")


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, as `papers/*/claims.py` list them.

    Statistic and threshold were fixed before any result; a change of one is a finding of its own
    and wants its reason in the commit.

    id: letter of the paper and number.
    paper: whose claim; 'f' and 'b' in an id mark a question of ours beside it.
    says: the claim.
    where: section, figure or table of the paper, or 'ours'.
    printed: the number printed for it, if any.
    statistic: what is measured.
    holds_if: the threshold, set beforehand.
    tables: names of a study's tables that hold the numbers which the statistic is made of.
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
        """What a table of claims says of it, whatever was found."""
        return {key: getattr(self, key) for key in FACTS}


@dataclass(frozen=True)
class Finding:
    """What was found on a claim.

    value, low, high: the statistic and its interval, NaN where there is none.
    verdict: one of `VERDICTS`.
    detail: what stands behind it, in a few words.
    images: behind it, None where all are.
    """

    value: float
    low: float
    high: float
    verdict: str
    detail: str = ""
    images: int | None = None

    def with_images_needed(self, images: int, *thresholds: float) -> "Finding":
        """Returns an undecided finding with the number of images that would decide it.

        The interval's width is taken to shrink with the root of their number, and the threshold is
        the one next to the value of those that the interval holds.
        """
        straddled = [t for t in thresholds if self.low <= t <= self.high and self.value != t]
        if self.verdict != UNDECIDED or not straddled:
            return self
        nearest = min(abs(self.value - threshold) for threshold in straddled)
        times = ((self.high - self.low) / 2 / nearest) ** 2
        count = math.ceil(round(images * times / 10, 6)) * 10
        return replace(self, detail=f"{self.detail}; about {count} test images would decide it")


# Columns of what protocols say of claims, a row each.
FINDING_COLUMNS = ("protocol", "claim", "value", "low", "high", "verdict", "images", "detail")


# Claims that a verdict is written of and that are to be judged anew, each with the reason.
RULE_REASON = (
    "judged by a quantile of held-out noise; the paper's rule is the median of a layer under noise"
)
CLASS_REASON = "each map explains its own top class, and no control has the classes swapped"
UNDER_REVIEW = dict.fromkeys(("A9", "A10", "A11", "A12"), RULE_REASON) | dict.fromkeys(
    ("C3", "C5"), CLASS_REASON
)


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
    """Returns the verdict on a claim that speaks of several layers or strengths.

    It holds where `least` of them (all, unless said) do, and in part where at least half do.
    Otherwise it does not hold where more than half speak against it, or has no effect where all
    of these are "no effect"; else it is not decided.
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
    """Returns the verdict on a claim that asks for several things at once: the worst of theirs."""
    return max(parts, key=[HOLDS, PARTLY, UNDECIDED, NO_EFFECT, NOT].index)


def worst(
    estimates: Sequence[tuple[float, float, float]], parts: list[str], detail: str
) -> Finding:
    """Returns the finding on a claim that asks for several things at once.

    Args:
        estimates: value and interval of each.
        parts: their verdicts.
        detail: what stands behind them.

    Returns:
        The worst of the verdicts, with the value and the interval that decided it.
    """
    verdict = verdict_of_all(parts)
    return Finding(*estimates[parts.index(verdict)], verdict, detail)


def margin(low: float, high: float) -> float:
    """Returns the smallest of `MARGINS` within which an interval lies wholly, NaN if none."""
    fits = [size for size in MARGINS if -size <= low and high <= size]
    return min(fits) if fits else float("nan")

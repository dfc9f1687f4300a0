"""The claims of one study as a family: their verdicts after Holm's correction over all of them."""

from collections.abc import Callable, Mapping

from camdrift.papers.findings import HOLDS, NOT_RUN, PARTLY, UNDECIDED

OPEN = (UNDECIDED, NOT_RUN)


def after_holm(
    verdicts: Callable[[float], Mapping[str, str]], *, confidence: float
) -> dict[str, str]:
    """Returns the verdicts on a study's claims after Holm's correction (Holm 1979).

    The family are the claims that are decided without a correction, m of them, each at the level
    1 - confidence. A verdict has no p-value of its own, so tests are inverted: its p-value is below
    a level if the verdict still stands with intervals of that level. The claim whose verdict stands
    longest must stand at the level over m, the next at the level over m - 1, and so on; from the
    first that does not, all get what is left of their verdict at that level. A correction makes no
    verdict stronger: wider intervals may lie no longer within a margin, which is not support.

    Args:
        verdicts: confidence -> verdict by claim.
        confidence: of the intervals without a correction.
    """
    known: dict[int, Mapping[str, str]] = {1: verdicts(confidence)}

    def at(divisor: int) -> Mapping[str, str]:
        if divisor not in known:
            known[divisor] = verdicts(1 - (1 - confidence) / divisor)
        return known[divisor]

    first = known[1]
    family = [claim for claim, verdict in first.items() if verdict not in OPEN]

    def stands(claim: str) -> int:
        """Returns the largest divisor, up to the family's size, at which a verdict stands."""
        low, high = 1, len(family)
        while low < high:
            middle = (low + high + 1) // 2
            stays = _left(first[claim], at(middle)[claim]) == first[claim]
            low, high = (middle, high) if stays else (low, middle - 1)
        return low

    divisors = {claim: stands(claim) for claim in family}
    rest = sorted(family, key=lambda claim: -divisors[claim])
    corrected = dict(first)
    while rest and divisors[rest[0]] >= len(rest):
        del rest[0]
    return corrected | {claim: _left(first[claim], at(len(rest))[claim]) for claim in rest}


def _left(first: str, now: str) -> str:
    """Returns what is left of a verdict that is `now` with wider intervals."""
    if now == first or (first, now) == (PARTLY, HOLDS):
        return first
    return PARTLY if (first, now) == (HOLDS, PARTLY) else UNDECIDED

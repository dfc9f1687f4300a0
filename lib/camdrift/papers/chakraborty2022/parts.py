"""Parts of a claim: the things that it asks for, each with a verdict of its own."""

from dataclasses import dataclass

from camdrift.papers.findings import HOLDS, Finding, verdict_of_interval

NO_MAPS = "a network has no map to compare at some eps"


@dataclass(frozen=True)
class Part:
    """One of several things that a claim asks for.

    name: of what.
    value, low, high: what was measured, with its interval.
    above: what it is to be above.
    """

    name: str
    value: float
    low: float
    high: float
    above: float

    @property
    def verdict(self) -> str:
        """The verdict on this part alone."""
        return verdict_of_interval(self.low, self.high, above=self.above)


def finding_of_parts(parts: list[Part], verdict: str, detail: str, images: int) -> Finding:
    """Returns the finding on several parts: the value is that of the part that decides.

    Of those with the verdict of the whole, or else of those that do not hold, the one that is
    lowest against what it is to be above. Where it is not decided, the detail says which part that
    is and how many images would decide it.
    """
    deciding = [part for part in parts if part.verdict == verdict]
    deciding = deciding or [part for part in parts if part.verdict != HOLDS]
    part = min(deciding, key=lambda part: part.value - part.above)
    if len(parts) > 1:
        detail = f"{detail}; the value is that of {part.name}"
    finding = Finding(part.value, part.low, part.high, verdict, detail)
    return finding.with_images_needed(images, part.above)

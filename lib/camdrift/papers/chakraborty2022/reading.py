"""A reading: the maps on which a claim is judged."""

from dataclasses import dataclass

from camdrift.storage import GIVEN, OWN, POLICIES

CLASSES = {GIVEN: "class that the set gives", OWN: "own top class"}


@dataclass(frozen=True)
class Reading:
    """The maps that a claim is judged on.

    explains: the class that they explain.
    blank: whether an empty map is compared as it is, and not left out.
    relative: whether shifts are divided by MOD of unrelated pairs, network by network.
    least: of groups of images, those that hold fewer are left out.
    """

    explains: str
    blank: bool = False
    relative: bool = False
    least: int = 1

    @property
    def name(self) -> str:
        """The reading in words."""
        words = [f"maps of the {CLASSES[self.explains]}"]
        words += ["empty maps taken as blank"] * self.blank
        words += ["relative to unrelated pairs"] * self.relative
        words += [f"groups of {self.least} images at least"] * (self.least > 1)
        return ", ".join(words)


def map_readings(claim: str, explains: str, *, least: int) -> list[Reading]:
    """Returns the readings of a claim on maps, the one that decides first.

    Args:
        claim: its id.
        explains: the class that decides.
        least: of a group of images that is compared, in a further reading.
    """
    (other,) = (policy for policy in POLICIES if policy != explains)
    every = [Reading(explains), Reading(explains, blank=True), Reading(other)]
    if claim in ("D3", "D4"):  # compare MOD of networks whose last maps differ in size
        every += [Reading(policy, relative=True) for policy in (explains, other)]
    if claim == "D6":
        every += [Reading(policy, least=least) for policy in (explains, other)]
    return every

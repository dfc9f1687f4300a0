"""Scores of drift, one file a score: (clean maps, changed maps) -> numbers.

A score's file has `LABEL`, what people call it; `RANGE`, its least and largest value;
`HIGHER_IS_ALIKE`, whether it is higher for maps that are more alike; and `score(first, second, *,
size)`: stacks of maps (n, h, w) at their own size, each divided by its own maximum, an empty map
all zeros, and the side of the images in px -> float (n,), NaN where it is not defined. Every file
in this folder that has such a function can be named in params.yaml, by the file's name; a file
without it is of something else than pairs of maps, or what scores share.

`of_places(stack, first, second, *, size)` may stand beside it, where much of the work is on single
maps: the same for pairs of places in a stack.
"""

from collections.abc import Sequence
from types import ModuleType

from camdrift.pipeline import discovery


def by_name() -> dict[str, ModuleType]:
    """Returns the files of the scores of pairs of maps, by name."""
    return discovery.members(__name__, "score")


def check(names: Sequence[str]) -> list[str]:
    """Returns a line for each name that is no score's: what was wanted, what came."""
    there = ", ".join(by_name())
    return [
        f"wanted a score, got '{name}'; there are: {there}"
        for name in names
        if name not in by_name()
    ]

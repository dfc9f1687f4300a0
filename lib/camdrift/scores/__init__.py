"""Scores of drift, one file for each score: (clean maps, changed maps) -> numbers.

The file of a score defines `LABEL`, its name in figures; `RANGE`, its smallest and largest value;
`HIGHER_IS_ALIKE`, whether it is higher for maps that are more alike; and `score(first, second, *,
size)`. The function takes two stacks of maps (n, h, w) at their own size, each map divided by its
own maximum, an empty map all zeros, and the side of the images in px or, where they are not square,
`[height, width]`. It returns float (n,), NaN where the score is not defined. params.yaml can name
every such file. A file without the function measures something other than pairs of maps, or holds
code that the scores share.

A score whose work is mostly on single maps may also define `score_places(stack, first, second, *,
size)`: the same for pairs of places in one stack.
"""

from collections.abc import Sequence
from types import ModuleType

from camdrift.pipeline import discovery


def by_name() -> dict[str, ModuleType]:
    """Returns the modules of the scores of pairs of maps, by name."""
    return discovery.members(__name__, "score")


def check(names: Sequence[str]) -> list[str]:
    """Returns an error message for each name that is not a score."""
    there = ", ".join(by_name())
    return [
        f"wanted a score, got '{name}'; there are: {there}"
        for name in names
        if name not in by_name()
    ]

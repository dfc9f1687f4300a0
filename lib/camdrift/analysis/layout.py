"""Layout of figures with many layers: names below the axis, and room for them and a legend."""

import math
from collections.abc import Sequence
from typing import Any

ROOM = 100  # letters in a row below an axis
WIDE, HIGH = 8.4, 4.6  # inches
SIDES = 1.1  # inches to the left and right of the axes
LETTER = 0.62  # the width of a letter over its size
TURNED = 7  # points, the size of names that are turned


def fits(names: Sequence[str]) -> bool:
    """Returns whether names have room side by side below an axis."""
    return sum(len(name) + 2 for name in names) <= ROOM


def reach(letters: int) -> float:
    """Returns how far a turned name of so many letters reaches down at most, in inches."""
    return letters * LETTER * TURNED / 72


def inches(names: Sequence[str]) -> tuple[float, float]:
    """Returns width and height of a figure in inches, for the names below its axis, if any.

    Wide enough for all of them, upright, and higher where they are long.
    """
    if fits(names):
        return WIDE, HIGH
    wide = max(WIDE, SIDES + len(names) * 1.35 * TURNED / 72)
    return wide, HIGH + max(0.0, reach(max(map(len, names))) - 0.6)


def turn(labels: Sequence[Any], spacing: float) -> None:
    """Turns matplotlib's labels below an axis, by as little as keeps them apart.

    At 45 degrees lines of text are apart by their spacing, in points, over the root of 2.
    """
    style: dict[str, Any] = {"rotation": 90, "ha": "center"}
    if spacing >= 1.25 * TURNED * 2**0.5:
        style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    for label in labels:
        label.set(fontsize=TURNED, **style)


def turn_crowded(axes: Any, wide: float) -> None:
    """Turns the names below the axis of a figure, `wide` inches, that have no room."""
    labels = axes.get_xticklabels()
    if not fits([label.get_text() for label in labels]):
        turn(labels, (wide - SIDES) * 72 / len(labels))


def legend_rows(names: Sequence[str]) -> int:
    """Returns the number of rows of a legend of these names above a chart as wide as a page."""
    return math.ceil(sum(7 * len(name) + 50 for name in names) / 800)

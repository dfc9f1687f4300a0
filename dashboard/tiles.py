"""Pictures and maps as tiles for the screen, uint8 (h, w, 3), in an image's proportions."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from camdrift.analysis import drawing

SIDE = 192  # px of the longer side


def enlarged(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Returns a picture (h, w, 3), or a grey one (h, w, 1), enlarged by nearest pixels.

    Its values are in [0, 1], or uint8; the longer side has at least `side` px.
    """
    levels = picture if picture.dtype == np.uint8 else (255 * picture).round().astype(np.uint8)
    return drawing.in_colours(drawing.nearest(levels, _tile(levels.shape, side)))


def _tile(shape: Sequence[int], side: int = SIDE) -> tuple[int, int]:
    """Returns height and width of a tile in the proportions of a picture's shape (h, w, ...)."""
    longer = max(shape[:2])
    height, width = (max(1, round(each * max(side, longer) / longer)) for each in shape[:2])
    return height, width


def change(clean: np.ndarray, changed: np.ndarray, times: float) -> np.ndarray:
    """Returns the change of an image, enlarged by a factor, around grey."""
    return enlarged((0.5 + times * (changed - clean)).clip(0, 1))


def heat(layer: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns a map in [0, 1], dark to bright, in the proportions of an image of that shape."""
    return drawing.coloured(layer, _tile(shape))


def overlay(picture: np.ndarray, layer: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Returns a map over its picture, which shows through unless the opacity is 1."""
    below = enlarged(picture)
    above = drawing.coloured(layer, below.shape[:2])
    return ((1 - opacity) * below + opacity * above).round().astype(np.uint8)


def difference(layer: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns the difference of two maps: orange where positive, purple where negative."""
    colours = mpl.colormaps["PuOr_r"](0.5 + 0.5 * (layer - other).clip(-1, 1))[..., :3]
    return (255 * drawing.nearest(colours, _tile(shape))).round().astype(np.uint8)

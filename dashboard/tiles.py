"""Pictures and maps as tiles for the screen, uint8 (side, side, 3)."""

import matplotlib as mpl
import numpy as np

from camdrift.analysis import drawing

SIDE = 192  # px


def enlarged(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Returns a picture (h, w, 3), in [0, 1] or uint8, of at least a side in px, nearest pixels."""
    side = max(side, *picture.shape[:2])
    levels = picture if picture.dtype == np.uint8 else (255 * picture).round().astype(np.uint8)
    rows, columns = (np.arange(side) * size // size_of for size, size_of in
                     zip(levels.shape[:2], (side, side), strict=True))  # fmt: skip
    return levels[rows][:, columns]


def change(clean: np.ndarray, changed: np.ndarray, times: float) -> np.ndarray:
    """Returns the change of an image, enlarged by a factor, around grey."""
    return enlarged((0.5 + times * (changed - clean)).clip(0, 1))


def heat(layer: np.ndarray) -> np.ndarray:
    """Returns a map in [0, 1], dark to bright."""
    return drawing.coloured(layer, SIDE)


def overlay(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Returns a map half transparent over its picture."""
    below = enlarged(picture)
    return (0.45 * below + 0.55 * drawing.coloured(layer, len(below))).round().astype(np.uint8)


def difference(layer: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the difference of two maps: orange where positive, purple where negative."""
    colours = mpl.colormaps["PuOr_r"](0.5 + 0.5 * (layer - other).clip(-1, 1))[..., :3]
    return enlarged(colours)

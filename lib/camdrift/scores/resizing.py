"""Resizing of maps and pictures as matrices, each side on its own."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from camdrift.settings.section import sides
from camdrift.storage.arrays import Heatmaps


def upsampling(small: int, large: int) -> np.ndarray:
    """Returns the matrix (large, small) of bilinear resizing, half-pixel centres, edges repeated.

    The same as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
    """
    centres = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    left = np.floor(centres).astype(int)
    right = np.minimum(left + 1, small - 1)
    share = centres - left
    matrix = np.zeros((large, small))
    np.add.at(matrix, (np.arange(large), left), 1 - share)
    np.add.at(matrix, (np.arange(large), right), share)
    return matrix


def enlarged(maps: Heatmaps, *, size: int | Sequence[int]) -> np.ndarray:
    """Returns maps at `size` px, a side, or height and width, bilinear: (n, height, width)."""
    rows, columns = (upsampling(*pair) for pair in zip(maps.shape[1:], sides(size), strict=True))
    return rows @ maps.astype(np.float64) @ columns.T


@cache
def bicubic(small: int, large: int) -> np.ndarray:
    """Returns the matrix (large, small) of Pillow's bicubic enlarging: a = -0.5, edges cut off."""
    matrix = np.zeros((large, small))
    for row in range(large):
        centre = (row + 0.5) * small / large
        taps = np.arange(max(0, int(centre - 1.5)), min(small, int(centre + 2.5)))
        x = np.abs(taps - centre + 0.5)
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
        matrix[row, taps] = weights / weights.sum()
    return matrix.astype(np.float32)

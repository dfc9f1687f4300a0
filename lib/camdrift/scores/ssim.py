"""Structural similarity of maps at their own size.

Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
"""

from collections.abc import Sequence

import numpy as np

from camdrift.storage.arrays import Heatmaps, PerImage

LABEL = "structural similarity"
RANGE = (-1.0, 1.0)
HIGHER_IS_ALIKE = True
K1, K2 = 0.01, 0.03


def score(first: Heatmaps, second: Heatmaps, *, size: int | Sequence[int]) -> PerImage:
    """Returns the mean structural similarity of maps, NaN where one is empty."""
    empty = (first.max(axis=(1, 2)) == 0) | (second.max(axis=(1, 2)) == 0)
    return np.where(empty, np.nan, structural_similarity(first, second))


def window(side: int) -> int | None:
    """Returns the window for maps of that side: the largest odd size <= min(7, side), from 3."""
    window = min(7, side)
    window -= 1 - window % 2
    return window if window >= 3 else None


def structural_similarity(first: Heatmaps, second: Heatmaps) -> PerImage:
    """Returns the mean structural similarity of maps at their own size, in [-1, 1].

    Equation 13: uniform window, sample covariance, data range 1, K1 = 0.01 and
    K2 = 0.03, borders left out, as `skimage.metrics.structural_similarity` computes it pair by
    pair. NaN where the maps are too small for a window.
    """
    width = window(min(first.shape[1:]))
    if width is None:
        return np.full(len(first), np.nan)
    # Means over all windows that lie inside the map, as matrix products: (side - width + 1, side).
    rows, columns = (
        np.sum([np.eye(side - width + 1, side, k) for k in range(width)], axis=0) / width
        for side in first.shape[1:]
    )

    def mean(values: np.ndarray) -> np.ndarray:
        return rows @ values @ columns.T

    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = mean(a), mean(b)
    sample = width**2 / (width**2 - 1)
    var_a = sample * (mean(a * a) - mean_a**2)
    var_b = sample * (mean(b * b) - mean_b**2)
    covariance = sample * (mean(a * b) - mean_a * mean_b)
    c1, c2 = K1**2, K2**2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return value.mean(axis=(1, 2))

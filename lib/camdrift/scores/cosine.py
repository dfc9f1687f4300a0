"""Cosine similarity of maps resized to the images' size.

Renkhoff et al. 2022, "Exploring Adversarial Attacks on Neural Networks: An Explainable Approach",
equation 6, on raw maps.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from camdrift.scores.resizing import upsampling
from camdrift.settings.section import sides
from camdrift.storage.arrays import Heatmaps, PerImage

LABEL = "cosine similarity"
RANGE = (0.0, 1.0)
HIGHER_IS_ALIKE = True
BANDED = 96  # the side in px from which two diagonals are faster than a matrix product


def score(first: Heatmaps, second: Heatmaps, *, size: int | Sequence[int]) -> PerImage:
    """Returns the cosine of maps resized to `size` px, in [0, 1]; NaN where a map is empty.

    `size` is a side, or height and width.

    Exact without upsampling: with U the resizing matrix and U'U = F'F, the inner product of two
    resized maps is that of F a F' and F b F', which are no larger than the maps. The
    precision is that of the maps, 2e-7 for float32.
    """
    a, b = first, second
    shape = sides(size)
    if a.shape[1:] != shape:
        a, b = _weighed(a, shape), _weighed(b, shape)
    return np.minimum(_angle(_inner(a, b), _inner(a, a), _inner(b, b)), 1)


@cache
def _factor(side: int, size: int) -> np.ndarray:
    """Returns F with F'F = U'U for the resizing matrix U, no larger than the map.

    Where the map is enlarged, F has two diagonals: a row of U has two entries, side by side.
    """
    resize = upsampling(side, size)
    return resize if side >= size else np.linalg.cholesky(resize.T @ resize).T


def _weighed(maps: Heatmaps, size: tuple[int, int]) -> np.ndarray:
    """Returns F a G' of maps a, F for their rows and G for their columns, in their precision."""
    pairs = list(zip(maps.shape[1:], size, strict=True))
    rows, columns = (_factor(*pair).astype(maps.dtype) for pair in pairs)
    if not all(BANDED <= small < large for small, large in pairs):
        return rows @ maps @ columns.T
    wide = maps * columns.diagonal()
    wide[:, :, :-1] += maps[:, :, 1:] * columns.diagonal(1)
    tall = wide * rows.diagonal()[:, None]
    wide[:, 1:] *= rows.diagonal(1)[:, None]
    tall[:, :-1] += wide[:, 1:]
    return tall


def _inner(first: Heatmaps, second: Heatmaps) -> PerImage:
    """Returns inner products of pairs of maps, in float64."""
    n = len(first)
    products = first.reshape(n, 1, -1) @ second.reshape(n, -1, 1)
    return products.reshape(n).astype(np.float64)


def _angle(inner: PerImage, first: PerImage, second: PerImage) -> PerImage:
    """Returns inner products over the roots of squared norms, NaN where a norm is 0."""
    norms = np.sqrt(first * second)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, inner / norms, np.nan)

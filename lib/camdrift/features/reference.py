"""Reference: the training images that some detectors compare an image with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from camdrift.storage.arrays import PerImage


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """Returns the squared distances (n, m) of points (n, k) from others (m, k), with a gradient.

    Both are centred first: differences of products would cancel, and (n, m, k) differences take
    gigabytes.
    """
    centre = others.mean(0)
    a, b = points - centre, others - centre
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    return squares.clamp_min(0)


class Reference:
    """Pooled activations of training images, see `features.pooled`, and their classes.

    Attributes:
        layers: (n, channels) of each layer, in forward order, float64.
        labels: int64 (n,).
    """

    def __init__(self, layers: Sequence[np.ndarray], labels: PerImage) -> None:
        self.layers = [layer.astype(np.float64) for layer in layers]
        self.labels = np.array(labels)  # torch takes no arrays that are not writable
        self._cache: dict[tuple[Any, ...], Any] = {}

    def once(self, fit: Callable[..., Any], *settings: Any) -> Any:
        """Returns `fit(reference, *settings)`, which is computed once for all images."""
        if (fit, *settings) not in self._cache:
            self._cache[fit, *settings] = fit(self, *settings)
        return self._cache[fit, *settings]

"""Reference: the training images that some detectors compare an image with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from camdrift.storage.arrays import PerImage


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

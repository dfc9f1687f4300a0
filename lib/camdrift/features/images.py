"""Images as detectors see them: a micro-batch without the clean images, and its logits."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from camdrift.features.reference import Reference
from camdrift.models.model import Model
from camdrift.models.tensors import Logits, PerImage, Pixels

# A micro-batch -> its logits and the scores that an adaptive attack lowers; both have
# gradients with respect to the pixels.
Objective = Callable[[Pixels], tuple[Logits, PerImage]]
Columns = dict[str, np.ndarray]  # arrays (n,) by name


class Images:
    """A micro-batch of images under a model.

    Attributes:
        model: the model under attack.
        pixels: in [0, 1].
        generators: one for each image, for the detectors' random numbers.
    """

    def __init__(
        self,
        model: Model,
        pixels: Pixels,
        generators: Sequence[np.random.Generator],
        reference: Reference | None = None,
    ) -> None:
        self.model, self.pixels, self.generators = model, pixels, generators
        self._reference = reference
        self._cache: dict[Callable, Any] = {}

    @property
    def reference(self) -> Reference:
        """The training images with which some detectors compare an image."""
        assert self._reference is not None, "no training images were measured for these images"
        return self._reference

    @property
    def logits(self) -> Logits:
        """The model's logits, without a graph."""
        return self.once(_logits)

    def once(self, measure: Callable[[Model, Pixels], Any]) -> Any:
        """Returns the result of a function, which is computed once for all detectors."""
        if measure not in self._cache:
            self._cache[measure] = measure(self.model, self.pixels)
        return self._cache[measure]

    def with_generators(self, generators: Sequence[np.random.Generator]) -> "Images":
        """Returns the same images and cached results with other generators."""
        other = Images(self.model, self.pixels, generators, self._reference)
        other._cache = self._cache
        return other


def _logits(model: Model, pixels: Pixels) -> Logits:
    with torch.no_grad():
        return model(pixels)

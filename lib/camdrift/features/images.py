"""Images as detectors see them: a micro-batch without the clean twins, and what the model says."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camdrift.models.model import Model

# A micro-batch -> its logits and what the attack lowers, (n,), differentiable by the pixels.
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
Columns = dict[str, np.ndarray]  # arrays (n,) by name


class Images:
    """A micro-batch of images under a model.

    Attributes:
        model: the model under attack.
        pixels: (n, 3, h, w), in [0, 1].
        generators: one an image, for what a detector draws.
    """

    def __init__(
        self, model: Model, pixels: Tensor, generators: Sequence[np.random.Generator]
    ) -> None:
        self.model, self.pixels, self.generators = model, pixels, generators
        self._cache: dict[Callable, Any] = {}

    @property
    def logits(self) -> Tensor:
        """The model's logits (n, classes), without a graph."""
        return self.once(_logits)

    def once(self, measure: Callable[[Model, Tensor], Any]) -> Any:
        """Returns what a function measures, which is called once however many detectors ask."""
        if measure not in self._cache:
            self._cache[measure] = measure(self.model, self.pixels)
        return self._cache[measure]

    def with_generators(self, generators: Sequence[np.random.Generator]) -> "Images":
        """Returns the same images, with what is known of them, and other generators."""
        other = Images(self.model, self.pixels, generators)
        other._cache = self._cache
        return other


def _logits(model: Model, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return model(pixels)

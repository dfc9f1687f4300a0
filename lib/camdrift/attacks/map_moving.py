"""Map-moving: moves the maps of an image as far as it can, and keeps its class.

After Ghorbani et al. 2019, "Interpretation of Neural Networks is Fragile", section 3, and
Dombrowski et al. 2019, "Explanations can be manipulated and geometry is to blame", section 2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camdrift.explain import manipulation
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Share


class Settings(manipulation.Settings):
    """Settings of map-moving."""

    tolerance: Share


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    limits: Limits | None = None,
    tolerance: float,
    **settings: Any,
) -> Perturbation:
    """Returns the perturbations of the largest drift among those that keep the class.

    They keep the top class, which the maps explain, and its probability within `tolerance`, on the
    clipped image and on its 8-bit version. A step raises the drift while the smoothed network keeps
    both, and else leads the probability back. The walk begins at a uniform draw, since maps that
    have not moved have no direction to move in. An image of which no step counts stays as it is.

    Args:
        model: under attack.
        pixels: in [0, 1].
        labels: not used: the class that is kept is the model's own.
        generators: one for each image.
        limits: of each image; None: `eps`, of pixel values.
        tolerance: of the probability of the top class.
        settings: see `manipulation.attacked`.

    Departs: Dombrowski et al. add the distances of maps and of outputs, with a weight; a step here
    follows one of them, so that there is no weight to set.
    """

    def attack(walks: manipulation.Walks) -> tuple[Pixels, PerImage]:
        before, classes = walks.outputs.softmax(1).max(1)

        def kept(logits: Logits, rows: Tensor) -> Mask:
            now = _probability(logits, classes[rows])
            return (logits.argmax(1) == classes[rows]) & ((now - before[rows]).abs() <= tolerance)

        def objective(logits: Logits, drift: PerImage) -> PerImage:
            strays = _probability(logits, classes) - before
            keeps = kept(logits.detach(), torch.ones_like(classes, dtype=torch.bool))
            return torch.where(keeps, drift, -strays.square())

        watch = walks.watch(follows=False)
        change, drift, passes = walks.walk(watch, objective, kept, sign=1, start=walks.draw)
        return torch.where(drift.isnan().view(-1, 1, 1, 1), 0.0, change), passes

    return manipulation.attacked(attack, model, pixels, labels, generators, limits, **settings)


def _probability(logits: Logits, classes: Labels) -> PerImage:
    return logits.softmax(1).gather(1, classes[:, None])[:, 0]

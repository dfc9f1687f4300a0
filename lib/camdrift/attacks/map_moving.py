"""Map-moving: moves the maps of an image as far as it can, and keeps its class.

After Ghorbani et al. 2019, "Interpretation of Neural Networks is Fragile", section 3, and
Dombrowski et al. 2019, "Explanations can be manipulated and geometry is to blame", section 2.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from camdrift.explain import manipulation
from camdrift.models.logits import probabilities
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Share


class Settings(manipulation.Settings):
    """Settings of map-moving."""

    tolerance: Share
    towards: Literal["another"] | None


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    limits: Limits | None = None,
    others: Pixels | None = None,
    tolerance: float,
    towards: str | None,
    eps: float,
    step: float,
    steps: int,
    beta: Sequence[float],
    layers: Sequence[int | str] | None,
) -> Perturbation:
    """Returns the perturbations of the largest drift among those that keep the class.

    They keep the top class, which the maps explain, and its probability within `tolerance`, on the
    clipped image and on its 8-bit version. A step raises the drift while they do, and else leads
    the probability back. The walk begins at a small uniform draw, since maps that have not moved
    have no direction to move in. An image of which no step counts stays as it is.

    Args:
        model: under attack.
        pixels: in [0, 1].
        labels: not used: the class that is kept is the model's own.
        generators: one for each image.
        limits: of each image; None: `eps`, of pixel values.
        others: another image for each.
        tolerance: of the probability of the top class.
        towards: 'another': the maps of `others`, of their top classes, to which the maps then come
            as near as they can; None: nowhere, they move away.
        eps: largest change of a pixel value, in [0, 1].
        step: size of a step, as a share of the limits.
        steps: their number.
        beta: of softplus, at the first and the last step.
        layers: whose maps are watched, see `manipulation.places_of`; None: all.

    Departs: Dombrowski et al. add the distances of maps and of outputs, with a weight; a step here
    follows one of them, so that there is no weight to set.
    """
    sign, targets = (1, repeat(None)) if towards is None else (-1, _batches(model, others))

    def attack(walks: manipulation.Walks) -> tuple[Pixels, PerImage]:
        before, classes = probabilities(walks.outputs).max(1)

        def kept(logits: Logits, rows: Tensor) -> Mask:
            now = _probability(logits, classes[rows])
            return (logits.argmax(1) == classes[rows]) & ((now - before[rows]).abs() <= tolerance)

        def objective(logits: Logits, drift: PerImage, own: Logits, counts: Mask) -> PerImage:
            strays = _probability(own, classes) - before
            strays = torch.where(own.argmax(1) == classes, strays, -1.0)
            return torch.where(counts, sign * drift, -strays * _probability(logits, classes))

        watch = walks.watch(emptied=1.0 if sign == 1 else 0.0, targets=next(targets))
        start = walks.step * walks.limits.project(walks.clean, walks.draw)
        change, drift, passes = walks.walk(watch, objective, kept, sign=sign, start=start)
        return torch.where(drift.isnan().view(-1, 1, 1, 1), 0.0, change), passes

    return manipulation.attacked(
        attack, model, pixels, labels, generators, limits, eps=eps, layers=layers, step=step,
        steps=steps, beta=beta,
    )  # fmt: skip


def _batches(model: Model, others: Pixels | None) -> Iterator[Pixels]:
    if others is None:
        raise ValueError("wanted `others`, the images whose maps are led to, got None")
    return (batch for batch, _ in model.batches(others))


def _probability(logits: Logits, classes: Labels) -> PerImage:
    return probabilities(logits).gather(1, classes[:, None])[:, 0]

"""Map-keeping: changes the class of an image, and keeps its maps.

After ADV2: Zhang et al. 2020, "Interpretable Deep Learning under Fire", section 3.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from camdrift.explain import manipulation
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Count

WEIGHTS = 1e-2, 1e2  # of the drift: from next to nothing to all that counts


class Settings(manipulation.Settings):
    """Settings of map-keeping."""

    bisections: Count
    explains: Literal["seed_class", "own_top1"]


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    limits: Limits | None = None,
    bisections: int,
    explains: str,
    eps: float,
    step: float,
    steps: int,
    beta: Sequence[float],
    layers: Sequence[int | str] | None,
) -> Perturbation:
    """Returns the perturbations of the least drift among those that change the class.

    The prediction is not the label, on the clipped image and on its 8-bit version. Each of
    `bisections` walks begins at the image and lowers the margin of the label's logit over the
    largest other one, until the class is another (Carlini and Wagner 2017, "Towards Evaluating the
    Robustness of Neural Networks", objective f6, here untargeted), and a weight times the drift.
    The next walk's weight is larger where this one changed the class, and else smaller: half way
    to the last one that was too large or too small, on a logarithmic scale. An image whose class no
    walk changes has the last walk's last step.

    Args:
        model: under attack.
        pixels: in [0, 1].
        labels: the classes that the attack leads away from.
        generators: one for each image, not used.
        limits: of each image; None: `eps`, of pixel values.
        bisections: number of walks.
        explains: what later maps explain: 'own_top1', the class that is led to, as in the paper; or
            'seed_class', the top class of the clean image.
        eps: largest change of a pixel value, in [0, 1].
        step: size of a step, as a share of the limits.
        steps: their number.
        beta: of softplus, at the first and the last step.
        layers: whose maps are watched, see `manipulation.places_of`; None: all.

    Departs: the paper leads to a class of the attacker's choice by the cross-entropy, here to the
    likeliest other one; its distance of maps is the squared one, here that of the drift; and it
    smooths ReLU by a root, here by softplus.
    """

    def attack(walks: manipulation.Walks) -> tuple[Pixels, PerImage]:
        def flipped(logits: Logits, rows: Tensor) -> Mask:
            return logits.argmax(1) != walks.labels[rows]

        watch = walks.watch(emptied=0.0, follows=explains == "own_top1")
        low, high = (torch.full((len(walks.clean),), weight).log() for weight in WEIGHTS)
        best, least = torch.zeros_like(walks.clean), torch.full_like(low, torch.inf)
        passes = torch.zeros_like(walks.labels)
        for _ in range(bisections):
            middle = (low + high) / 2
            objective = partial(_objective, walks.labels, middle.exp())
            change, drift, own = walks.walk(
                watch, objective, flipped, sign=-1, start=torch.zeros_like(walks.clean)
            )
            passes += own
            flips = drift.isfinite()
            better = (drift < least) | (least.isinf() & ~flips)
            best = torch.where(better.view(-1, 1, 1, 1), change, best)
            least = torch.where(flips & better, drift, least)
            low, high = torch.where(flips, middle, low), torch.where(flips, high, middle)
        return best, passes

    return manipulation.attacked(
        attack, model, pixels, labels, generators, limits, eps=eps, layers=layers, step=step,
        steps=steps, beta=beta,
    )  # fmt: skip


def _objective(
    labels: Labels, weights: PerImage, logits: Logits, drift: PerImage, own: Logits, counts: Mask
) -> PerImage:
    """Returns minus the margin, until an image counts, and minus the weighted drift."""
    mine = logits.gather(1, labels[:, None])[:, 0]
    margin = mine - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return -torch.where(counts, 0.0, margin) - weights * drift

"""Projected gradient descent in L-infinity.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from camdrift.models import gradients
from camdrift.models.model import Model
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Count, Section, Share


class Settings(Section):
    """Settings of projected gradient descent."""

    eps: Share
    step: Share
    steps: Count
    random_start: bool
    early_stop: bool


def perturb(
    model: Model,
    pixels: Tensor,
    labels: Tensor,
    *,
    generators: Sequence[np.random.Generator],
    eps: float,
    step: float,
    steps: int,
    random_start: bool,
    early_stop: bool,
) -> Perturbation:
    """Returns the last of `steps` signed gradient steps, each projected to |perturbation| <= eps.

    With `early_stop` an image is left alone once its prediction is not its label. `eps` and `step`
    are in pixel values. `random_start` draws the first perturbation uniformly from the eps box.
    """
    change = torch.zeros_like(pixels)
    if random_start:
        for row, generator in zip(change, generators, strict=True):
            row.copy_(torch.from_numpy(generator.uniform(-eps, eps, tuple(row.shape))))
    evaluations = torch.zeros(len(pixels), dtype=torch.int64)
    active = torch.arange(len(pixels))
    clean, targets, moved = pixels, labels, change.clone()  # of the active images
    for _ in range(steps):
        current = (clean + moved).clamp_(0, 1)
        gradient, predictions = gradients.cross_entropy(model, current, targets)
        evaluations[active] += 1
        standing = predictions == targets
        if early_stop and not standing.all():
            change[active] = moved
            if not standing.any():
                return Perturbation(change, evaluations)
            active, clean, targets = active[standing], clean[standing], targets[standing]
            current, gradient = current[standing], gradient[standing]
        moved = gradient.sign_().mul_(step).add_(current).sub_(clean).clamp_(-eps, eps)
    change[active] = moved
    return Perturbation(change, evaluations)

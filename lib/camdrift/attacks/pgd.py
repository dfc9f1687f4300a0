"""Projected gradient descent in L-infinity.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from camdrift import gradients
from camdrift.models import Model
from camdrift.perturbation import Perturbation


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
    for _ in range(steps):
        current = (pixels[active] + change[active]).clamp(0, 1)
        gradient, predictions = gradients.cross_entropy(model, current, labels[active])
        evaluations[active] += 1
        if early_stop:
            standing = predictions == labels[active]
            active, current, gradient = active[standing], current[standing], gradient[standing]
        if not len(active):
            break
        moved = current + step * gradient.sign()
        change[active] = (moved - pixels[active]).clamp(-eps, eps)
    return Perturbation(change, evaluations)

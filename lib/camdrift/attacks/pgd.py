"""Projected gradient descent in L-infinity.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1.
"""

from collections.abc import Sequence

import numpy as np
import torch

from camdrift.models import gradients
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Mask, PerImage, Pixels
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
    pixels: Pixels,
    labels: Labels,
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
    start = torch.zeros_like(pixels)
    if random_start:
        for row, generator in zip(start, generators, strict=True):
            row.copy_(torch.from_numpy(generator.uniform(-eps, eps, tuple(row.shape))))

    def look(images: Pixels, places: PerImage, gradient: bool) -> tuple[Pixels, Mask]:
        rising, predictions = gradients.cross_entropy(model, images, labels[places])
        return rising, (predictions != labels[places]) & early_stop

    return Perturbation(*gradients.ascend(look, pixels, [step] * steps, eps=eps, start=start))

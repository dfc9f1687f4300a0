"""The fast gradient sign method.

Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples", section 4.
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
    gains: int,
) -> Perturbation:
    """Returns eps * sign(gradient of the cross-entropy at the image); eps in pixel values.

    With `gains` > 1, the first of eps * 1/gains, 2/gains, ... 1 that changes the prediction from
    the label (klawikowska2020's tool, which looks once at the gradient and raises the gain), else
    eps itself.
    """
    gradient, _ = gradients.cross_entropy(model, pixels, labels)
    sign, gain = gradient.sign(), torch.full((len(pixels),), eps)
    evaluations = torch.ones(len(pixels), dtype=torch.int64)
    waiting = torch.arange(len(pixels) if gains > 1 else 0)
    for k in range(1, gains + 1):
        if not len(waiting):
            break
        gain[waiting] = eps * k / gains
        with torch.no_grad():
            changed = (pixels[waiting] + eps * k / gains * sign[waiting]).clamp(0, 1)
            held = model(changed).argmax(1) == labels[waiting]
        evaluations[waiting] += 1
        waiting = waiting[held]
    return Perturbation(gain.view(-1, 1, 1, 1) * sign, evaluations)

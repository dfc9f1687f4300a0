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
) -> Perturbation:
    """Returns eps * sign(gradient of the cross-entropy at the image); eps in pixel values."""
    gradient, _ = gradients.cross_entropy(model, pixels, labels)
    return Perturbation(eps * gradient.sign(), torch.ones(len(pixels), dtype=torch.int64))

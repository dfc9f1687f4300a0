"""No attack: a control whose maps must not drift at all."""

from collections.abc import Sequence

import numpy as np
import torch

from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Pixels
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Section


class Settings(Section):
    """Settings of no attack."""


def perturb(
    model: Model, pixels: Pixels, labels: Labels, *, generators: Sequence[np.random.Generator]
) -> Perturbation:
    """Returns zeros; the model is not called."""
    return Perturbation(torch.zeros_like(pixels), torch.zeros(len(pixels), dtype=torch.int64))

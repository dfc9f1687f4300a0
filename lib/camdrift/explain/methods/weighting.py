"""Code of the CAM methods that give each channel one weight."""

import torch
from torch import Tensor

from camdrift.models.tensors import Activations, Heatmaps


def weighted_sum(activations: Activations, weights: Tensor) -> Heatmaps:
    """Returns the sum over channels of activations times one weight for each channel.

    `weights` are (n, channels).
    """
    return torch.einsum("nc,nchw->nhw", weights, activations)

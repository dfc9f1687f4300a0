"""Code of the CAM methods that give each channel one weight."""

import torch
from torch import Tensor


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Returns the sum over channels of activations times one weight for each channel: (n, h, w)."""
    return torch.einsum("nc,nchw->nhw", weights, activations)

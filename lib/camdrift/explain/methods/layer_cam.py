"""LayerCAM: every place weighted by its own positive gradient.

Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
equations 5 and 6.
"""

from torch import Tensor

NAME = "LayerCAM"


def maps(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns relu of the sum over channels of positive gradient times activation."""
    return unrectified_map(activations, gradients).relu()


def unrectified_map(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns the sum over channels, with its negative values: (n, h, w)."""
    return (gradients.relu() * activations).sum(dim=1)

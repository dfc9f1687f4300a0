"""HiResCAM: every place weighted by its own gradient.

Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of
convolutional neural networks" (arXiv 2011.08891), equation 5.
"""

from torch import Tensor

NAME = "HiResCAM"


def maps(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns relu of the sum over channels of gradient times activation."""
    return (gradients * activations).sum(dim=1).relu()

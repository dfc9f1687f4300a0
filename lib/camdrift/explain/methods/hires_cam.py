"""HiResCAM: every place weighted by its own gradient.

Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of
convolutional neural networks" (arXiv 2011.08891), equation 5.
"""

from camdrift.models.tensors import Activations, Heatmaps

NAME = "HiResCAM"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns relu of the sum over channels of gradient times activation."""
    return (gradients * activations).sum(dim=1).relu()

"""Grad-CAM++: channels weighted by their positive gradients, each place by its own share.

Chattopadhay et al. 2018, "Grad-CAM++: Improved Visual Explanations for Deep Convolutional
Networks", equations 10 and 19, in the stable form alpha = 1 / (2 + g sum(A)).
"""

from camdrift.explain.methods.weighting import weighted_sum
from camdrift.models.tensors import Activations, Heatmaps

NAME = "GradCAMPlusPlus"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns relu of the weighted sum over channels."""
    return unrectified_map(activations, gradients).relu()


def unrectified_map(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns the weighted sum over channels, with its negative values.

    Only positive gradients carry weight, so that the denominator is never below 2 where activations
    are rectified.
    """
    positive = gradients.relu()
    sums = activations.sum(dim=(2, 3), keepdim=True)
    weights = (positive / (sums * positive).add_(2)).sum(dim=(2, 3))
    return weighted_sum(activations, weights)

"""Grad-CAM: channels weighted by the mean of their gradient.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", equations 1 and 2.
"""

from camdrift.explain.methods.weighting import weighted_sum
from camdrift.models.tensors import Activations, Heatmaps

NAME = "GradCAM"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns relu of the sum over channels of the mean gradient times the activation."""
    return weighted_sum(activations, gradients.mean(dim=(2, 3))).relu()

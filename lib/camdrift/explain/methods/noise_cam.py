"""NoiseCAM: the rectified difference of Grad-CAM++ and LayerCAM.

Tan et al. 2023, "NoiseCAM: Explainable AI for the Boundary Between Noise and Adversarial Attacks",
equations 9-16, and the deviating version of its public code.
"""

import torch

from camdrift.explain.methods import grad_cam_plus_plus, layer_cam
from camdrift.models.tensors import Activations, Heatmaps, PerImage

NAME = "NoiseCAM"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns NoiseCAM as the paper prints it."""
    plain = grad_cam_plus_plus.unrectified_map(activations, gradients)
    return (plain - layer_cam.unrectified_map(activations, gradients)).relu()


def maps_of_code(activations: Activations, gradients: Activations, scores: PerImage) -> Heatmaps:
    """Returns NoiseCAM before its last normalisation, as the public code has it.

    tan2023's code differs from the paper in two points: alpha is divided by its sum over space, and
    the gradient under alpha is that of exp(score).

    Args:
        activations: A.
        gradients: g, of the score by A.
        scores: of the class that is explained; zeros leave the exponential out.
    """
    weight, shares = scores.exp().view(-1, 1, 1, 1), _alpha_of_code(activations, gradients, scores)
    spread = (weight * gradients).relu().mul(shares).sum(dim=(2, 3), keepdim=True)
    return ((spread - gradients.relu()) * activations).sum(dim=1).relu()


def _alpha_of_code(
    activations: Activations, gradients: Activations, scores: PerImage
) -> Activations:
    """Returns Grad-CAM++'s alpha as NoiseCAM's code has it: each channel adds up to 1, or is 0."""
    weight = scores.exp().view(-1, 1, 1, 1)
    second, third = weight * gradients**2, weight * gradients**3
    denominator = 2 * second + activations.sum(dim=(2, 3), keepdim=True) * third
    alpha = second / torch.where(second == 0, 1.0, denominator)
    total = alpha.sum(dim=(2, 3), keepdim=True)
    return alpha / torch.where(total == 0, 1.0, total)

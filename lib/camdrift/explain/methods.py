"""CAM methods: activations and gradients of a layer -> its raw maps, neither scaled nor resized.

Both arguments are (n, c, h, w): a layer's tensor and the gradient of the explained score by it.
Maps are (n, h, w), without negative values. `BY_NAME` has NoiseCAM and those that pytorch-grad-cam
has by these names, too; `camdrift.explain.external` has that library's others.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """Returns the sum over channels of activations times a weight a channel: (n, h, w)."""
    return torch.einsum("nc,nchw->nhw", weights, activations)


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns Grad-CAM: relu of the sum over channels of the mean gradient times the activation.

    Selvaraju et al. 2017, equations 1 and 2.
    """
    return _weighted(activations, gradients.mean(dim=(2, 3))).relu()


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns Grad-CAM++.

    Chattopadhay et al. 2018, equations 10 and 19, in the stable form alpha = 1 / (2 + g sum(A)).
    Only positive gradients carry weight, so that the denominator is never below 2 where activations
    are rectified.
    """
    return _plus_plus(activations, gradients).relu()


def _plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    positive = gradients.relu()
    sums = activations.sum(dim=(2, 3), keepdim=True)
    weights = (positive / (sums * positive).add_(2)).sum(dim=(2, 3))
    return _weighted(activations, weights)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns LayerCAM: relu of the sum over channels of positive gradient times activation.

    Jiang et al. 2021, equations 5 and 6.
    """
    return _positive(activations, gradients).relu()


def _positive(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.relu() * activations).sum(dim=1)


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns HiResCAM: relu of the sum over channels of gradient times activation.

    Draelos and Carin 2020, equation 5 (arXiv 2011.08891).
    """
    return (gradients * activations).sum(dim=1).relu()


def x_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns XGrad-CAM: as Grad-CAM, the mean of gradients weighted by the activations.

    Fu et al. 2020, equation 8 (arXiv 2008.02312). A channel without activation has no weight.
    """
    sums = activations.sum(dim=(2, 3))
    products = (gradients * activations).sum(dim=(2, 3))
    return _weighted(activations, products / torch.where(sums == 0, 1.0, sums)).relu()


def noise_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns NoiseCAM as tan2023 prints it, equations 9-16.

    With rectified activations it is what Grad-CAM++ has beyond LayerCAM.
    """
    return (_plus_plus(activations, gradients) - _positive(activations, gradients)).relu()


def noise_cam_of_code(activations: Tensor, gradients: Tensor, scores: Tensor) -> Tensor:
    """Returns NoiseCAM before its last normalisation, as the public code has it.

    tan2023's code does what the paper does not print: alpha is divided by its sum over space, and
    the gradient under alpha is that of exp(score).

    Args:
        activations: (n, c, h, w), A.
        gradients: (n, c, h, w), g, of the score by A.
        scores: (n,), of the class that is explained; zeros leave the exponential out.
    """
    weight, shares = scores.exp().view(-1, 1, 1, 1), _code_alpha(activations, gradients, scores)
    spread = (weight * gradients).relu().mul(shares).sum(dim=(2, 3), keepdim=True)
    return ((spread - gradients.relu()) * activations).sum(dim=1).relu()


def _code_alpha(activations: Tensor, gradients: Tensor, scores: Tensor) -> Tensor:
    """Returns Grad-CAM++'s alpha as NoiseCAM's code has it: each channel adds up to 1, or is 0."""
    weight = scores.exp().view(-1, 1, 1, 1)
    second, third = weight * gradients**2, weight * gradients**3
    denominator = 2 * second + activations.sum(dim=(2, 3), keepdim=True) * third
    alpha = second / torch.where(second == 0, 1.0, denominator)
    total = alpha.sum(dim=(2, 3), keepdim=True)
    return alpha / torch.where(total == 0, 1.0, total)


BY_NAME: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "GradCAM": grad_cam,
    "GradCAMPlusPlus": grad_cam_plus_plus,
    "LayerCAM": layer_cam,
    "HiResCAM": hires_cam,
    "XGradCAM": x_grad_cam,
    "NoiseCAM": noise_cam,
}

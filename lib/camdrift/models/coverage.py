"""Neuron coverage, as the public code of renkhoff2022 counts it (after DLFuzz, Guo et al. 2018).

A neuron is a channel of a conv or pooling layer, a unit of a dense layer (one for all tokens), or a
class of the softmax. An image covers it when the mean of its activation, min-max scaled over the
whole output of its layer for that one image, exceeds a threshold.
"""

import numpy as np
import torch
from torch import Tensor

from camdrift.models.model import Model
from camdrift.models.tensors import Logits, Pixels


def means(logits: Logits, excitations: tuple[Tensor, ...]) -> Tensor:
    """Returns each neuron's raw mean activation: (n, neurons), the softmax classes last."""
    means = [_spatial_mean(tensor) for tensor in _layers(logits, excitations)]
    return torch.cat([values.to(logits.device) for values in means], dim=1)


def levels(logits: Logits, excitations: tuple[Tensor, ...]) -> Tensor:
    """Returns each neuron's mean scaled activation in [0, 1]: (n, neurons).

    A layer whose output is constant has no scale; its neurons are at 0.
    """
    parts = []
    for tensor in _layers(logits, excitations):
        axes = tuple(range(1, tensor.dim()))
        low, high = tensor.amin(axes)[:, None], tensor.amax(axes)[:, None]
        span = high - low
        # The scaling is affine, so it suffices to scale the mean.
        level = torch.where(span > 0, (_spatial_mean(tensor) - low) / span, 0.0)
        parts.append(level.to(logits.device))
    return torch.cat(parts, dim=1)


def _layers(logits: Tensor, excitations: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (*excitations, logits.softmax(1))


def _spatial_mean(tensor: Tensor) -> Tensor:
    """Returns the mean of each neuron over places: (n, neurons)."""
    if tensor.dim() == 3:  # tokens
        return tensor.mean(1)
    # Permuted, the sum runs along memory when channels are stored last.
    return tensor.permute(0, 2, 3, 1).mean((1, 2)) if tensor.dim() > 2 else tensor


def _count(tensor: Tensor) -> int:
    """Returns the number of neurons."""
    return tensor.shape[2 if tensor.dim() == 3 else 1]


def spatial(model: Model) -> np.ndarray:
    """Returns which neurons are channels of an image-like layer: bool (neurons,)."""
    with torch.no_grad():
        layers = _layers(*model.excitations(torch.zeros(1, *model.shape)))
    return np.concatenate([np.full(_count(layer), layer.dim() > 2) for layer in layers])


def counts(model: Model) -> dict[str, int]:
    """Returns the number of neurons, and of the `classes` among them, which come last."""
    with torch.no_grad():
        layers = _layers(*model.excitations(torch.zeros(1, *model.shape)))
    return {"neurons": sum(_count(layer) for layer in layers), "classes": _count(layers[-1])}


def kernel_means(model: Model) -> np.ndarray:
    """Returns each neuron's mean kernel weight: (neurons,), NaN where a layer has none.

    Batch norm is folded into the kernels.
    """
    parts = []
    with torch.no_grad():
        logits, excitations = model.excitations(torch.zeros(1, *model.shape))
    for point, tensor in zip(model.neurons, excitations, strict=True):
        weights = [model.weight_of(name) for name in point.name.split("+")]
        # After a concatenation a hook point has more channels than any of its convs' kernels.
        fits = (w for w in weights if w is not None and len(w) == _count(tensor))
        kernels = [w.flatten(1).mean(1) for w in fits]
        missing = tensor.new_full((_count(tensor),), float("nan"))
        parts.append(torch.stack(kernels).mean(0) if kernels else missing)
    parts.append(tensor.new_full((logits.shape[1],), float("nan")))
    return torch.cat(parts).cpu().numpy()


def covered(model: Model, pixels: Pixels, *, threshold: float) -> np.ndarray:
    """Returns which neurons each image covers: bool (n, neurons)."""
    parts = []
    with torch.no_grad():
        for batch, rows in model.batches(pixels):
            logits, excitations = model.excitations(batch)
            parts.append((levels(logits, excitations)[:rows] > threshold).numpy())
    return np.concatenate(parts)

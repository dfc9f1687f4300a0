"""Pooled activations: the mean of each channel over an image's places, layer by layer.

Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
Adversarial Attacks", reduce activations in this way.
"""

import torch
from torch import Tensor

from camdrift.models.model import Model
from camdrift.models.tensors import Logits, Pixels


def layers(activations: tuple[Tensor, ...]) -> list[Tensor]:
    """Returns the pooled activations of each layer, (n, channels), from (n, channels, h, w)."""
    return [layer.flatten(2).mean(2) for layer in activations]


def measure(model: Model, pixels: Pixels) -> list[Tensor]:
    """Returns the pooled activations of each layer, without a graph: float32 (n, channels)."""
    parts = []
    with torch.no_grad():
        for batch, rows in model.batches(pixels):
            _, activations = model.activations(batch)
            parts.append([layer[:rows].float().cpu() for layer in layers(activations)])
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def differentiable(model: Model, batch: Pixels) -> tuple[Logits, list[Tensor]]:
    """Returns the logits of a micro-batch, and its pooled activations in double precision.

    Both have gradients with respect to the pixels.
    """
    logits, activations = model.activations(batch)
    return logits, [layer.double().to(batch.device) for layer in layers(activations)]

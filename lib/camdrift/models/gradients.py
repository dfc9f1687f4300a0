"""The gradient of a model's loss with respect to pixels, for any number of images."""

import torch
from torch import Tensor
from torch.nn import functional as F

from camdrift.models.model import Model


def cross_entropy(model: Model, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each image's own gradient of the cross-entropy, and the predictions.

    One forward and one backward an image. Losses are summed, not averaged, so no image's gradient
    depends on the size of its batch.

    Returns:
        Gradient (n, 3, h, w), in loss per unit of pixel value, and predicted classes (n,).
    """
    parts, predictions = [], []
    done = 0
    for batch, rows in model.batches(pixels.detach()):
        batch.requires_grad_()
        logits = model(batch)
        loss = F.cross_entropy(logits[:rows], labels[done : done + rows], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, batch)
        parts.append(gradient[:rows])
        predictions.append(logits[:rows].argmax(1))
        done += rows
    return torch.cat(parts), torch.cat(predictions)


def vanish(model: Model, pixels: Tensor, labels: Tensor) -> Tensor:
    """Returns whether each image's gradient of the cross-entropy is zero everywhere: bool (n,).

    Where it is, a gradient attack has no direction and its failure says nothing about robustness
    (AutoAttack's check for zero gradients; Croce & Hein 2020, arXiv 2003.01690).
    """
    gradient, _ = cross_entropy(model, pixels, labels)
    return (gradient == 0).flatten(1).all(1)

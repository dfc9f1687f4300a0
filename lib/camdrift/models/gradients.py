"""The gradient of a model's loss with respect to pixels, and steps along its sign."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Mask, PerImage, Pixels

# (pixels of some images, their places among all, whether a gradient is needed) -> the gradient of
# an objective that rises, any tensor if none is needed; and whether each image stays as it is.
Look = Callable[[Pixels, PerImage, bool], tuple[Pixels, Mask]]


def ascend(
    look: Look,
    clean: Pixels,
    sizes: Sequence[float],
    *,
    eps: float,
    start: Pixels | None = None,
    one_direction: bool = False,
    look_last: bool = False,
) -> tuple[Pixels, PerImage]:
    """Returns perturbations after steps along the sign of a gradient, and numbers of looks.

    The loop of every gradient-sign attack. Each step moves an image's pixel values by its size and
    projects their change to [-eps, eps] (Madry et al. 2018, section 2.1). The objective sees
    pixels clipped to [0, 1]; perturbations are returned unclipped.

    Args:
        look: computes gradients and decides which images stay as they are.
        clean: the images, in [0, 1].
        sizes: of the steps, in pixel values.
        eps: largest change of a pixel value.
        start: the first perturbation; none by default.
        one_direction: whether each step starts at the clean image again and follows the gradient's
            sign there, as a search along a line does.
        look_last: whether the result of the last step is looked at, too.
    """
    change = torch.zeros_like(clean) if start is None else start
    result, direction = change.clone(), change
    places = torch.arange(len(clean), device=clean.device)
    looks = torch.zeros_like(places)
    for step in range(len(sizes) + look_last):
        last, turns = step == len(sizes), step == 0 or not one_direction
        current = (clean + change).clamp_(0, 1)
        gradient, done = look(current, places, turns and not last)
        looks[places] += 1
        if turns:
            direction = gradient.sign()
        if done.any():
            result[places] = change
            if done.all():
                return result, looks
            direction, places, clean, change, current = (
                values[~done] for values in (direction, places, clean, change, current)
            )
        if last:
            break
        change = sizes[step] * direction
        if not one_direction:
            change.add_(current).sub_(clean).clamp_(-eps, eps)
    result[places] = change
    return result, looks


def cross_entropy(model: Model, pixels: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    """Returns each image's own gradient of the cross-entropy, and the predictions.

    One forward and one backward an image. Losses are summed, not averaged, so no image's gradient
    depends on the size of its batch.

    Returns:
        Gradient, in loss per unit of pixel value, and predicted classes.
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


def vanish(model: Model, pixels: Pixels, labels: Labels) -> Mask:
    """Returns whether each image's gradient of the cross-entropy is zero everywhere.

    Where it is, a gradient attack has no direction and its failure says nothing about robustness
    (AutoAttack's check for zero gradients; Croce & Hein 2020, arXiv 2003.01690).
    """
    gradient, _ = cross_entropy(model, pixels, labels)
    return (gradient == 0).flatten(1).all(1)

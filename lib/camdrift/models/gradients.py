"""The gradient of a model's loss with respect to pixels, and steps along its sign."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels

# (pixels of some images, their places among all, whether a gradient is needed) -> the gradient of
# an objective that rises, any tensor if none is needed; and whether each image stays as it is.
Look = Callable[[Pixels, PerImage, bool], tuple[Pixels, Mask]]
Loss = Callable[[Logits, Labels], PerImage]


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
        gradient, stop = look(current, places, turns and not last)
        looks[places] += 1
        if turns:
            direction = gradient.sign()
        if stop.any():
            result[places] = change
            if stop.all():
                return result, looks
            direction, places, clean, change, current = (
                values[~stop] for values in (direction, places, clean, change, current)
            )
        if last:
            break
        change = sizes[step] * direction
        if not one_direction:
            change.add_(current).sub_(clean).clamp_(-eps, eps)
    result[places] = change
    return result, looks


def cross_entropy(model: Model, pixels: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    """Returns each image's own gradient of the cross-entropy, and the predictions."""
    gradient, _, predictions = of_loss(
        model, pixels, labels, partial(F.cross_entropy, reduction="none")
    )
    return gradient, predictions


def of_loss(
    model: Model, pixels: Pixels, labels: Labels, loss: Loss
) -> tuple[Pixels, PerImage, Labels]:
    """Returns each image's own gradient of a loss, the losses, and the predictions.

    One forward and one backward an image. Losses are summed, not averaged, so no image's gradient
    depends on the size of its batch.

    Returns:
        Gradient, in loss per unit of pixel value; losses; and predicted classes.
    """
    parts, losses, predictions = [], [], []
    start = 0
    for batch, rows in model.batches(pixels.detach()):
        batch.requires_grad_()
        logits = model(batch)[:rows]
        own = loss(logits, labels[start : start + rows])
        (gradient,) = torch.autograd.grad(own.sum(), batch)
        parts.append(gradient[:rows])
        losses.append(own.detach())
        predictions.append(logits.argmax(1))
        start += rows
    return torch.cat(parts), torch.cat(losses), torch.cat(predictions)


def vanish(model: Model, pixels: Pixels, labels: Labels) -> Mask:
    """Returns whether each image's gradient of the cross-entropy is zero everywhere.

    Where it is, a gradient attack has no direction and its failure says nothing about robustness
    (AutoAttack's check for zero gradients; Croce & Hein 2020, arXiv 2003.01690).
    """
    gradient, _ = cross_entropy(model, pixels, labels)
    return (gradient == 0).flatten(1).all(1)


class ConstantConvs(TorchFunctionMode):
    """A context in which convs with constant weights have a cheaper second derivative.

    It has the same values. PyTorch's own also computes the derivative by the weight, which nobody
    asks for and which takes longer than all else: its kernel is as large as the image.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Calls the function, or a conv of constant weights in another way."""
        if function is F.conv2d:
            return _conv(*args, **kwargs or {})
        return function(*args, **kwargs or {})


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Does what `F.conv2d` does; has its parameters, which a network may give by name."""
    constant = not (weight.requires_grad or (bias is not None and bias.requires_grad))
    plain = input.ndim == 4 and not isinstance(padding, str)
    kind = input.device.type
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if constant and plain and not cast:
        shape = _pair(stride), _pair(padding), _pair(dilation), groups
        return _ConstantConv.apply(input, weight, bias, shape)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


class _ConstantConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, weight: Tensor, bias: Tensor | None, shape: Any
    ) -> Tensor:
        ctx.save_for_backward(tensor, weight)
        ctx.shape = shape
        return F.conv2d(tensor, weight, bias, *shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return (
            _ConstantConvBackward.apply(gradient, *ctx.saved_tensors, ctx.shape),
            None,
            None,
            None,
        )


class _ConstantConvBackward(torch.autograd.Function):
    """The derivative by the conv's input; it is linear, and its own derivative is the conv."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, tensor: Tensor, weight: Tensor, shape: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape = shape
        *spatial, groups = shape
        by_input, _, _ = torch.ops.aten.convolution_backward(
            gradient, tensor, weight, None, *spatial, False, (0, 0), groups, (True, False, False)
        )
        return by_input

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return F.conv2d(gradient, weight, None, *ctx.shape), None, None, None

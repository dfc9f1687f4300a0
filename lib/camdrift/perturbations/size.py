"""The size of changes after clipping: measured, and made equal."""

import math

import numpy as np
import torch
from torch import Tensor

from camdrift.models.tensors import PerImage, Pixels


def l2(change: Pixels) -> PerImage:
    """Returns the L2 norm over all channels and pixels of each image, as float64."""
    return change.double().flatten(1).norm(dim=1)


def rms(change: Pixels) -> PerImage:
    """Returns the root mean square over all channels and pixels of each image, as float64."""
    return l2(change) / math.sqrt(math.prod(change.shape[1:]))


def root(values: Tensor) -> Tensor:
    """Returns the square root, on a CPU that of every processor, to the last digit.

    PyTorch has MKL compute it, whose last digit differs between Intel and AMD, also where
    `stages/processor` holds MKL to what they have in common.
    """
    if values.device.type != "cpu":
        return values.sqrt()
    return torch.from_numpy(np.asarray(np.sqrt(values.numpy())))


def scale_to(clean: Pixels, base: Pixels, targets: Tensor) -> Tensor:
    """Returns the factors at which each image's clipped noise has the L2 sizes `targets`.

    Solves ||clip(x + f * base, 0, 1) - x|| = target for f (Rauber & Bethge 2020, arXiv
    2007.07677): a value moves by min(f |b|, room), so between the factors at which values saturate
    the squared size is quadratic in f. Noise that saturates everywhere before it is large enough
    gets its largest factor; a base of zeros, or a target of 0, gives 0.

    Args:
        clean: the images, in [0, 1].
        base: the unscaled noise.
        targets: (n, rungs), L2 sizes.

    Returns:
        float64 (n, rungs).
    """
    clean, base = clean.double().flatten(1), base.double().flatten(1)
    step = base.abs()
    room = torch.where(base > 0, 1 - clean, clean) * (step > 0)
    turn = torch.where(step > 0, room / step, 0.0)  # the factor at which the value saturates
    turn, order = turn.sort(dim=1)
    room_squared, step_squared = room.gather(1, order).square(), step.gather(1, order).square()
    saturated = room_squared.cumsum(1)  # up to and including the value
    moving = step_squared.flip(1).cumsum(1).flip(1)  # from the value on
    size_squared = turn.square() * (moving - step_squared) + saturated
    target_squared = targets.double().square()
    first = torch.searchsorted(size_squared, target_squared).clamp_max(size_squared.shape[1] - 1)
    remainder = target_squared - saturated.gather(1, first) + room_squared.gather(1, first)
    rate = moving.gather(1, first)
    factor = torch.where(rate > 0, root(remainder.clamp_min(0) / rate), 0.0)
    return factor.minimum(turn[:, -1:])

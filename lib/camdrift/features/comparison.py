"""Comparison of two maps of one layer, neither of which need be of a clean image."""

import torch
from torch import Tensor


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Returns the cosine of maps (..., h, w), not below 0, at their own size: in [0, 1].

    Empty maps have a similarity, so that every image is decided: that of two empty maps is 1, that
    of an empty map and another is 0.
    """
    # Divided by their maxima first: squares of tiny values would vanish.
    a, b = (_over_maximum(maps.flatten(-2)) for maps in (first, second))
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    both_empty = (a.norm(dim=-1) == 0) & (b.norm(dim=-1) == 0)
    cosine = (a * b).sum(-1) / torch.where(norms > 0, norms, 1.0)
    return torch.where(both_empty, 1.0, cosine.clamp(0, 1))


def _over_maximum(values: Tensor) -> Tensor:
    most = values.amax(-1, keepdim=True)
    return values / torch.where(most > 0, most, 1.0)

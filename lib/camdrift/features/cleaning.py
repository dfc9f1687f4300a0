"""Cleaning: copies of an image from which small changes are gone."""

import torch
from torch.nn import functional

from camdrift.models.tensors import Pixels


def rebuild(pixels: Pixels, *, variance: float) -> Pixels:
    """Returns images rebuilt from the components that explain a share of their variance.

    tan2023, section III-D, step 1. Each channel separately, with rows of pixels as samples, and
    with as many components as `sklearn.decomposition.PCA(n_components=variance)` keeps. Values are
    not clipped. A constant channel has no variance and stays as it is.

    Args:
        pixels: in [0, 1].
        variance: share of the variance to keep, in (0, 1).
    """
    values = pixels.double()
    mean = values.mean(dim=2, keepdim=True)
    u, s, v = torch.linalg.svd(values - mean, full_matrices=False)
    explained = s.square().cumsum(-1)
    total = explained[..., -1:]
    components = (explained <= variance * total).sum(-1, keepdim=True) + 1
    s = torch.where(torch.arange(s.shape[-1]) < components, s, 0.0)
    return (mean + u * s[..., None, :] @ v).float()


def median(pixels: Pixels, *, size: int) -> Pixels:
    """Returns images filtered by the median of a window of `size` px, an odd number.

    Edges are repeated, so that images may have any size.
    """
    reach = size // 2
    padded = functional.pad(pixels, (reach,) * 4, mode="replicate")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows.flatten(-2).median(dim=-1).values

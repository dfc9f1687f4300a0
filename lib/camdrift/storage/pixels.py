"""Pixels: float32 (n, 3, h, w) in [0, 1], between 8-bit images and the inputs of a network."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def from_8bit(images: np.ndarray) -> Tensor:
    """Returns uint8 images (n, h, w, 3) as float32 pixels (n, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255)


def to_8bit(values: Tensor) -> np.ndarray:
    """Returns pixels as uint8 images (n, h, w, 3), rounded to the nearest level."""
    levels = values.mul(255).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


def inputs(pixels: Tensor, *, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Returns the inputs of a network: pixels resized to its size (bilinear) and normalised.

    Pixels that have that size already are not resized. `mean` and `std` are (1, 3, 1, 1).
    """
    if pixels.shape[-1] != size or pixels.shape[-2] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=False)
    return (pixels - mean) / std

"""Pixels: float32 (n, 3, h, w) in [0, 1], from images at 256 levels and back."""

import numpy as np
import torch
from torch import Tensor


def from_8bit(images: np.ndarray) -> Tensor:
    """Returns uint8 images (n, h, w, 3) as float32 pixels (n, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255)


def to_8bit(values: Tensor) -> np.ndarray:
    """Returns pixels as uint8 images (n, h, w, 3), rounded to the nearest level."""
    levels = values.mul(255).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()

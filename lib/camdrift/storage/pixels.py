"""Pixels: float32 (n, 3, h, w) in [0, 1], and the 8-bit images that they come from."""

import numpy as np


def from_8bit(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images (n, h, w, 3) as float32 pixels (n, 3, h, w) in [0, 1]."""
    return np.ascontiguousarray(images).transpose(0, 3, 1, 2).astype(np.float32) / 255


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels as uint8 images (n, h, w, 3), rounded to the nearest level."""
    levels = np.round(pixels * 255).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))

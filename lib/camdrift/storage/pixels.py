"""Pixels, in [0, 1], and the 8-bit images that they come from."""

import numpy as np

from camdrift.storage.arrays import Images8, Pixels


def from_8bit(images: Images8) -> Pixels:
    """Returns 8-bit images as float32 pixels in [0, 1]."""
    return np.ascontiguousarray(images).transpose(0, 3, 1, 2).astype(np.float32) / 255


def to_8bit(pixels: Pixels) -> Images8:
    """Returns pixels as 8-bit images, rounded to the nearest level."""
    levels = np.round(pixels * 255).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))

"""Shifts: how far maps and pictures move, chakraborty2022's NISSIM, VID and PSNR.

Maps are stacks (n, h, w), each divided by its own maximum; an empty map is all zeros.
"""

import numpy as np

from camdrift.scores.similarity import structural_similarity, upsampling


def nissim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns (1 - SSIM) / 2 of pairs of maps: 0 for the same map, at most 1: (n,).

    chakraborty2022, equation 1. NaN where the maps are too small for a window; an empty map is
    compared as it is, blank.
    """
    return (1 - structural_similarity(first, second)) / 2


def enlarged(maps: np.ndarray, *, size: int) -> np.ndarray:
    """Returns maps at `size` px, bilinear: (n, size, size)."""
    rows, columns = (upsampling(side, size) for side in maps.shape[1:])
    return rows @ maps.astype(np.float64) @ columns.T


def vid(shift: np.ndarray) -> np.ndarray:
    """Returns how much an image's NISSIM differs from eps to eps: (n,), of (n, levels).

    chakraborty2022, equations 3 and 4: the root of the mean squared difference from the mean over
    the levels, a standard deviation, though called variance. NaN where a level is.
    """
    return shift.std(axis=1)


def psnr(clean: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Returns the peak signal-to-noise ratio in dB of pixels in [0, 1]: (n,), inf where equal."""
    error = np.square(changed - clean).reshape(len(clean), -1).mean(1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def psnr_of(eps: float) -> float:
    """Returns the ratio in dB of a change of +-eps of every pixel value that nothing clips."""
    return float(-20 * np.log10(eps))

"""PSNR: the peak signal-to-noise ratio of changed images, in dB.

As Chakraborty et al. 2022 use it, "Generalizing Adversarial Explanations with Grad-CAM". It
compares pixels, not maps.
"""

import numpy as np

from camdrift.storage.arrays import PerImage, Pixels

RANGE = (0.0, float("inf"))
HIGHER_IS_ALIKE = True


def ratio(clean: Pixels, changed: Pixels) -> PerImage:
    """Returns the ratio of pixels in [0, 1], inf where equal."""
    error = np.square(changed - clean).reshape(len(clean), -1).mean(1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def ratio_at_eps(eps: float) -> float:
    """Returns the ratio of a change of +-eps of every pixel value that nothing clips."""
    return float(-20 * np.log10(eps))

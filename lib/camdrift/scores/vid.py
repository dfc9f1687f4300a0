"""VID: the spread of the shift of an image's map over strengths.

Chakraborty et al. 2022, "Generalizing Adversarial Explanations with Grad-CAM", equations 3 and 4.
It is computed from an image's NISSIM at several strengths, not from a pair of maps.
"""

import numpy as np

from camdrift.storage.arrays import PerImage

RANGE = (0.0, 0.5)
HIGHER_IS_ALIKE = False


def spread(shift: np.ndarray) -> PerImage:
    """Returns the root of the mean squared difference from the mean, of `shift`, (n, levels).

    A standard deviation, though called variance. NaN where a level is.
    """
    return shift.std(axis=1)

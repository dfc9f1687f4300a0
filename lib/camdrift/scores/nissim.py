"""NISSIM: the shift of maps, (1 - structural similarity) / 2.

Chakraborty et al. 2022, "Generalizing Adversarial Explanations with Grad-CAM", equation 1.
"""

from collections.abc import Sequence

from camdrift.scores.ssim import structural_similarity
from camdrift.storage.arrays import Heatmaps, PerImage

LABEL = "NISSIM"
RANGE = (0.0, 1.0)
HIGHER_IS_ALIKE = False


def score(first: Heatmaps, second: Heatmaps, *, size: int | Sequence[int]) -> PerImage:
    """Returns `shift`, whatever the images' size."""
    return shift(first, second)


def shift(first: Heatmaps, second: Heatmaps) -> PerImage:
    """Returns (1 - SSIM) / 2 of pairs of maps: 0 for the same map, at most 1.

    NaN where the maps are too small for a window; an empty map is compared as it is, blank.
    """
    return (1 - structural_similarity(first, second)) / 2

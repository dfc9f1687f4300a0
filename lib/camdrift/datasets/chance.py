"""A comparison of a model's accuracy with that of a model that has learned nothing."""

from math import sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95  # level of the interval that must lie above chance


def level(labels: np.ndarray) -> float:
    """Returns the accuracy of always naming the most frequent class of `labels` (n,), in [0, 1].

    0 without labels.
    """
    return (
        float(np.unique(labels, return_counts=True)[1].max() / len(labels)) if len(labels) else 0.0
    )


def is_surely_above(right: int, labels: np.ndarray) -> bool:
    """Returns whether the Wilson interval of an accuracy lies above chance.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        right: number of images that are classified correctly.
        labels: (n,), labels of all images.
    """
    if not len(labels):
        return False
    count, share = len(labels), right / len(labels)
    # Without scipy.stats, which takes half a second to import, in every stage that trains.
    square = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    spread = sqrt(square * (4 * count * share * (1 - share) + square))
    low = (2 * count * share + square - spread) / (2 * (count + square)) if right else 0.0
    return low > level(labels)


def warning(right: int, labels: np.ndarray) -> str:
    """Returns a warning about an accuracy that is not surely above chance, '' for any other."""
    if is_surely_above(right, labels):
        return ""
    share = right / max(1, len(labels))
    return (
        f"{share:.1%} of {len(labels)} images are classified correctly, not surely more than "
        f"{level(labels):.1%}, the share of the most frequent class: are the set's classes those "
        "that the model numbers?"
    )

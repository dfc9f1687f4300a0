"""A comparison of a model's accuracy with that of a model that has learned nothing."""

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

    Args:
        right: number of images that are classified correctly.
        labels: (n,), labels of all images.
    """
    if not len(labels):
        return False
    from scipy.stats import binomtest  # takes a second, and most stages never ask

    interval = binomtest(right, len(labels)).proportion_ci(CONFIDENCE, method="wilson")
    return bool(interval.low > level(labels))


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

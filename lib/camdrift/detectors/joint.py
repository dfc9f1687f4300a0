"""Joint readings of one number a layer: a distance from benign images, and a regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from camdrift.detectors.logistic import Logistic, log_odds
from camdrift.detectors.mahalanobis import Mahalanobis, squared_distance

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.models.tensors import PerImage


def pair(feature: str, names: tuple[str, str]) -> dict[str, Detector]:
    """Returns the distance, fitted to benign images, and the regression, fitted to attacked ones.

    Args:
        feature: the name with which their columns begin.
        names: of the two.
    """
    return dict(zip(names, (Mahalanobis(feature), Logistic(feature)), strict=True))


def judge(detector: Detector) -> Callable[[Tensor], PerImage]:
    """Returns a fitted detector's score as a function of columns, double (n, k), with a gradient.

    Raises:
        TypeError: it is neither of the two.
    """
    if isinstance(detector, Logistic):
        return log_odds(detector)
    if isinstance(detector, Mahalanobis):
        return squared_distance(detector)
    raise TypeError(f"wanted a Mahalanobis or a Logistic detector, got {detector}")

"""Joint readings of one number a layer: a distance from benign images, and a regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from camdrift.detectors.logistic import Logistic, log_odds
from camdrift.detectors.mahalanobis import Mahalanobis, squared_distance

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.features.images import Columns, Objective
    from camdrift.models.tensors import Logits, PerImage, Pixels


def pair(feature: str, names: tuple[str, str]) -> dict[str, Detector]:
    """Returns the distance, fitted to benign images, and the regression, fitted to attacked ones.

    Args:
        feature: the name with which their columns begin.
        names: of the two.
    """
    return dict(zip(names, (Mahalanobis(feature), Logistic(feature)), strict=True))


def columns(feature: str, values: Tensor) -> Columns:
    """Returns values (n, k) as columns `<feature>_<place>`, places from 0."""
    array = values.cpu().numpy()
    return {f"{feature}_{place}": array[:, place] for place in range(array.shape[1])}


def objective(detector: Detector, measure: Callable[[Pixels], tuple[Logits, Tensor]]) -> Objective:
    """Returns the objective that lowers a fitted detector's own score.

    Args:
        detector: one of the two.
        measure: a micro-batch -> its logits, and values (n, k), both with a gradient.
    """
    score = judge(detector)

    def look(batch: Pixels) -> tuple[Logits, PerImage]:
        logits, values = measure(batch)
        return logits, score(values.double().to(batch.device))

    return look


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

"""A cell's evaluations with intervals of another confidence, for Holm's correction."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from camdrift.papers.tan2023 import adaptive
from camdrift.papers.tan2023.verdicts import Evaluations
from camdrift.storage import Detected


def at_level(
    evaluations: Mapping[str, Evaluations],
    detected: Mapping[str, Detected],
    cell: str,
    *,
    confidence: float,
) -> Evaluations:
    """Returns the evaluations of a cell with all intervals of another confidence.

    Args:
        evaluations: of all cells with detectors.
        detected: features of these cells.
        cell: one of them.
        confidence: of the intervals, in (0, 1).
    """
    own = evaluations[cell]
    attacked = [
        adaptive.table(
            detected[name].features,
            detected[name].images,
            replace(evaluations[name].whole, confidence=confidence),
        ).assign(cell=name)
        for name in own.adaptive["cell"].unique()
    ]
    return replace(
        own,
        by_strength={
            strength: replace(evaluation, confidence=confidence)
            for strength, evaluation in own.by_strength.items()
        },
        adaptive=pd.concat(attacked, ignore_index=True) if attacked else own.adaptive,
    )

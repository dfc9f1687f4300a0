"""The judge of E3: does joint drift tell a map-keeping attack from noise of its size?"""

from collections.abc import Mapping

import pandas as pd

from camdrift.analysis.tables import as_text
from camdrift.detectors import drift
from camdrift.papers.findings import (
    FINDING_COLUMNS,
    NOT_RUN,
    Finding,
    nothing,
    verdict_of_range,
    worst,
)
from camdrift.papers.tan2023.verdicts import DOUBTS, Evaluations, few, row
from camdrift.settings import Cell
from camdrift.storage import NOISE, Detected

KEEPING = "E3"  # the claim on the cell whose attack keeps the maps
LIMIT = 0.7  # of the AUROC


def keeping_cell(detected: Mapping[str, tuple[Cell, Detected]]) -> str | None:
    """Returns the first cell with detectors whose attack keeps the maps, None if there is none."""
    return next((key for key, (cell, _) in detected.items() if cell.attack == "map_keeping"), None)


def drift_does_not_separate(evaluations: Evaluations) -> Finding:
    """Judges E3: the AUROC of each joint drift detector is below 0.7.

    Of a cell whose attack keeps the maps: images that it flips, against noise of its size. The
    value is that of the detector which decides.
    """
    evaluation = evaluations.whole
    yes, no = evaluation.members("success", NOISE)
    detectors = {n: evaluation.detectors[n] for n in drift.NAMES if n in evaluation.detectors}
    if not detectors:
        return nothing("no joint drift detector", NOT_RUN)
    if unfit := [f"{name}: {each.unfit}" for name, each in detectors.items() if each.unfit]:
        return nothing("; ".join(unfit))
    if not len(yes) or not len(no):
        return nothing("no flipped test image")
    every = {n: evaluation.interval(evaluation.auroc(n, "success", NOISE)) for n in detectors}
    parts = [verdict_of_range(low, high, least=0, most=LIMIT) for _, low, high in every.values()]
    detail = ", ".join(f"{name} {as_text(*values)}" for name, values in every.items())
    turned = [name for name, (_, _, high) in every.items() if high < 1 - LIMIT]
    if turned:
        detail += f"; with its sign turned, {' and '.join(turned)} would separate them"
    return worst(list(every.values()), parts, f"{len(yes)} flipped test images; {detail}")


def judge_keeping(evaluations: Evaluations) -> pd.DataFrame:
    """Returns the finding of a cell whose attack keeps the maps, with `FINDING_COLUMNS`."""
    finding = drift_does_not_separate(evaluations)
    images = evaluations.whole.weights.shape[1]
    finding = finding.with_images_needed(images, LIMIT)
    return pd.DataFrame([row(KEEPING, finding, images)], columns=FINDING_COLUMNS)


def keeping_doubts(evaluations: Evaluations) -> pd.DataFrame:
    """Returns a flag if E3 rests on few images, with the columns of `cell_flags`."""
    count = len(evaluations.whole.members("success", NOISE)[0])
    rows = few("flipped test images under map-keeping", count, KEEPING)
    return pd.DataFrame(rows, columns=DOUBTS)

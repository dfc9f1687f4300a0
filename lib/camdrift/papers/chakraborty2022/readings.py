"""Readings: each claim as it is decided, and beside it as other ways to judge it have it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from camdrift.analysis.tables import rounded
from camdrift.papers.chakraborty2022.claims import ON_CLASSES, ON_MAPS
from camdrift.papers.chakraborty2022.comparison import Comparison
from camdrift.papers.chakraborty2022.equivalence import equivalences
from camdrift.papers.chakraborty2022.flags import FEW
from camdrift.papers.chakraborty2022.floor import can_lose
from camdrift.papers.chakraborty2022.reading import Reading, map_readings
from camdrift.papers.chakraborty2022.verdicts import (
    BEYOND,
    BY_CLASSES,
    on_maps,
    preprocessing_helps,
)
from camdrift.papers.findings import NOT_RUN, UNDECIDED, Finding
from camdrift.settings import FlagSettings
from camdrift.storage import TRANSFERRED, TRANSFERRED_NOISE

# Image sets on which readings were seen before they were named as such: there they decide nothing.
SEEN = frozenset({"photos", "orl"})
DECIDES, BESIDE, BESIDE_SEEN = "decides", "beside", "beside, seen"
# The readings of D7.
UNDER = {
    TRANSFERRED: "under the transferred attack",
    TRANSFERRED_NOISE: "under noise of its size",
    BEYOND: BEYOND,
}
READING_COLUMNS = ("claim", "reading", "network", "value", "low", "high", "verdict", "images",
                   "standing", "detail")  # fmt: skip
Row = tuple[str, str, Finding, str]  # reading, network, what it says, how it stands


def table(comparison: Comparison, limits: FlagSettings) -> pd.DataFrame:
    """Returns every claim as all its readings have it: a row a reading, `READING_COLUMNS`.

    `network` is 'all', or for D8 also each; `images` the least number behind a mean, 0 without a
    value; `standing` whether the reading decides, stands beside, or stands beside and was seen on
    these images before it was named. As everywhere, nothing is decided with too many empty maps,
    unless they are taken as blank. Claims that were not run have no row.
    """
    rows = []
    for claim in sorted([*ON_CLASSES, *ON_MAPS]):
        readings = _readings(comparison, claim, limits)
        rows += [
            (claim, name, network, f.value, f.low, f.high, f.verdict,
             0 if np.isnan(f.value) else f.images, stands, f.detail)
            for name, network, f, stands in readings
            if f.verdict != NOT_RUN
        ]  # fmt: skip
    return rounded(pd.DataFrame(rows, columns=list(READING_COLUMNS)))


def _readings(comparison: Comparison, claim: str, limits: FlagSettings) -> Iterator[Row]:
    count, beside = len(comparison.images), standing(comparison)
    if claim == "D7":
        for under, name in UNDER.items():
            finding = replace(preprocessing_helps(comparison, under), images=count)
            yield name, "all", finding, DECIDES if under == TRANSFERRED else beside
    elif claim in ON_CLASSES:
        kind = TRANSFERRED if claim == "D2" else TRANSFERRED_NOISE
        off = can_lose(comparison, kind)
        last = len(comparison.plan.eps) - 1
        for place in reversed(range(last + 1)):
            finding = replace(BY_CLASSES[claim](comparison, place), images=count)
            names = comparison.networks()
            judged = [i for i, name in enumerate(names) if name != comparison.plan.transferred]
            at_floor = int((~off[judged, place]).sum())
            name = f"eps {comparison.plan.eps[place]:g}, {at_floor} of {len(judged)} at the floor"
            yield name, "all", finding, DECIDES if place == last else beside
    else:
        for i, reading in enumerate(map_readings(claim, comparison.plan.explains, least=FEW)):
            stands = beside if i else DECIDES
            finding = on_maps(comparison, claim, reading, limits)
            images = finding.images or pairs_behind(comparison, reading)
            yield reading.name, "all", replace(finding, images=images), stands
            if claim == "D8" and not reading.blank:
                for network, part in equivalences(comparison, reading).items():
                    detail = f"MOD under attack and noise {part.detail}"
                    empty = 1 - (part.images or 0) / count
                    verdict = UNDECIDED if empty > limits.empty_share else part.verdict
                    detail += f"; {empty:.0%} of the pairs have an empty map" if empty else ""
                    one = replace(part, detail=detail, verdict=verdict)
                    yield reading.name, network, one, stands


def standing(comparison: Comparison) -> str:
    """Returns how a reading stands that does not decide: beside, or seen on these sets, too."""
    return BESIDE_SEEN if comparison.sets & SEEN else BESIDE


def pairs_behind(comparison: Comparison, reading: Reading) -> int:
    """Returns the least number of pairs of maps behind a network's MOD at an eps."""
    shift = comparison.shift(reading.explains, blank=reading.blank)[..., comparison.judged]
    return int(np.isfinite(shift).sum(0).min())

"""The judge of tan2023's claim on layers, from the similarity of a cell's maps by layer."""

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.statistics import Resampler
from camdrift.papers.findings import (
    FINDING_COLUMNS,
    HOLDS,
    NOT,
    NOT_RUN,
    UNDECIDED,
    Finding,
    nothing,
)
from camdrift.pipeline import randomness
from camdrift.settings import FlagSettings, StatisticsSettings
from camdrift.storage import ADVERSARIAL, NOISE, Similarities

CLAIM = "B6"
LAYER = "5-1"  # as labels of layers are; the paper's block5_conv1


def switch_table(
    cell: str,
    similarities: Similarities,
    settings: StatisticsSettings,
    flags: FlagSettings,
    *,
    seed: int,
) -> pd.DataFrame:
    """Returns the finding of each protocol of a cell on B6: one row each, `FINDING_COLUMNS`."""
    successes = int(similarities.images["success"].sum())
    rows = []
    for protocol, floors in similarities.floors.groupby("protocol", sort=False):
        finding = nothing("no successful adversarial")
        if successes:
            floor = floors.set_index("layer")["floor"]
            values = similarities.values[similarities.values["protocol"] == protocol]
            layers = len(floor)
            draws = _resampler(cell, similarities.images, settings, layers=layers, seed=seed)
            finding = most_sensitive(values, floor, draws, settings, flags)
        rows.append((protocol, CLAIM, finding.value, finding.low, finding.high, finding.verdict,
                     successes, finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def _resampler(
    cell: str, images: pd.DataFrame, settings: StatisticsSettings, *, layers: int, seed: int
) -> Resampler:
    """Returns the draws of the layer study's claims on the same images."""
    count = statistics.required_resamples(
        settings.resamples, comparisons=3 * layers, confidence=settings.confidence
    )
    sources = images["source"][images["success"]].to_numpy()
    rng = randomness.generator(seed, "claims", cell, 1)
    return Resampler.draw(sources, resamples=count, rng=rng)


def most_sensitive(
    values: pd.DataFrame,
    floor: pd.Series,
    draws: Resampler,
    settings: StatisticsSettings,
    flags: FlagSettings,
) -> Finding:
    """Judges B6: whether 5-1 is the least similar layer above its floor, under both arms.

    The value is the share of resamples in which it is the least under attack and under noise.

    Args:
        values: of one protocol, as `Similarities` has them.
        floor: of unrelated clean images, by layer in forward order.
        draws: of the images' sources.
        settings: for the confidence.
        flags: for the largest share of empty maps.
    """
    layers = list(floor.index)
    if LAYER not in layers:
        return nothing(f"the model has no layer {LAYER}", NOT_RUN)
    lowest, floors, place = [], floor.to_numpy(), layers.index(LAYER)
    for arm in (ADVERSARIAL, NOISE):
        wide = values.pivot(index="image", columns="layer", values=arm)[layers].to_numpy()
        mask = (np.isnan(wide).mean(0) <= flags.empty_share) & ~np.isnan(floors)
        if not mask[place]:
            return nothing(f"too many empty maps in {LAYER}")
        normalised = (draws.means(wide) - floors) / (1 - floors)
        lowest.append(np.where(mask, normalised, np.inf).argmin(1) == place)
    shares = [float(part.mean()) for part in lowest]
    both = float((lowest[0] & lowest[1]).mean())
    tails = (1 - settings.confidence) / 2
    verdict = HOLDS if both >= 1 - tails else NOT if both <= tails else UNDECIDED
    detail = f"the least similar in {shares[0]:.0%} (attack), {shares[1]:.0%} (noise) of resamples"
    return Finding(both, np.nan, np.nan, verdict, detail)

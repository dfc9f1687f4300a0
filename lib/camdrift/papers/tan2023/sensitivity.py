"""The judge of tan2023's claim on layers, from the similarity of a cell's maps by layer."""

from collections.abc import Mapping, Sequence

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
from camdrift.settings import FlagSettings, Protocol, StatisticsSettings
from camdrift.storage import ADVERSARIAL, NOISE, UNRELATED, Similarities

CLAIM = "B6"
LAYER = "5-1"  # as labels of layers are; the paper's block5_conv1


def switch_table(
    cell: str,
    similarities: Similarities,
    protocols: Mapping[str, Protocol],
    settings: StatisticsSettings,
    flags: FlagSettings,
    *,
    seed: int,
) -> pd.DataFrame:
    """Returns the finding of each protocol of a cell on B6: a row each, `FINDING_COLUMNS`."""
    values, images = similarities.values, similarities.images
    layers = list(values["layer"].unique())
    flipped = images[images["success"]]
    # The draws of the layer study's claims on the same images.
    count = statistics.required_resamples(
        settings.resamples, comparisons=3 * len(layers), confidence=settings.confidence
    )
    rng = randomness.generator(seed, "claims", cell, 1)
    draws = Resampler.draw(flipped["source"].to_numpy(), resamples=count, rng=rng)
    rows = []
    for name, protocol in protocols.items():
        mine = (values["reading"] == protocol.reading) & (values["target"] == protocol.target)
        by_variant = dict(list(values[mine].groupby("variant", observed=True)))
        finding = nothing("no successful adversarial")
        if len(flipped):
            floor = by_variant[UNRELATED].groupby("layer", observed=True)["value"].mean()
            arms = [
                by_variant[arm][by_variant[arm]["image"].isin(flipped["image"])]
                .pivot(index="image", columns="layer", values="value")[layers].to_numpy()
                for arm in (ADVERSARIAL, NOISE)
            ]  # fmt: skip
            finding = most_sensitive(arms, floor.reindex(layers), draws, settings, flags)
        rows.append((name, CLAIM, finding.value, finding.low, finding.high, finding.verdict,
                     len(flipped), finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def most_sensitive(
    arms: Sequence[np.ndarray],
    floor: pd.Series,
    draws: Resampler,
    settings: StatisticsSettings,
    flags: FlagSettings,
) -> Finding:
    """Judges B6: whether 5-1 is the least similar layer above its floor, under both arms.

    The value is the share of resamples in which it is the least under attack and under noise.

    Args:
        arms: similarity under the attack and under noise: (images, layers) each.
        floor: of unrelated clean images, by layer in forward order.
        draws: of the images' sources.
        settings: for the confidence.
        flags: for the largest share of empty maps.
    """
    if LAYER not in floor.index:
        return nothing(f"the model has no layer {LAYER}", NOT_RUN)
    lowest, floors, place = [], floor.to_numpy(dtype=float), list(floor.index).index(LAYER)
    for values in arms:
        mask = (np.isnan(values).mean(0) <= flags.empty_share) & ~np.isnan(floors)
        if not mask[place]:
            return nothing(f"too many empty maps in {LAYER}")
        normalised = (draws.means(values) - floors) / (1 - floors)
        lowest.append(np.where(mask, normalised, np.inf).argmin(1) == place)
    shares = [float(part.mean()) for part in lowest]
    both = float((lowest[0] & lowest[1]).mean())
    tails = (1 - settings.confidence) / 2
    verdict = HOLDS if both >= 1 - tails else NOT if both <= tails else UNDECIDED
    detail = f"the least similar in {shares[0]:.0%} (attack), {shares[1]:.0%} (noise) of resamples"
    return Finding(both, np.nan, np.nan, verdict, detail)

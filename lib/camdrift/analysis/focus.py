"""Whether maps move to where the perturbation is: means over images, by layer."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from camdrift.analysis.layers import decided_layers, estimate, with_mean
from camdrift.analysis.results import Results
from camdrift.scores.movement import ARMS
from camdrift.settings import FlagSettings, Protocol, StatisticsSettings
from camdrift.storage import OWN, SEED

COLUMNS = ["difference", "target", "layer", "images", "n", "r_attack", "r_noise", "r_floor",
           "over_noise", "low", "high", "over_floor", "floor_low", "floor_high"]  # fmt: skip


@dataclass(frozen=True)
class Focus:
    """Correlations of maps' differences and perturbations' energies, see `scores.movement`.

    Each is (images, layers), of the images that the attack flips.
    """

    attack: np.ndarray
    noise: np.ndarray
    floor: np.ndarray


def correlations(results: Results, protocol: Protocol) -> dict[str, Focus]:
    """Returns the correlations under a protocol by kind of difference, `MOVE` and `SIZE`."""
    key = protocol.recipe, protocol.score, protocol.target
    if key not in results.focus:
        results.focus[key] = _correlations(results, protocol)
    return results.focus[key]


def _correlations(results: Results, protocol: Protocol) -> dict[str, Focus]:
    rows = results.moves
    rows = rows[
        (rows["recipe"] == protocol.recipe)
        & (rows["score"] == protocol.score)
        & (rows["target"] == protocol.target)
    ]
    images = results.images["image"][results.images["success"]]
    kinds = {}
    for kind, part in rows.groupby("difference", observed=True, sort=False):
        arms = []
        for name in ARMS:
            wide = part.pivot(index="image", columns="layer", values=name)
            arms.append(wide.loc[images, results.layers].to_numpy(dtype=float))
        kinds[str(kind)] = Focus(*arms)
    return kinds


def table(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the mean correlations of the images that the attack flips, by layer.

    Under the first protocol, for both target policies. Columns: `difference` ('signed' or its
    'size'), `target, layer, images, n` (with all three correlations), `r_attack, r_noise, r_floor`
    (means, see `Focus`), `over_noise, low, high` (attack minus noise) and `over_floor, floor_low,
    floor_high` (attack minus floor), paired by image. 'mean' averages over the layers that few
    images lack.
    """
    success = results.images["success"].to_numpy()
    images = results.images["image"][success]
    tables = []
    for target in (OWN, SEED) if success.any() else ():
        protocol = results.first.model_copy(update={"target": target})
        for kind, focus in correlations(results, protocol).items():
            arms = [
                pd.DataFrame(arm, columns=results.layers)
                for arm in (focus.attack, focus.noise, focus.floor)
            ]
            known = np.logical_and.reduce([arm.notna() for arm in arms])
            arms = [arm.where(known) for arm in arms]
            decided = decided_layers(arms, flags)
            columns = [
                with_mean(part, decided, decided)
                for part in (*arms, arms[0] - arms[1], arms[0] - arms[2])
            ]
            means, low, high = (
                part.reshape(len(columns), -1)
                for part in estimate(results, images, np.hstack(columns), settings, seed, "focus")
            )
            facts = (kind, target, [*results.layers, "mean"], len(images),
                     np.isfinite(columns[0]).sum(0), *means[:4], low[3], high[3], means[4],
                     low[4], high[4])  # fmt: skip
            tables.append(pd.DataFrame(dict(zip(COLUMNS, facts, strict=True))))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)

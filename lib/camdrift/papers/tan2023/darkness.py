"""Darkness of NoiseCAM's maps: how many have no cluster, and how much relevance they hold."""

import numpy as np
import pandas as pd

from camdrift.detectors import noisecam
from camdrift.evaluation.evaluation import Evaluation
from camdrift.storage import CLEAN, NOISE

Row = dict[str, float | int | str]


def raw_masses(
    evaluation: Evaluation, reading: str, places: np.ndarray
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns how dark NoiseCAM's maps are before they are normalised, for some test rows.

    Returns:
        Their mean mass over that of successes, and the share of maps with less than a tenth of the
        successes' mean mass, each with its interval.
    """
    successes, _ = evaluation.members("success", "both")
    mass = evaluation.test[f"raw_mass_{reading}"].to_numpy(dtype=float)
    relative = evaluation.rate(mass, places) / evaluation.rate(mass, successes)
    dark = mass < mass[successes].mean() / 10
    return evaluation.interval(relative), evaluation.share(dark, places)


def blankness(evaluation: Evaluation) -> pd.DataFrame:
    """Returns the darkness of NoiseCAM's maps: a row for each reading and kind of test images.

    Columns: `reading, kind, images, without_clusters` (at the chosen brightness), with `low` and
    `high`; `mass`, mean of the normalised map; `relative_mass`, divided by that of successes. A map
    that is divided by its own maximum has bright pixels whatever its size, so the others are of
    maps as they are: `relative_raw_mass`, with `raw_low` and `raw_high`; `relative_raw_median`, of
    the medians; `dark`, share of maps with less than a tenth of the successes' mean mass, with
    `dark_low` and `dark_high`.
    """
    rows: list[Row] = []
    test = evaluation.test
    successes, _ = evaluation.members("success", "both")
    for name in noisecam.NAMES:
        if name not in evaluation.scores:
            continue
        reading = name.removeprefix("noisecam_")
        masses = test.groupby("kind")[f"mass_{reading}"].mean()
        medians = test.groupby("kind")[f"raw_mass_{reading}"].median()
        for kind in (CLEAN, NOISE, "success", "failure"):
            places = np.flatnonzero(test["kind"] == kind)
            if not len(places):
                continue
            row: Row = {"reading": reading, "kind": kind, "images": len(places),
                        "mass": masses[kind],
                        "relative_mass": masses[kind] / masses.get("success", np.nan)}  # fmt: skip
            blank = evaluation.share(evaluation.scores[name] == 0, places)
            row |= dict(zip(("without_clusters", "low", "high"), blank, strict=True))
            if len(successes):
                relative, dark = raw_masses(evaluation, reading, places)
                row |= dict(
                    zip(("relative_raw_mass", "raw_low", "raw_high"), relative, strict=True)
                )
                row["relative_raw_median"] = medians[kind] / medians["success"]
                row |= dict(zip(("dark", "dark_low", "dark_high"), dark, strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=BLANK)


BLANK = ["reading", "kind", "images", "mass", "relative_mass", "without_clusters", "low", "high",
         "relative_raw_mass", "raw_low", "raw_high", "relative_raw_median", "dark", "dark_low",
         "dark_high"]  # fmt: skip

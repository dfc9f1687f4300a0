"""The tables of attacks on maps: drift by attack and control, flipped or not, of one size."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from camdrift.analysis import tables as analysis
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.layers import decided_layers, estimate, with_mean
from camdrift.analysis.results import Results
from camdrift.papers.zhang2020 import verdicts
from camdrift.settings import FlagSettings, StatisticsSettings
from camdrift.storage import ABOVE, ADVERSARIAL, BELOW, NOTHING, RAISED, UNRELATED

OF_OTHER_SIZE = (ABOVE, BELOW, RAISED, NOTHING, UNRELATED)
DRIFT = ["cell", "arm", "target", "group", "layer", "images", "n", "drift", "low", "high",
         "flipped"]  # fmt: skip
BY_LAYER = ["claim", "target", "layer", "images", "n", "value", "low", "high"]

# The content of a study's tables, one line each.
OWN_ABOUT = {
    "drift": "drift at strength 1 by cell, arm (attack, noise, controls), class explained, group "
    "and layer; `flipped` is the arm's share of flipped images",
    "by_layer": "the statistic of each claim, layer by layer",
    "claims": "the claims: statistic, threshold, value, verdict",
}
TABLES = ("attacks", "drift", "by_layer", "noise", "similarity", "excess", "controls", "flags",
          "switches", "readings", "claims")  # fmt: skip
ABOUT = {name: (analysis.ABOUT | OWN_ABOUT)[name] for name in TABLES}


def drift(
    cells: Mapping[str, Results], settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns how far maps drift at strength 1 under each cell's attack, noise and controls.

    Drift is 1 minus the cosine similarity to the clean map. Groups: all images, those whose class
    the arm flips, and the others. A layer of which a group has too many empty maps is not decided:
    its numbers are missing. 'mean' averages over the layers that are decided on all images under
    every arm of every cell of the same model, for both classes explained, so that means compare.
    Columns: `DRIFT`; `flipped` is a share of all images.
    """
    arms = {(cell, *key): wide for cell, of in cells.items() for key, wide in _arms(of)}
    tables = []
    for (cell, arm, target), wide in arms.items():
        results = cells[cell]
        alike = [key for key, of in cells.items() if of.cell.model == results.cell.model]
        common = decided_layers([arms[key] for key in arms if key[0] in alike], flags)
        flipped = results.flipped.loc[results.first.recipe, arm, 1.0, 0].loc[wide.index]
        groups = {"all": flipped.notna(), "flipped": flipped, "not flipped": ~flipped}
        for group, member in groups.items():
            part = wide[member.to_numpy(dtype=bool)]
            if not len(part):
                continue
            columns = with_mean(part, common, decided_layers([part], flags))
            means, low, high = estimate(results, part.index, columns, settings, seed, "drift")
            facts = {"cell": cell, "arm": arm, "target": target, "group": group}
            tables.append(pd.DataFrame(facts | {
                "layer": [*results.layers, "mean"], "images": len(part),
                "n": np.isfinite(columns).sum(0), "drift": means, "low": low, "high": high,
                "flipped": flipped.mean(),
            }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)[DRIFT]


def _arms(results: Results) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """Yields variant and target, with drift at strength 1: (images, layers)."""
    scores = results.scores
    rows = scores[
        (scores["reading"] == results.first.reading) & (scores["score"] == "cosine")
        & (scores["strength"] == 1) & (scores["draw"] == 0)
        & ~scores["variant"].isin(OF_OTHER_SIZE)
    ]  # fmt: skip
    for key, part in rows.groupby(["variant", "target"], observed=True):
        if results.cell.attack != "none" or key[0] == ADVERSARIAL:
            wide = part.pivot(index="image", columns="layer", values="value")
            yield key, 1 - wide[results.layers]


def by_layer(evidence: Evidence, other: Evidence | None) -> pd.DataFrame:
    """Returns the statistic of the cell's claim in each layer, for each class explained.

    NaN where a layer is not decided. Columns: `BY_LAYER`; no row for an attack without a claim.

    Args:
        evidence: of the cell.
        other: of the cell within whose size its attack is, if any.
    """
    trial = verdicts.TRIALS.get(evidence.results.cell.attack)
    if trial is None:
        return pd.DataFrame(columns=BY_LAYER)
    tables = []
    for target in analysis.TARGETS:
        protocol = evidence.protocol.model_copy(update={"target": target})
        rows = trial.measure(replace(evidence, protocol=protocol), other)
        means = rows.estimate(np.where(rows.decided, rows.values, np.nan))
        facts = {"claim": trial.claim, "target": target, "layer": evidence.layers}
        tables.append(pd.DataFrame(facts | {
            "images": len(rows.images), "n": means.n, "value": means.mean, "low": means.low,
            "high": means.high,
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)

"""Compromised layers: those whose maps resemble the clean one less than a rule's threshold."""

import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.results import GROUPS, Results
from camdrift.settings import Protocol, StatisticsSettings

RULES = ("layer_median", "global_mean", "held_out_quantile")
PAPERS_RULE = "layer_median"


def compromised_layers(
    results: Results,
    target: str,
    rule: str,
    settings: StatisticsSettings,
    protocol: Protocol | None = None,
    *,
    images: pd.Series | None = None,
) -> pd.DataFrame:
    """Returns `statistics.compromised` of a cell under a protocol, the first unless named.

    Of all images, or of those named, which then set the thresholds, too.
    """
    rows = results.scores
    rows = rows if images is None else rows[rows["image"].isin(images)]
    reading = (protocol or results.first).reading
    rows = rows[
        (rows["reading"] == reading) & (rows["score"] == "cosine") & (rows["target"] == target)
    ]
    return statistics.compromised(rows, rule=rule, quantile=settings.quantile)


def compromised(rule: pd.DataFrame) -> pd.DataFrame:
    """Returns the share of compromised maps by `target, group, arm, strength, layer`, and `n`.

    Groups of the noise are those of the same images under attack.
    """
    return _by_group(rule, ["target", "arm", "strength", "layer"])


def counts(rule: pd.DataFrame) -> pd.DataFrame:
    """Returns the share of images by number of compromised layers, from 0 to all.

    Of images none of whose maps is empty at that strength: a layer whose map is empty can be
    called neither compromised nor not. `n` is their number.
    """
    if rule.empty:
        return pd.DataFrame(columns=["target", "group", "arm", "strength", "layers", "share", "n"])
    layers = rule["layer"].nunique()
    size = rule.groupby(["target", "arm", "strength", "image"], observed=True)["layer"].transform(
        "size"
    )
    rule = rule[size == layers]
    keys = ["target", "arm", "strength"]
    totals = rule.groupby([*keys, "image", "success"], observed=True)["compromised"].sum()
    totals = totals.reset_index(name="layers")
    tables = []
    for group, kinds in GROUPS.items():
        rows = totals[totals["success"].isin(kinds)]
        if rows.empty:
            continue
        numbers = rows.groupby([*keys, "layers"], observed=True).size().unstack(fill_value=0)
        numbers = numbers.reindex(columns=range(layers + 1), fill_value=0)
        images = numbers.sum(axis=1)
        shares = numbers.div(images, axis=0).stack().rename("share").reset_index()
        shares["n"] = images.repeat(layers + 1).to_numpy()
        shares.insert(1, "group", group)
        tables.append(shares)
    return pd.concat(tables, ignore_index=True)


def _by_group(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    tables = []
    for group, kinds in GROUPS.items():
        part = rows[rows["success"].isin(kinds)]
        if part.empty:
            continue
        shares = part.groupby(keys, observed=True, sort=False)["compromised"].agg(["mean", "size"])
        shares = shares.rename(columns={"mean": "share", "size": "n"}).reset_index()
        shares.insert(1, "group", group)
        tables.append(shares)
    if not tables:
        return pd.DataFrame(columns=[keys[0], "group", *keys[1:], "share", "n"])
    return pd.concat(tables, ignore_index=True)

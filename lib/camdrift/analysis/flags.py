"""Validity flags: conditions that limit the validity of a cell's numbers.

They follow AutoAttack's flags (Croce & Hein 2020, arXiv 2003.01690): each names the measured value,
the limit, and the claims affected.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from camdrift.analysis.results import Results, Tables
from camdrift.datasets import chance
from camdrift.settings import FlagSettings, StatisticsSettings
from camdrift.storage import NOISE

DRIFT = ("A1", "A1f", "A1n", "A1p", "A1s", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A16", "A18")
RULE = ("A9", "A10", "A11", "A12")
EVERY = (*DRIFT, *RULE, "A13", "A14", "A15", "A17")

Flag = tuple[str, float, float, tuple[str, ...], str]

AT_CHANCE = "accuracy at chance"
FEW_SUCCESSES, FEW_OTHERS, BY_CLIPPING = "few successes", "few not flipped", "only by clipping"
NOISE_FLIPS, NOISE_SIZE = "noise flips", "noise size"
OF_FLIPS, OF_NOISE = (FEW_SUCCESSES, BY_CLIPPING), (NOISE_FLIPS, NOISE_SIZE)
EVERYWHERE = ""  # a flag that touches its claims under every protocol


def cell_flags(
    results: Results, tables: Tables, limits: FlagSettings, statistics: StatisticsSettings
) -> pd.DataFrame:
    """Returns the flags that are raised: `flag, value, limit, touches, protocols, text`.

    `touches` are the ids of claims, `protocols` the names of those under which it touches them,
    empty for all.

    Args:
        results: of the cell.
        tables: its tables, `excess` and `noise` among them.
        limits: of the flags.
        statistics: for the interval's confidence.
    """
    attack_flags = _attack_flags(results, limits) if results.cell.attack != "none" else iter(())
    rows = [*attack_flags, *_noise_and_map_flags(results, tables, limits, statistics)]
    table = pd.DataFrame(rows, columns=["flag", "value", "limit", "touches", "text"])
    table["touches"] = [" ".join(ids) for ids in table["touches"]]
    protocols = _self_judging_protocols(results)
    self_judged = table["flag"] == "threshold on test data"
    table.insert(
        4, "protocols", [" ".join(protocols) if flag else EVERYWHERE for flag in self_judged]
    )
    return table


def _attack_flags(results: Results, limits: FlagSettings) -> Iterator[Flag]:
    images = results.images
    right, labels = images["clean"] == images["label"], images["label"].to_numpy()
    text = chance.warning(int(right.sum()), labels)
    if text:
        yield AT_CHANCE, right.mean(), chance.level(labels), EVERY, text
    successes = int(images["success"].sum())
    if successes < limits.minimum_successes:
        text = f"only {successes} successful adversarials, wanted {limits.minimum_successes}"
        yield FEW_SUCCESSES, successes, limits.minimum_successes, (*DRIFT, *RULE), text
    others = len(images) - successes
    if others < limits.minimum_images:
        text = f"only {others} images that the attack does not flip, wanted {limits.minimum_images}"
        yield FEW_OTHERS, others, limits.minimum_images, ("A1f",), text
    share = images["zero_gradient"].mean()
    if share > limits.zero_gradients:
        text = f"gradients masked: the loss has none at {share:.1%} of the clean images"
        yield "gradients masked", share, limits.zero_gradients, EVERY, text
    share = images["probabilities"].mean()
    if share == 1:
        text = "the model returns probabilities, not logits: gradients pass a softmax"
        yield "softmax fed", share, 1.0, EVERY, text
    if successes:
        successful = images[images["success"]]
        share = (successful["unclipped"] == successful["clean"]).mean()
        if share > limits.clipped_only:
            text = f"{share:.1%} of the successes are there only when clipped to [0, 1]"
            yield BY_CLIPPING, share, limits.clipped_only, DRIFT, text


def _noise_and_map_flags(
    results: Results, tables: Tables, limits: FlagSettings, statistics: StatisticsSettings
) -> Iterator[Flag]:
    share = results.flipped.loc[results.first.recipe, NOISE, 1.0, 0].mean()
    if share > limits.noise_flips:
        text = f"matched noise flips the class of {share:.1%} of the images, too"
        yield NOISE_FLIPS, share, limits.noise_flips, (*DRIFT, *RULE), text
    fit = tables["noise"]
    difference = fit.loc[fit["recipe"] == results.first.recipe, "largest_l2_difference"].max()
    if difference > limits.size_difference:
        most = limits.size_difference
        text = f"the noise's L2 norm is off by up to {difference:.1%}, wanted {most:.0%}"
        yield NOISE_SIZE, difference, most, (*DRIFT, *RULE), text
    rows = tables["excess"]
    rows = rows[(rows["strength"] == 1) & (rows["layer"] != "mean") & ~rows["decided"].astype(bool)]
    if len(rows):
        layers = ", ".join(rows["layer"].unique())
        text = f"too many empty maps to decide layers {layers} in at least one group"
        share = rows["empty_share"].max()
        yield "empty maps", share, limits.empty_share, (*DRIFT, *RULE), text
    sources = results.images["source"].nunique()
    if sources < limits.minimum_sources:
        text = (
            f"{sources} sources, too few for an interval of {statistics.confidence:.0%} "
            f"(wanted {limits.minimum_sources})"
        )
        yield "few sources", sources, limits.minimum_sources, EVERY, text
    protocols = _self_judging_protocols(results)
    if protocols and results.cell.attack != "none":
        every = len(protocols) == len(results.protocols)
        under = "every protocol" if every else ", ".join(protocols)
        text = (
            f"threshold of compromise set by noise on the images that it judges, under {under}; "
            "touches A9 to A12 there"
        )
        yield "threshold on test data", np.nan, np.nan, RULE, text


def _self_judging_protocols(results: Results) -> list[str]:
    return [n for n, p in results.protocols.items() if p.threshold != "held_out_quantile"]


def texts(tables: Tables, cell: str) -> list[str]:
    """Returns the texts of a cell's flags, from a study's tables; none where there is no table."""
    if "flags" not in tables:
        return []
    table = tables["flags"]
    return list(table.loc[table["cell"] == cell, "text"])


def by_claim(table: pd.DataFrame, protocol: str) -> dict[str, str]:
    """Returns the names of flags under a protocol, by the id of the claim affected."""
    flags: dict[str, list[str]] = {}
    for row in table.itertuples():
        if row.protocols == EVERYWHERE or protocol in str(row.protocols).split():
            for claim in str(row.touches).split():
                flags.setdefault(claim, []).append(str(row.flag))
    return {claim: ", ".join(dict.fromkeys(names)) for claim, names in flags.items()}

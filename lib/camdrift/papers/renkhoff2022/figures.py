"""Figures of a study's layers.

A function is named as its figure: `figure_5a` draws `renkhoff_figure_5a`, which imitates the
paper's; the others are the study's own.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from camdrift.analysis.compromise import PAPERS_RULE
from camdrift.analysis.drawing import Figure, percent
from camdrift.analysis.results import Example, Tables
from camdrift.analysis.sheets import maps_of

# Title and caption of the figures that hold pictures, which tables do not.
PICTURES = {
    "renkhoff_figure_3": (
        "Grad-CAM of one attacked image at every conv layer",
        "The image itself on the left, then its map at each layer, from input to output. Bright "
        "places support the predicted class. Each map is divided by its own maximum. Rows: the "
        "clean image, the adversarial image, and the image with noise of the same size.",
    ),
}


def by_name(tables: Tables, cell: str) -> dict[str, Callable[[], Figure]]:
    """Returns a function for each figure that needs tables alone, by the figure's name."""
    own: dict[str, Callable[[], Figure]] = {
        "drift_by_arm_own_class": partial(drift_by_arm, tables, cell, "own_top1"),
        "drift_by_arm_clean_class": partial(drift_by_arm, tables, cell, "seed_class"),
    }
    if "boundary" in tables:  # results of earlier revisions have none
        own["drift_at_boundary"] = partial(drift_at_boundary, tables, cell)
    return own | {
        "excess_by_strength": partial(excess_by_strength, tables, cell),
        "excess_by_layer": partial(excess_by_layer, tables, cell),
        "excess_by_method": partial(excess_by_method, tables, cell),
        "renkhoff_figure_2a": partial(figure_2a, tables, cell),
        "renkhoff_figure_2b": partial(figure_2b, tables, cell),
        "renkhoff_figure_4a": partial(figure_4a, tables, cell),
        "renkhoff_figure_4b": partial(figure_4b, tables, cell),
        "renkhoff_figure_5a": partial(figure_5a, tables, cell),
        "renkhoff_figure_5a_as_published": partial(figure_5a_as_published, tables, cell),
        "renkhoff_figure_5b": partial(figure_5b, tables, cell),
        "renkhoff_figure_6": partial(figure_6, tables, cell),
        "renkhoff_figure_7": partial(figure_7, tables, cell),
    }


def drift_by_arm(tables: Tables, cell: str, target: str) -> Figure:
    """Returns the study's central figure: drift by attack or noise x flipped or not."""
    rows = tables["factorial"].query("cell == @cell and target == @target and layer != 'mean'")
    series = {
        ("attack", True): "attack, class flipped",
        ("noise", True): "noise, raised until the class flips",
        ("attack", False): "attack, not flipped",
        ("noise", False): "noise of the same size, not flipped",
    }
    parts = []
    for (arm, flipped), name in series.items():
        part = rows[(rows["arm"] == arm) & (rows["flipped"].astype(bool) == flipped)]
        part = part.rename(columns={"layer": "x", "mean": "y"}).assign(series=name)
        parts.append(part[["series", "x", "y", "low", "high"]])
    seeds = int(rows["images"].max()) if len(rows) else 0
    policy = {
        "own_top1": "each map for its image's own class",
        "seed_class": "every map for the clean image's class",
    }[target]
    return Figure(
        "drift_by_arm_own_class" if target == "own_top1" else "drift_by_arm_clean_class",
        f"Drift by attack or noise, class flipped or not: {policy} ({cell})",
        f"1 minus the cosine similarity to the clean map, on the same {seeds} images for all four "
        "lines. The lines show each image under the attack at the lowest strength that flips its "
        "class, under the attack at the next lower strength, under noise of that lower size, and "
        "under noise raised until it also flips the class, which makes the noise several times as "
        "large. Bars are bootstrap intervals, resampled by source picture. A layer with too many "
        "empty maps is left out.",
        "lines",
        pd.concat(parts, ignore_index=True),
        "layer (block-conv, or block), input to output",
        "drift (1 - cosine)",
        (0.0, 1.02),
    )


def drift_at_boundary(tables: Tables, cell: str) -> Figure:
    """Returns drift by the attack just too weak and just strong enough to flip the class."""
    rows = tables["boundary"].query("cell == @cell and layer != 'mean'")
    series = {
        ("own_top1", "above"): "just flipped, each map for its own class",
        ("seed_class", "above"): "just flipped, every map for the clean image's class",
        ("seed_class", "below"): "just not flipped (its class is the clean image's)",
    }
    parts = [
        rows[rows["target"] == target].assign(series=name).rename(columns={"layer": "x", side: "y"})
        for (target, side), name in series.items()
    ]
    table = pd.concat([part[["series", "x", "y"]] for part in parts], ignore_index=True)
    images, step = (rows[column].max() if len(rows) else 0 for column in ("images", "step"))
    return Figure(
        "drift_at_boundary",
        f"Drift just below and just above the change of class ({cell})",
        f"1 minus the cosine similarity to the clean map, on the same {int(images)} images, under "
        "the same attack at two sizes: the smaller does not change the class, the larger, by "
        f"{step:.1%} on average, does. The two lines for the clean image's class lie upon one "
        "another, since such maps change continuously; that for each image's own class lies above "
        "them by the change of class alone. A layer with too many empty maps is left out.",
        "lines",
        table,
        "layer (block-conv, or block), input to output",
        "drift (1 - cosine)",
        (0.0, 1.02),
    )


def excess_by_strength(tables: Tables, cell: str) -> Figure:
    """Returns excess drift by strength: not flipped, flipped for either class."""
    rows = tables["groups"].query("cell == @cell and variant == 'adversarial' and layer == 'mean'")
    names = {
        "flipped_own_class": "class flipped, each map for its own class",
        "flipped_seed_class": "class flipped, both maps for the clean image's class",
        "not_flipped": "class not flipped",
    }
    parts = [rows[rows["group"] == group].assign(series=name) for group, name in names.items()]
    table = pd.concat(parts, ignore_index=True).drop(columns=["low", "high", "mean"])
    table = table.assign(strength=table["strength"].map(percent)).rename(
        columns={"strength": "x", "excess": "y", "excess_low": "low", "excess_high": "high"}
    )
    return Figure(
        "excess_by_strength",
        f"Excess drift by strength, class flipped at that strength or not ({cell})",
        "Cosine similarity to the clean map under noise of the same size minus that under attack, "
        "mean over layers and images; 0 means that the attack moves the maps no further than "
        "noise. Images are sorted into flipped and not flipped at each strength separately. Bars "
        "are bootstrap intervals, resampled by source picture.",
        "lines",
        table[["series", "x", "y", "low", "high"]],
        "strength of the attack, of its perturbation",
        "excess drift (difference of cosine)",
    )


def figure_5a_as_published(tables: Tables, cell: str) -> Figure:
    """Returns figure 5a as the public code would have drawn it, if the cell has that protocol."""
    rows = tables["curves"].query(
        "cell == @cell and protocol == 'as_published' and variant == 'adversarial'"
    )
    table = rows.assign(series=rows["strength"].map(percent)).rename(
        columns={"layer": "x", "mean": "y"}
    )
    return Figure(
        "renkhoff_figure_5a_as_published",
        f"Mean similarity to the clean map by strength, as the public code does it ({cell})",
        "As figure 5a, with all faults of the public code: accumulating strengths, images cut to 8 "
        "bit, jet-coloured maps, softmax for the originals. The paper reports almost identical "
        "curves for 50 and 100 %, and similar ones for 25, 200 and 400 %.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "layer (block-conv, or block), input to output",
        "mean cosine similarity",
        (0.0, 1.02),
    )


def excess_by_layer(tables: Tables, cell: str) -> Figure:
    """Returns excess drift by layer, class flipped or not."""
    series = {
        ("success", "own_top1"): "class flipped, each map for its own class",
        ("success", "seed_class"): "class flipped, both maps for the clean image's class",
        ("failure", "own_top1"): "class not flipped",
    }
    rows = tables["excess"].query("cell == @cell and strength == 1 and layer != 'mean'")
    parts = []
    for (group, target), name in series.items():
        part = rows[(rows["group"] == group) & (rows["target"] == target)]
        part = part.rename(columns={"layer": "x", "mean": "y"}).assign(series=name)
        part.loc[~part["decided"].astype(bool), ["y", "low", "high"]] = np.nan
        parts.append(part[["series", "x", "y", "low", "high"]])
    return Figure(
        "excess_by_layer",
        f"How much further an attack moves the maps than noise of the same size ({cell})",
        "Each point is the cosine similarity under matched noise minus that under attack, averaged "
        "over images; 0 means that the attack moves the map no further than noise. Bars are "
        "bootstrap intervals, resampled by source picture. The first two lines are the same "
        "attacked images: they differ only in the class that the changed map explains. A layer "
        "with too many empty maps is left out.",
        "lines",
        pd.concat(parts, ignore_index=True),
        "layer (block-conv, or block), input to output",
        "excess drift (difference of cosine)",
    )


def excess_by_method(tables: Tables, cell: str) -> Figure:
    """Returns excess drift by layer with the maps of each method, class flipped."""
    rows = tables["methods"].query(
        "cell == @cell and group == 'success' and target == 'seed_class' and layer != 'mean'"
    )
    rows = rows.rename(columns={"method": "series", "layer": "x", "mean": "y"})
    rows.loc[~rows["decided"].astype(bool), ["y", "low", "high"]] = np.nan
    return Figure(
        "excess_by_method",
        f"Whether the method that makes the maps matters ({cell})",
        "Each point is the cosine similarity under matched noise minus that under attack, averaged "
        "over the images whose class the attack flips; all maps explain the clean image's class "
        "and come from the same pass. Above 0 the attack moves the maps further than noise of its "
        "size. Bars are bootstrap intervals, resampled by source picture. A layer with too many "
        "empty maps is left out.",
        "lines",
        rows[["series", "x", "y", "low", "high"]],
        "layer (block-conv, or block), input to output",
        "excess drift (difference of cosine)",
    )


def figure_2a(tables: Tables, cell: str) -> Figure:
    """Returns neuron coverage under attack and under noise, strength 1."""
    rows = tables["coverage"].query("cell == @cell and strength == 1")
    names = {"attack": "attack, 100 %", "noise": "matched noise, 100 %"}
    table = rows.assign(series=rows["arm"].map(names)).rename(
        columns={"seeds": "x", "coverage": "y"}
    )
    return Figure(
        "renkhoff_figure_2a",
        f"Neuron coverage, attack against noise ({cell})",
        "Share of the network's neurons that at least one image so far has covered, when seeds "
        "are added one by one, each with its changed image. The mean over all orders of the seeds.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "seed images",
        f"covered share of {int(rows['neurons'].iloc[0])} neurons",
        (0.0, 1.0),
        log_x=True,
    )


def figure_2b(tables: Tables, cell: str) -> Figure:
    """Returns coverage under attack at each strength."""
    rows = tables["coverage"].query("cell == @cell and arm == 'attack'")
    table = rows.assign(series=rows["strength"].map(percent)).rename(
        columns={"seeds": "x", "coverage": "y"}
    )
    return Figure(
        "renkhoff_figure_2b",
        f"Neuron coverage by strength of the attack ({cell})",
        "As figure 2a, for the attack alone; one line for each multiple of its perturbation.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "seed images",
        f"covered share of {int(rows['neurons'].iloc[0])} neurons",
        (0.0, 1.0),
        log_x=True,
    )


def figure_3(example: Example) -> Figure:
    """Returns the maps of one image, clean, attacked and with noise, layer by layer.

    Of Grad-CAM, not by the paper's equation 4 as printed, see `claims`.
    """
    return maps_of(example, "renkhoff_figure_3", *PICTURES["renkhoff_figure_3"])


def figure_4a(tables: Tables, cell: str) -> Figure:
    """Returns similarity by layer under attack, all strengths pooled."""
    return _boxes(tables, cell, "adversarial", "renkhoff_figure_4a")


def figure_4b(tables: Tables, cell: str) -> Figure:
    """Returns similarity by layer under noise, all strengths pooled."""
    return _boxes(tables, cell, "noise", "renkhoff_figure_4b")


def _boxes(tables: Tables, cell: str, variant: str, name: str) -> Figure:
    rows = _similarity(tables, cell, variant).query("strength == 0")
    table = rows.rename(columns={"layer": "x"}).assign(series=variant)
    return Figure(
        name,
        f"Similarity to the clean map by layer, {_arm(variant)} ({cell})",
        "Cosine similarity of each changed map to the clean map of its image, all strengths "
        "pooled, successfully attacked images, each map for its own top class. Box: quartiles and "
        "median; whiskers: furthest value within 1.5 box lengths.",
        "boxes",
        table[["series", "x", "q1", "median", "q3", "low", "high"]].reset_index(drop=True),
        "layer (block-conv, or block), input to output",
        "cosine similarity",
        (0.0, 1.02),
    )


def figure_5a(tables: Tables, cell: str) -> Figure:
    """Returns mean similarity by layer under attack, one line for each strength."""
    return _lines(tables, cell, "adversarial", "renkhoff_figure_5a")


def figure_5b(tables: Tables, cell: str) -> Figure:
    """Returns mean similarity by layer under noise, one line for each strength."""
    return _lines(tables, cell, "noise", "renkhoff_figure_5b")


def _lines(tables: Tables, cell: str, variant: str, name: str) -> Figure:
    rows = _similarity(tables, cell, variant).query("strength > 0")
    table = rows.rename(columns={"layer": "x", "mean": "y"})
    table["series"] = table["strength"].map(percent)
    return Figure(
        name,
        f"Mean similarity to the clean map by strength, {_arm(variant)} ({cell})",
        "Mean cosine similarity of the changed map to the clean map, successfully attacked images, "
        "each map for its own top class, with one line for each multiple of the perturbation. 1 "
        "means that the map did not move.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "layer (block-conv, or block), input to output",
        "mean cosine similarity",
        (0.0, 1.02),
    )


def _similarity(tables: Tables, cell: str, variant: str) -> pd.DataFrame:
    return tables["similarity"].query(
        "cell == @cell and variant == @variant and score == 'cosine' and group == 'success' "
        "and target == 'own_top1'"
    )


def _arm(variant: str) -> str:
    return {"adversarial": "attack", "noise": "matched noise"}[variant]


def figure_6(tables: Tables, cell: str) -> Figure:
    """Returns the chance of a layer being compromised, beside held-out noise."""
    rows = tables["compromised"].query(
        f"cell == @cell and group == 'success' and target == 'own_top1' and rule == '{PAPERS_RULE}'"
    )
    noise = rows.query("arm == 'noise' and strength == 1").assign(series="held-out noise, 100 %")
    attack = rows[rows["arm"] == "attack"]
    attack = attack.assign(series=attack["strength"].map(percent))
    table = pd.concat([attack, noise]).rename(columns={"layer": "x", "share": "y"})
    return Figure(
        "renkhoff_figure_6",
        f"Chance of a layer being compromised ({cell})",
        "Share of successfully attacked images whose map is less similar to the clean map than the "
        "median under noise at that layer and strength: the paper's rule. The last line applies "
        "the same rule to a further draw of noise on the same images: the share that the rule "
        "calls compromised without any attack.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "layer (block-conv, or block), input to output",
        "share of images",
        (0.0, 1.02),
    )


def figure_7(tables: Tables, cell: str) -> Figure:
    """Returns the number of layers that an adversarial compromises."""
    rows = tables["counts"].query(
        f"cell == @cell and group == 'success' and target == 'own_top1' and rule == '{PAPERS_RULE}'"
    )
    noise = rows.query("arm == 'noise' and strength == 1").assign(series="held-out noise, 100 %")
    attack = rows[rows["arm"] == "attack"]
    attack = attack.assign(series=attack["strength"].map(percent))
    table = pd.concat([attack, noise]).rename(columns={"share": "y"})
    return Figure(
        "renkhoff_figure_7",
        f"Number of compromised layers of an image ({cell})",
        "Share of successfully attacked images by the number of their compromised layers, under "
        "the rule of figure 6 and among images without an empty map. The last series is a further "
        "draw of noise on the same images.",
        "bars",
        table.assign(x=table["layers"].astype(str))[["series", "x", "y"]].reset_index(drop=True),
        "compromised layers",
        "share of images",
        (0.0, 1.02),
    )

"""Figures of a study's layers, from its tables; those of renkhoff2022 bear its numbers."""

import numpy as np
import pandas as pd

from camdrift.analysis.drawing import Figure, coloured, panel, percent
from camdrift.analysis.results import Example, Tables
from camdrift.analysis.tables import PAPERS_RULE


def of_study(tables: Tables, example: Example, headline: str) -> list[Figure]:
    """Returns the figures of a study: its own, then the paper's, for the headline cell."""
    return [
        square(tables, headline, "own_top1"),
        square(tables, headline, "seed_class"),
        groups(tables, headline),
        drift(tables, headline),
        methods(tables, headline),
        published(tables, headline),
        coverage_by_arm(tables, headline),
        coverage_by_strength(tables, headline),
        maps(example),
        boxes(tables, headline, "adversarial", "4a"),
        boxes(tables, headline, "noise", "4b"),
        lines(tables, headline, "adversarial", "5a"),
        lines(tables, headline, "noise", "5b"),
        compromised(tables, headline),
        compromised_counts(tables, headline),
    ]


def square(tables: Tables, cell: str, target: str) -> Figure:
    """Returns the study's central figure: drift by attack or noise x flipped or not."""
    rows = tables["square"].query("cell == @cell and target == @target and layer != 'mean'")
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
        "square_own" if target == "own_top1" else "square_clean",
        f"Drift by attack or noise, class flipped or not: {policy} ({cell})",
        f"1 minus the cosine similarity to the clean map, on the same {seeds} images for all four "
        "lines. An image takes part at the lowest strength at which the attack flips its class, at "
        "the strength below, with noise of that lower size, and with noise raised until it flips "
        "the class, too, which makes it several times as large. Bars are bootstrap intervals, "
        "resampled by source picture. A layer with too many empty maps is left out.",
        "lines",
        pd.concat(parts, ignore_index=True),
        "conv layer (block-conv, input to output)",
        "drift (1 - cosine)",
        (0.0, 1.02),
    )


def groups(tables: Tables, cell: str) -> Figure:
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
        "groups",
        f"Excess drift by strength, class flipped at that strength or not ({cell})",
        "Cosine similarity to the clean map under noise of the same size minus that under attack, "
        "mean over layers and images; 0 means that the attack moves the maps no further than "
        "noise. Which images are flipped is told at each strength anew. Bars are bootstrap "
        "intervals, resampled by source picture.",
        "lines",
        table[["series", "x", "y", "low", "high"]],
        "strength of the attack, of its perturbation",
        "excess drift (difference of cosine)",
    )


def published(tables: Tables, cell: str) -> Figure:
    """Returns figure 5a as the public code would have drawn it, if the cell has that protocol."""
    rows = tables["curves"].query(
        "cell == @cell and protocol == 'as_published' and variant == 'adversarial'"
    )
    table = rows.assign(series=rows["strength"].map(percent)).rename(
        columns={"layer": "x", "mean": "y"}
    )
    return Figure(
        "figure_5a_as_published",
        f"Mean similarity to the clean map by strength, as the public code does it ({cell})",
        "As figure 5a, with all faults of the public code: accumulating strengths, images cut to 8 "
        "bit, jet-coloured maps, softmax for the originals. The paper finds 50 and 100 % almost "
        "identical and 25, 200 and 400 % alike.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "mean cosine similarity",
        (0.0, 1.02),
    )


def drift(tables: Tables, cell: str) -> Figure:
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
        "drift",
        f"How much further an attack moves the maps than noise of the same size ({cell})",
        "Each point is the cosine similarity under matched noise minus that under attack, averaged "
        "over images; 0 means that the attack moves the map no further than noise. Bars are "
        "bootstrap intervals, resampled by source picture. The first two lines are the same "
        "attacked images: they differ only in the class that the changed map explains. A layer "
        "with too many empty maps is left out.",
        "lines",
        pd.concat(parts, ignore_index=True),
        "conv layer (block-conv, input to output)",
        "excess drift (difference of cosine)",
    )


def methods(tables: Tables, cell: str) -> Figure:
    """Returns excess drift by layer with the maps of each method, class flipped."""
    rows = tables["methods"].query(
        "cell == @cell and group == 'success' and target == 'seed_class' and layer != 'mean'"
    )
    rows = rows.rename(columns={"method": "series", "layer": "x", "mean": "y"})
    rows.loc[~rows["decided"].astype(bool), ["y", "low", "high"]] = np.nan
    return Figure(
        "methods",
        f"Whether the method that makes the maps matters ({cell})",
        "Each point is the cosine similarity under matched noise minus that under attack, averaged "
        "over the images whose class the attack flips; all maps are for the clean image's class "
        "and come from the same pass. Above 0 the attack moves the maps further than noise of its "
        "size. Bars are bootstrap intervals, resampled by source picture. A layer with too many "
        "empty maps is left out.",
        "lines",
        rows[["series", "x", "y", "low", "high"]],
        "conv layer (block-conv, input to output)",
        "excess drift (difference of cosine)",
    )


def coverage_by_arm(tables: Tables, cell: str) -> Figure:
    """Returns figure 2a: coverage of attack and noise at strength 1."""
    rows = tables["coverage"].query("cell == @cell and strength == 1")
    names = {"attack": "attack, 100 %", "noise": "matched noise, 100 %"}
    table = rows.assign(series=rows["arm"].map(names)).rename(
        columns={"seeds": "x", "coverage": "y"}
    )
    return Figure(
        "figure_2a",
        f"Neuron coverage, attack against noise ({cell})",
        "Share of the network's neurons that at least one image so far has covered, when seeds "
        "come one by one, each with its changed image. The mean over all orders of the seeds.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "seed images",
        f"covered share of {int(rows['neurons'].iloc[0])} neurons",
        (0.0, 1.0),
        log_x=True,
    )


def coverage_by_strength(tables: Tables, cell: str) -> Figure:
    """Returns figure 2b: coverage under attack at each strength."""
    rows = tables["coverage"].query("cell == @cell and arm == 'attack'")
    table = rows.assign(series=rows["strength"].map(percent)).rename(
        columns={"seeds": "x", "coverage": "y"}
    )
    return Figure(
        "figure_2b",
        f"Neuron coverage by strength of the attack ({cell})",
        "As figure 2a, for the attack alone; a line for each multiple of its perturbation.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "seed images",
        f"covered share of {int(rows['neurons'].iloc[0])} neurons",
        (0.0, 1.0),
        log_x=True,
    )


def maps(example: Example) -> Figure:
    """Returns figure 3: the maps of one image, clean, attacked and with noise, layer by layer."""
    size = example.pictures.shape[1]
    rows = [
        [picture, *(coloured(layer[i], size) for layer in example.maps)]
        for i, picture in enumerate(example.pictures)
    ]
    return panel(
        "figure_3",
        "Grad-CAM of one attacked image at every conv layer",
        "Left the image itself, then its map at each layer, input to output; bright marks what the "
        "layer's evidence for the predicted class rests on. Each map is divided by its own "
        "maximum. Rows: the clean image, the adversarial, the same amount of noise.",
        rows,
        ["image", *example.layers],
        example.labels,
        x="conv layer (block-conv)",
    )


def boxes(tables: Tables, cell: str, variant: str, number: str) -> Figure:
    """Returns figure 4a or 4b: similarity by layer, all strengths pooled, successful images."""
    rows = _similarity(tables, cell, variant).query("strength == 0")
    table = rows.rename(columns={"layer": "x"}).assign(series=variant)
    return Figure(
        f"figure_{number}",
        f"Similarity to the clean map by layer, {_arm(variant)} ({cell})",
        "Cosine similarity of each changed map to the clean map of its image, all strengths "
        "pooled, successfully attacked images, each map for its own top class. Box: quartiles and "
        "median; whiskers: furthest value within 1.5 box lengths.",
        "boxes",
        table[["series", "x", "q1", "median", "q3", "low", "high"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "cosine similarity",
        (0.0, 1.02),
    )


def lines(tables: Tables, cell: str, variant: str, number: str) -> Figure:
    """Returns figure 5a or 5b: mean similarity by layer, one line a strength."""
    rows = _similarity(tables, cell, variant).query("strength > 0")
    table = rows.rename(columns={"layer": "x", "mean": "y"})
    table["series"] = table["strength"].map(percent)
    return Figure(
        f"figure_{number}",
        f"Mean similarity to the clean map by strength, {_arm(variant)} ({cell})",
        "Mean cosine similarity of the changed map to the clean map, successfully attacked images, "
        "each map for its own top class; a line for each multiple of the perturbation. 1 means "
        "that the map did not move.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
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


def compromised(tables: Tables, cell: str) -> Figure:
    """Returns figure 6: the chance of a layer being compromised, beside held-out noise."""
    rows = tables["compromised"].query(
        f"cell == @cell and group == 'success' and target == 'own_top1' and rule == '{PAPERS_RULE}'"
    )
    noise = rows.query("arm == 'noise' and strength == 1").assign(series="held-out noise, 100 %")
    attack = rows[rows["arm"] == "attack"]
    attack = attack.assign(series=attack["strength"].map(percent))
    table = pd.concat([attack, noise]).rename(columns={"layer": "x", "share": "y"})
    return Figure(
        "figure_6",
        f"Chance of a layer being compromised ({cell})",
        "Share of successfully attacked images whose map is less similar to the clean map than the "
        "median under noise at that layer and strength: the paper's rule. The last line applies "
        "the same rule to a further draw of noise on the same images: what it calls compromised "
        "without any attack.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "share of images",
        (0.0, 1.02),
    )


def compromised_counts(tables: Tables, cell: str) -> Figure:
    """Returns figure 7: how many layers an adversarial compromises."""
    rows = tables["counts"].query(
        f"cell == @cell and group == 'success' and target == 'own_top1' and rule == '{PAPERS_RULE}'"
    )
    noise = rows.query("arm == 'noise' and strength == 1").assign(series="held-out noise, 100 %")
    attack = rows[rows["arm"] == "attack"]
    attack = attack.assign(series=attack["strength"].map(percent))
    table = pd.concat([attack, noise]).rename(columns={"share": "y"})
    return Figure(
        "figure_7",
        f"Number of compromised layers of an image ({cell})",
        "Share of successfully attacked images by how many of their layers are compromised under "
        "the rule of figure 6, of images without an empty map; the last series is a further draw "
        "of noise on the same images.",
        "bars",
        table.assign(x=table["layers"].astype(str))[["series", "x", "y"]].reset_index(drop=True),
        "compromised layers",
        "share of images",
        (0.0, 1.02),
    )

"""Figures of attacks on maps: drift against flip, and drift by layer."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Example, Tables
from camdrift.analysis.sheets import maps_of
from camdrift.papers.zhang2020.report import EXPLAINED, mean_drift, shown
from camdrift.storage import OWN, SEED

# Title and caption of the figures that hold pictures, which tables do not.
PICTURES = {
    "maps_of_one_image": (
        "Maps of one image under an attack on its maps, layer by layer",
        "The image itself on the left, then its map at each layer, from input to output, for its "
        "own top class. Bright places support that class. Each map is divided by its own maximum. "
        "Rows: the clean image, the attacked image, and the image with noise of the same size.",
    ),
}
GROUPS = ("flipped", "not flipped")
DRIFTS = {SEED: "map_drift_clean_class", OWN: "map_drift_own_class"}  # figures by class explained


def by_name(tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns a function for each figure that needs tables alone, by the figure's name."""
    drifts = {name: partial(map_drift, tables, target) for target, name in DRIFTS.items()}
    return {"drift_against_flip": partial(drift_against_flip, tables), **drifts}


def drift_against_flip(tables: Tables) -> Figure:
    """Returns each attack and control by its share of flipped images and its mean drift."""
    rows = []
    for cell, arm, name in shown(tables):
        own, clean = (mean_drift(tables, cell, arm, target=target) for target in (OWN, SEED))
        rows.append((name, own["flipped"], own["drift"], own["flipped"], clean["drift"]))
    table = pd.DataFrame(rows, columns=["series", "x", "y", "from_x", "from_y"])
    return Figure(
        "drift_against_flip",
        "Drift against flip: how far maps move, and how often the class changes",
        "Each mark is an attack, or noise or a control of the first attack's size: the share of "
        "images whose class it changes, and how far maps of each image's own class drift, mean "
        "over images and layers. The line begins at the drift of maps of the clean image's class. "
        "An attack that moves maps and keeps the class lies to the upper left, one that changes "
        "the class and keeps maps to the lower right.",
        "points",
        table,
        "share of images whose class changes",
        "drift (1 - cosine), mean over layers",
    )


def map_drift(tables: Tables, target: str) -> Figure:
    """Returns drift by attack or control, class flipped or not, and layer."""
    parts = []
    for cell, arm, name in shown(tables):
        every = tables["drift"]
        own = (every["cell"] == cell) & (every["arm"] == arm) & (every["target"] == target)
        for group in GROUPS:
            part = every[own & (every["group"] == group)]
            if len(part):
                label = f"{name}, {group} ({part['images'].iloc[0]})"
                parts.append(part.assign(series=label).rename(columns={"layer": "x", "drift": "y"}))
    table = pd.concat(parts, ignore_index=True)[["series", "x", "y"]]
    return Figure(
        DRIFTS[target],
        f"Drift by attack and layer, maps of {EXPLAINED[target]}",
        "1 minus the cosine similarity to the clean map, mean over images, whose number stands in "
        "brackets; noise and controls have the first attack's size. 'mean' averages over the "
        "layers with few empty maps under every attack and control, all images taken together. A "
        "field without a number has too many empty maps.",
        "matrix",
        table.sort_values("x", key=lambda column: column == "mean", kind="stable"),
        "layer (block-conv, or block), input to output",
        "attack or control, and number of images",
        (0.0, 1.0),
    )


def maps_of_one_image(example: Example) -> Figure:
    """Returns the maps of one image, clean, attacked and with noise, layer by layer."""
    return maps_of(example, "maps_of_one_image", *PICTURES["maps_of_one_image"])

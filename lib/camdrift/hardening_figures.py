"""Figures of a hardening: accuracy and success, relevance maps, the plane of signatures.

Those that imitate klawikowska2020's bear its number.
"""

import numpy as np
import pandas as pd

from camdrift.artifacts import CLEAR, Hardened, Signatures
from camdrift.drawing import Figure, panel
from camdrift.results import Tables
from camdrift.settings import EXTENDING

EXAMPLES = 3
NAMES = {CLEAR: "clear", "fgsm": "FGSM-hardened", "one_pixel": "one-pixel-hardened",
         "pgd": "PGD-trained"}  # fmt: skip
ATTACKS = {"fgsm": "FGSM", "one_pixel": "one pixel", "pgd": "PGD", "fgsm_larger": "FGSM, larger"}


def of_hardening(made: Tables) -> list[Figure]:
    """Returns the figures that rest on a hardening's tables alone."""
    return [accuracy(made), success(made), plane(made), *(moved(made, kind) for kind in EXTENDING)]


def accuracy(made: Tables) -> Figure:
    """Returns table 1 of the paper as bars."""
    rows = made["sets"]
    table = pd.DataFrame(
        {"series": rows["model"].map(NAMES), "x": rows["set"], "y": rows["accuracy"]}
    )
    return Figure(
        "accuracy", "Accuracy on the sets of the paper's table 1",
        "Clean test images, and with those that an attack changed successfully on the clear model "
        "added. Hardened models are met with attacks made for another model here.",
        "bars", table, "set", "share right", (0.0, 1.02),
    )  # fmt: skip


def success(made: Tables) -> Figure:
    """Returns how often attacks made anew succeed, model by model."""
    rows = made["attacks"].query("split == 'test'")
    table = pd.DataFrame(
        {"series": rows["model"].map(NAMES), "x": rows["attack"].map(ATTACKS), "y": rows["rate"]}
    ).fillna({"y": 0.0})
    return Figure(
        "anew", "Every model attacked itself",
        "Share of the images that a model gets right which an attack made for that model changes.",
        "bars", table, "attack", "share changed", (0.0, 1.02),
    )  # fmt: skip


def plane(made: Tables) -> Figure:
    """Returns figure 4: signatures of clean images by class."""
    points = made["points"].query("on == @CLEAR")
    table = points.assign(series=points["label"].map("class {}".format))[["series", "x", "y"]]
    numbers = made["numbers"].set_index("number")["value"]
    told = ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())
    return Figure(
        "kla_figure_4", "Relevance signatures of clean images",
        "Each point is an image's LRP map, laid out by UMAP: near points have similar maps, axes "
        f"have no unit. Colour and mark tell the class. {told}.",
        "points", table.dropna(), "UMAP 1", "UMAP 2",
    )  # fmt: skip


def moved(made: Tables, attack: str) -> Figure:
    """Returns figure 5 or 6: who is attackable, and where the attacked lie."""
    points = made["points"]
    clean = points[(points["on"] == CLEAR) & points["right"]]
    told = clean[f"success_{attack}"].map({True: "clean, attackable", False: "clean, withstands"})
    attacked = points[points["on"] == attack]
    table = pd.concat(
        [
            clean.assign(series=told).sort_values("series", ascending=False),
            attacked.assign(series=f"after {ATTACKS[attack]}"),
        ]
    )[["series", "x", "y"]]
    number = 5 + EXTENDING.index(attack)
    return Figure(
        f"kla_figure_{number}", f"Signatures before and after {ATTACKS[attack]}",
        "The same plane as figure 4. If images near another class were the attackable ones, they "
        "would lie at the rims of the groups.",
        "points", table.dropna(), "UMAP 1", "UMAP 2",
    )  # fmt: skip


def panels(clean: np.ndarray, hardened: Hardened, signatures: Signatures) -> list[Figure]:
    """Returns figures 1 and 2, of images, and 3, of their maps; none where nothing succeeded.

    Args:
        clean: uint8 (n, h, w, 3), the test images as they are.
        hardened: with the attacked ones.
        signatures: with their maps.
    """
    tested = hardened.attacks.query("model == @CLEAR and split == 'test'")
    drawn, chosen = [], {}
    for i, attack in enumerate(EXTENDING):
        success = tested.loc[tested["attack"] == attack, "success"].to_numpy()
        chosen[attack] = np.flatnonzero(success)[:EXAMPLES]
        if not success.any():
            continue
        changed = _levels(hardened.changed[i][chosen[attack]])
        rows = []
        for before, after in zip(clean[chosen[attack]], changed, strict=True):
            change = after.astype(int) - before
            strong = (128 + 127 * change / max(1, np.abs(change).max())).astype(np.uint8)
            rows.append([before, strong, after])
        labels = [f"image {j + 1}" for j in range(len(rows))]
        drawn.append(
            panel(
                f"kla_figure_{i + 1}", f"Images changed by {ATTACKS[attack]}",
                "The image, the change stretched to its largest value, and the changed image, "
                "which the clear model takes for another class.",
                rows, ["clean", "change", "attacked"], labels,
            )
        )  # fmt: skip
    shown = [tuple(pair) for pair in signatures.facts["shown"]]
    titles = [f"{NAMES[m]}, {'clean' if on == CLEAR else ATTACKS[on]}" for m, on in shown]
    both = np.unique(np.concatenate(list(chosen.values())))[: 2 * EXAMPLES]
    if len(both):
        tiles = [[_heat(signatures.maps[k, j]) for k in range(len(shown))] for j in both]
        drawn.append(
            panel(
                "kla_figure_3", "Relevance before and after attacks, on clear and hardened models",
                "LRP maps of single images, each divided by its largest magnitude: red speaks for "
                "the predicted class, blue against it. Columns: model, and what was done to the "
                "image.",
                tiles, titles, [f"image {j + 1}" for j in range(len(both))],
            )
        )  # fmt: skip
    return drawn


def _levels(pixels: np.ndarray) -> np.ndarray:
    return (np.moveaxis(pixels, 1, -1) * 255).round().astype(np.uint8)


def _heat(values: np.ndarray) -> np.ndarray:
    """Returns a map in [-1, 1] as a picture, red above 0, blue below."""
    import matplotlib as mpl

    scaled = (np.asarray(values, dtype=np.float32) + 1) / 2
    return (mpl.colormaps["RdBu_r"](scaled)[..., :3] * 255).astype(np.uint8)

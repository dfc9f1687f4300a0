"""Figures of a hardening: accuracy and success, relevance maps, the plane of signatures.

Those that imitate klawikowska2020's bear its number.
"""

import numpy as np
import pandas as pd

from camdrift.analysis.drawing import Figure, panel
from camdrift.analysis.results import Tables
from camdrift.settings import EXTENDING
from camdrift.storage import CLEAR, Hardened, Signatures

EXAMPLES = 3
SHOWN = ["series", "x", "y", "low", "high"]
HEATS = (
    "Each is divided by its largest magnitude: red speaks for the predicted class, blue against it."
)
NAMES = {CLEAR: "clear", "retrained": "retrained", "fgsm": "FGSM-hardened",
         "one_pixel": "one-pixel-hardened", "pgd": "PGD-trained"}  # fmt: skip
ATTACKS = {"fgsm": "FGSM", "one_pixel": "one pixel", "pgd": "PGD", "fgsm_larger": "FGSM, larger"}


def of_hardening(made: Tables) -> list[Figure]:
    """Returns the figures that rest on a hardening's tables alone."""
    return [accuracy(made), success(made), plane(made), *moved(made)]


def accuracy(made: Tables) -> Figure:
    """Returns table 1 of the paper as bars."""
    rows = made["sets"]
    table = rows.assign(series=rows["model"].map(NAMES))
    table = table.rename(columns={"set": "x", "accuracy": "y"})[SHOWN]
    return Figure(
        "accuracy", "Accuracy on the sets of the paper's table 1",
        "Clean test images, and with those that an attack changed successfully on the clear model "
        "added. Hardened models are met with attacks made for another model here. Whiskers: "
        "intervals by source picture.",
        "bars", table, "set", "share right", (0.0, 1.02),
    )  # fmt: skip


def attack_names(made: Tables) -> dict[str, str]:
    """Returns what people call each attack: its name and its budget."""
    rows = made["budgets"]
    return {
        row.attack: f"{ATTACKS.get(row.attack, row.attack)}, {row.budget}"
        for row in rows.itertuples()
    }


def success(made: Tables) -> Figure:
    """Returns how often attacks made anew succeed, model by model."""
    rows = made["attacks"].query("split == 'test'")
    table = rows.assign(series=rows["model"].map(NAMES), x=rows["attack"].map(attack_names(made)))
    table = table.rename(columns={"rate": "y"})[SHOWN]
    return Figure(
        "anew", "Every model attacked itself",
        "Share of the images that a model gets right which an attack made for that model changes; "
        "whiskers: intervals by source picture. A model that gets none right has no bar.",
        "bars", table, "attack", "share changed", (0.0, 1.02),
    )  # fmt: skip


def numbers(made: Tables) -> str:
    """Returns what is measured of the signatures and of their plane, in words."""
    rows = made["numbers"]
    few = "" if "trustworthiness" in set(rows["number"]) else "; too few points"
    return ", ".join(f"{row.number} {row.value:.2f}" for row in rows.itertuples()) + few


def plane(made: Tables) -> Figure:
    """Returns figure 4: signatures of clean images by class."""
    points = made["points"].query("on == @CLEAR")
    table = points.rename(columns={"class_before": "series"})[["series", "x", "y"]]
    return Figure(
        "kla_figure_4", "Relevance signatures of clean images",
        "Each point is an image's LRP map, laid out by UMAP: near points have similar maps, axes "
        f"have no unit. Colour and mark tell the class. {numbers(made)}.",
        "points", table.dropna(), "UMAP 1", "UMAP 2",
    )  # fmt: skip


def moved(made: Tables) -> list[Figure]:
    """Returns where attacks move signatures: figures 5 and 6, and one of the one-pixel attack.

    The paper's are of FGSM, one of cats and one of dogs: here of the two classes that it changes
    most often. Classes of no success are not drawn.
    """
    rows = made["points"].query("on == 'fgsm'")
    counts = rows["class_before"].value_counts().sort_index()
    most = counts.sort_values(ascending=False, kind="stable").index[:2]
    drawn = [
        _moved(made, rows[rows["class_before"] == name], f"kla_figure_{5 + i}",
               f"Where FGSM moves the signatures of '{name}'")
        for i, name in enumerate(most)
    ]  # fmt: skip
    rows = made["points"].query("on == 'one_pixel'")
    if len(rows):
        title = "Where the one-pixel attack moves signatures"
        drawn.append(_moved(made, rows, "kla_one_pixel", title))
    return drawn


def _moved(made: Tables, attacked: pd.DataFrame, name: str, title: str) -> Figure:
    clean = made["points"].query("on == @CLEAR")
    start = clean.set_index("image").loc[attacked["image"], ["x", "y"]].to_numpy()
    mine = clean["image"].isin(attacked["image"])
    table = pd.concat(
        [
            clean[~mine].assign(series="other clean images"),
            clean[mine].assign(series="before the attack"),
            attacked.assign(series="now " + attacked["class_after"], from_x=start[:, 0],
                            from_y=start[:, 1]).sort_values("series"),
        ]
    )[["series", "x", "y", "from_x", "from_y"]]  # fmt: skip
    return Figure(
        name, title,
        "The same plane as figure 4. A line leads from each image that the attack changed to where "
        "its changed version lies; marks tell the class that the clear model takes that for.",
        "points", table.dropna(subset=["x", "y"]), "UMAP 1", "UMAP 2",
    )  # fmt: skip


def panels(
    made: Tables, clean: np.ndarray, hardened: Hardened, signatures: Signatures
) -> list[Figure]:
    """Returns figure 1, of changed images, 2, of clean ones and their maps, and 3, of maps alone.

    The first and the last are left out where no attack succeeded.

    Args:
        made: the tables.
        clean: uint8 (n, h, w, 3), the test images as they are.
        hardened: with the attacked ones.
        signatures: with their maps.
    """
    tested = hardened.attacks.query("model == @CLEAR and split == 'test'")
    success = {
        attack: tested.loc[tested["attack"] == attack, "success"].to_numpy() for attack in EXTENDING
    }
    flips = made["points"].set_index(["on", "image"])
    rows, labels = [], []
    for i, attack in enumerate(EXTENDING):
        for j in np.flatnonzero(success[attack])[:EXAMPLES]:
            after = _levels(hardened.changed[i][j : j + 1])[0]
            change = after.astype(int) - clean[j]
            strong = (128 + 127 * change / max(1, np.abs(change).max())).astype(np.uint8)
            rows.append([clean[j], strong, after])
            flip = flips.loc[attack, hardened.tests["image"].iloc[j]]
            labels.append(f"{ATTACKS[attack]}:\n{flip['class_before']}\nto {flip['class_after']}")
    drawn = []
    if rows:
        drawn.append(
            panel(
                "kla_figure_1", "Images that the attacks change",
                "The image, the change stretched to its largest value, and the changed image, "
                "which the clear model takes for another class.",
                rows, ["clean", "change", "attacked"], labels,
            )
        )  # fmt: skip
    shown = [tuple(pair) for pair in signatures.facts["shown"]]
    first = shown.index((CLEAR, CLEAR))
    tiles = [[clean[j], _heat(signatures.maps[first, j])] for j in range(len(clean[:EXAMPLES]))]
    names = hardened.tests["class_name"].to_list()
    drawn.append(
        panel(
            "kla_figure_2", "Relevance of clean images, on the clear model",
            f"LRP maps of single images. {HEATS}",
            tiles, ["image", "relevance"], names[: len(tiles)],
        )
    )  # fmt: skip
    both = [np.flatnonzero(success[attack])[:EXAMPLES] for attack in EXTENDING]
    chosen = np.unique(np.concatenate(both))
    if len(chosen):
        nothing = np.full((*signatures.maps.shape[2:], 3), 255, dtype=np.uint8)
        pairs = [(k, model, on) for k, (model, on) in enumerate(shown) if model != "retrained"]
        tiles = [
            [_heat(signatures.maps[k, j]) if on == CLEAR or success[on][j] else nothing
             for k, _, on in pairs]
            for j in chosen
        ]  # fmt: skip
        titles = [
            NAMES[model].replace("-", "-\n") + ":\n" + ("clean" if on == CLEAR else ATTACKS[on])
            for _, model, on in pairs
        ]
        drawn.append(
            panel(
                "kla_figure_3", "Relevance before and after attacks, on clear and hardened models",
                f"LRP maps of single images, a row an image. {HEATS} Columns: the model, and what "
                "was done to the image; blank where that attack does not change this image's "
                "class.",
                tiles, titles, [names[j] for j in chosen], images=False,
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

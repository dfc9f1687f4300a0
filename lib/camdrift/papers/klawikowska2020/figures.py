"""Figures of retrained models: accuracy and success, relevance maps, the plane of signatures.

A function is named as its figure: `figure_4` draws `klawikowska_figure_4`, which imitates the
paper's; the others are the study's own.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from camdrift.analysis.drawing import Figure, nearest, panel
from camdrift.analysis.results import Tables
from camdrift.settings import EXTENDING
from camdrift.storage import BASELINE, CLEAN, Retrained, Signatures, attack_of, control_of

EXAMPLES = 3
SHOWN = ["series", "x", "y", "low", "high"]
HEATS = (
    "Each is divided by its largest magnitude: red speaks for the predicted class, blue against it."
)
NAMES = {BASELINE: "baseline", "retrained": "retrained", "fgsm": "FGSM-retrained",
         "one_pixel": "one-pixel-retrained", "pgd": "PGD-trained",
         "fgsm_8bit": "FGSM-retrained, 8 bit",
         "one_pixel_8bit": "one-pixel-retrained, 8 bit"}  # fmt: skip
ATTACKS = {"fgsm": "FGSM", "one_pixel": "one pixel", "pgd": "PGD", "fgsm_larger": "FGSM, larger"}


# Kinds of the table `relevance` that are drawn, and words for them.
CORRELATIONS = {"correlation": "the attack", "correlation, same class": "the attack, clean class",
                "correlation, class swap": "class swap alone"}  # fmt: skip
LAST_LAYER = " of the last layer"

# Title and caption of the figures that hold pictures, which tables do not.
PICTURES = {
    "klawikowska_figure_1": (
        "Images that the attacks change",
        "The image, the change stretched to its largest value, and the changed image, which the "
        "baseline model takes for another class.",
    ),
    "klawikowska_figure_2": (
        "Relevance of clean images, on the baseline model",
        f"LRP maps of single images. {HEATS}",
    ),
    "klawikowska_figure_3": (
        "Relevance before and after attacks, on baseline and retrained models",
        f"LRP maps of single images, a row an image. {HEATS} Columns: the model, and what was done "
        "to the image; blank where that attack does not change this image's class.",
    ),
}


def by_name(tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns how each figure that rests on tables alone is drawn, by its name.

    Classes of no success are not drawn.
    """
    figures: dict[str, Callable[[], Figure]] = {
        "klawikowska_table_1": partial(table_1, tables),
        "success_by_model": partial(success_by_model, tables),
        "klawikowska_figure_4": partial(figure_4, tables),
    }
    classes = _most_changed(tables)
    if classes:
        figures["klawikowska_figure_5"] = partial(figure_5, tables)
    if len(classes) > 1:
        figures["klawikowska_figure_6"] = partial(figure_6, tables)
    # Results of version 0.2 have no relevance of the last layer.
    if "x_last" in tables["points"]:
        figures["signatures_of_the_last_layer"] = partial(signatures_of_the_last_layer, tables)
    if (tables["points"]["on"] == "one_pixel").any():
        figures["signatures_under_one_pixel"] = partial(signatures_under_one_pixel, tables)
    # Results of version 0.1 have no controls.
    if classes and any(control_of(on) for on in tables["relevance"]["on"]):
        figures["correlation_under_controls"] = partial(correlation_under_controls, tables)
    return figures


def study_figures(tables: Tables) -> list[Figure]:
    """Returns the figures that rest on a study's tables alone."""
    return [draw() for draw in by_name(tables).values()]


def table_1(tables: Tables) -> Figure:
    """Returns table 1 of the paper as bars."""
    rows = tables["sets"]
    rows = rows[~rows["set"].str.endswith(", 8 bit")]
    table = rows.assign(series=rows["model"].map(NAMES))
    table = table.rename(columns={"set": "x", "accuracy": "y"})[SHOWN]
    return Figure(
        "klawikowska_table_1", "Accuracy on the sets of the paper's table 1",
        "Clean test images, and with those that an attack changed successfully on the baseline "
        "model added. Retrained models are met with attacks made for another model here. Whiskers: "
        "intervals by source picture.",
        "bars", table, "set", "share right", (0.0, 1.02),
    )  # fmt: skip


def attack_names(tables: Tables) -> dict[str, str]:
    """Returns what people call each attack: its name and its budget."""
    rows = tables["budgets"]
    return {
        row.attack: f"{ATTACKS.get(row.attack, row.attack)}, {row.budget}"
        for row in rows.itertuples()
    }


def success_by_model(tables: Tables) -> Figure:
    """Returns how often attacks made anew succeed, model by model."""
    rows = tables["attacks"].query("split == 'test'")
    table = rows.assign(series=rows["model"].map(NAMES), x=rows["attack"].map(attack_names(tables)))
    table = table.rename(columns={"rate": "y"})[SHOWN]
    return Figure(
        "success_by_model", "Every model attacked itself",
        "Share of the images that a model gets right which an attack made for that model changes; "
        "whiskers: intervals by source picture. A model that gets none right has no bar.",
        "bars", table, "attack", "share changed", (0.0, 1.02),
    )  # fmt: skip


def correlation_under_controls(tables: Tables) -> Figure:
    """Returns the correlation of maps under each attack, noise of its size and its controls."""
    rows = tables["relevance"].query(
        "model == @BASELINE and on != @CLEAN and kind in @CORRELATIONS"
    )
    controls = [
        control_of(row.on).replace("_", "-") or CORRELATIONS[row.kind] for row in rows.itertuples()
    ]
    table = rows.assign(series=[ATTACKS[attack_of(on)] for on in rows["on"]], x=controls)
    return Figure(
        "correlation_under_controls", "Relevance under attacks, noise and controls",
        "Pearson's correlation of the baseline model's LRP maps of changed and of clean images, "
        "each map for its own top class unless said; over successes of the attack. Class swap: the "
        "clean image's map of the class that the attack leads to. Controls are the attack's "
        "perturbation rearranged, of the same size. Whiskers: intervals by source picture.",
        "bars", table.rename(columns={"mean": "y"})[SHOWN].dropna(subset="y"), "change",
        "correlation",
    )  # fmt: skip


def numbers(tables: Tables, *, of: str = "") -> str:
    """Returns what is measured of the signatures and of their plane, in words.

    `of`: the end of their names, `LAST_LAYER` or none, which is of maps.
    """
    rows = tables["numbers"]
    last = rows["number"].str.contains(LAST_LAYER)
    rows = rows[last if of else ~last]
    few = "" if f"trustworthiness{of}" in set(rows["number"]) else "; too few points"
    return ", ".join(f"{row.number} {row.value:.2f}" for row in rows.itertuples()) + few


def figure_4(tables: Tables) -> Figure:
    """Returns signatures of clean images by class."""
    return _clean_signatures(
        tables, "klawikowska_figure_4", "Relevance signatures of clean images",
        "Each point is an image's LRP map, laid out by UMAP: near points have similar maps, axes "
        f"have no unit. Colour and mark tell the class. {numbers(tables)}.",
    )  # fmt: skip


def signatures_of_the_last_layer(tables: Tables) -> Figure:
    """Returns relevance of clean images at the last layer by class, on a plane of its own."""
    return _clean_signatures(
        tables, "signatures_of_the_last_layer", "Signatures of clean images at the last layer",
        "As figure 4, with relevance of the inputs of the network's last layer in place of pixels' "
        f"relevance. {numbers(tables, of=LAST_LAYER)}.", end="_last",
    )  # fmt: skip


def _clean_signatures(
    tables: Tables, name: str, title: str, caption: str, *, end: str = ""
) -> Figure:
    """Returns clean images by class on a plane, `end` that of its columns' names."""
    columns = {"class_before": "series", f"x{end}": "x", f"y{end}": "y"}
    table = tables["points"].query("on == @CLEAN")[list(columns)].rename(columns=columns)
    return Figure(name, title, caption, "points", table.dropna(), "UMAP 1", "UMAP 2")


def figure_5(tables: Tables) -> Figure:
    """Returns where FGSM moves the signatures of the class that it changes most often."""
    return _moved_by_fgsm(tables, 0, "klawikowska_figure_5")


def figure_6(tables: Tables) -> Figure:
    """Returns where FGSM moves the signatures of the class that it changes second most often."""
    return _moved_by_fgsm(tables, 1, "klawikowska_figure_6")


def _moved_by_fgsm(tables: Tables, place: int, name: str) -> Figure:
    """The paper's are of cats and of dogs: here of the two classes that FGSM changes most."""
    rows, of = tables["points"].query("on == 'fgsm'"), _most_changed(tables)[place]
    title = f"Where FGSM moves the signatures of '{of}'"
    return _moved(tables, rows[rows["class_before"] == of], name, title)


def _most_changed(tables: Tables) -> list[str]:
    """Returns the classes that FGSM changes most often, two at most."""
    counts = tables["points"].query("on == 'fgsm'")["class_before"].value_counts().sort_index()
    return list(counts.sort_values(ascending=False, kind="stable").index[:2])


def signatures_under_one_pixel(tables: Tables) -> Figure:
    """Returns where the one-pixel attack moves signatures."""
    rows = tables["points"].query("on == 'one_pixel'")
    title = "Where the one-pixel attack moves signatures"
    return _moved(tables, rows, "signatures_under_one_pixel", title)


def _moved(tables: Tables, attacked: pd.DataFrame, name: str, title: str) -> Figure:
    clean = tables["points"].query("on == @CLEAN")
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
        "its changed version lies; marks tell the class that the baseline model takes that for.",
        "points", table.dropna(subset=["x", "y"]), "UMAP 1", "UMAP 2",
    )  # fmt: skip


def panels(tables: Tables, retrained: Retrained, signatures: Signatures) -> list[Figure]:
    """Returns figure 1, of changed images, 2, of clean ones and their maps, and 3, of maps alone.

    The first and the last are left out where no attack succeeded.

    Args:
        tables: of the study.
        retrained: with the attacked ones.
        signatures: with their maps.
    """
    clean = signatures.pictures
    figures = [
        figure_1(tables, clean, retrained),
        figure_2(retrained, signatures),
        figure_3(retrained, signatures),
    ]
    return [figure for figure in figures if figure is not None]


def _success(retrained: Retrained) -> dict[str, np.ndarray]:
    """Returns which test images each attack changes on the baseline model, as masks."""
    tested = retrained.attacks.query("model == @BASELINE and split == 'test'")
    return {
        attack: tested.loc[tested["attack"] == attack, "success"].to_numpy() for attack in EXTENDING
    }


def figure_1(tables: Tables, clean: np.ndarray, retrained: Retrained) -> Figure | None:
    """Returns images that attacks change, each change, and the outcome; None without a success."""
    success = _success(retrained)
    flips = tables["points"].set_index(["on", "image"])
    rows, labels = [], []
    for i, attack in enumerate(EXTENDING):
        for j in np.flatnonzero(success[attack])[:EXAMPLES]:
            after = _levels(retrained.changed[i][j : j + 1])[0]
            change = after.astype(int) - clean[j]
            strong = (128 + 127 * change / max(1, np.abs(change).max())).astype(np.uint8)
            rows.append([clean[j], strong, after])
            flip = flips.loc[attack, retrained.tests["image"].iloc[j]]
            labels.append(f"{ATTACKS[attack]}:\n{flip['class_before']}\nto {flip['class_after']}")
    if not rows:
        return None
    name = "klawikowska_figure_1"
    return panel(name, *PICTURES[name], rows, ["clean", "change", "attacked"], labels)


def figure_2(retrained: Retrained, signatures: Signatures) -> Figure:
    """Returns clean images and their LRP maps on the baseline model."""
    first = [tuple(pair) for pair in signatures.facts["shown"]].index((BASELINE, CLEAN))
    clean = signatures.pictures[:EXAMPLES]
    maps = signatures.maps[first]
    tiles = [[clean[j], nearest(_heat(maps[j]), clean.shape[1:3])] for j in range(len(clean))]
    labels = retrained.tests["class_name"].to_list()[: len(tiles)]
    name = "klawikowska_figure_2"
    return panel(name, *PICTURES[name], tiles, ["image", "relevance"], labels)


def figure_3(retrained: Retrained, signatures: Signatures) -> Figure | None:
    """Returns LRP maps before and after attacks, model by model; None without a success."""
    success = _success(retrained)
    both = [np.flatnonzero(success[attack])[:EXAMPLES] for attack in EXTENDING]
    examples = np.unique(np.concatenate(both))
    if not len(examples):
        return None
    nothing = np.full((*signatures.maps.shape[2:], 3), 255, dtype=np.uint8)
    shown = [tuple(pair) for pair in signatures.facts["shown"]]
    pairs = [
        (k, model, on)
        for k, (model, on) in enumerate(shown)
        if model != "retrained" and on in (CLEAN, *EXTENDING)
    ]
    tiles = [
        [_heat(signatures.maps[k, j]) if on == CLEAN or success[on][j] else nothing
         for k, _, on in pairs]
        for j in examples
    ]  # fmt: skip
    titles = [
        NAMES[model].replace("-", "-\n") + ":\n" + ("clean" if on == CLEAN else ATTACKS[on])
        for _, model, on in pairs
    ]
    names = retrained.tests["class_name"].to_list()
    name = "klawikowska_figure_3"
    return panel(name, *PICTURES[name], tiles, titles, [names[j] for j in examples], images=False)


def _levels(pixels: np.ndarray) -> np.ndarray:
    return (np.moveaxis(pixels, 1, -1) * 255).round().astype(np.uint8)


def _heat(values: np.ndarray) -> np.ndarray:
    """Returns a map in [-1, 1] as a picture, red above 0, blue below."""
    import matplotlib as mpl

    scaled = (np.asarray(values, dtype=np.float32) + 1) / 2
    return (mpl.colormaps["RdBu_r"](scaled)[..., :3] * 255).astype(np.uint8)

"""Figures of the detectors' trial, those of tan2023 by number."""

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from camdrift.analysis.drawing import Figure, coloured, panel, percent
from camdrift.analysis.results import Tables
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE, Detected

# Seven lines can be told apart: both of the paper's detectors, and the baselines that do best.
SHOWN = ("behaviour_median", "noisecam_printed_logits", "noisecam_code_softmax", "confidence",
         "squeezing", "mahalanobis", "logistic")  # fmt: skip
KNOWN = {ADVERSARIAL: "attack", NOISE: "noise", CLEAN: "clean"}


def of_study(tables: Tables, cell: str) -> list[Figure]:
    """Returns the figures that rest on a study's tables, without those that have nothing to show.

    Figures 6 and 7 of tan2023 are figures 5 and 6 of renkhoff2022, see `figures`.
    """
    adaptive = tables["knowing"]["cell"].unique()
    made = [
        accuracy(tables, cell),
        rates(tables, cell),
        curves(tables, cell),
        *(knowing(tables, name) for name in adaptive),
        *(transfer(tables, name) for name in ("behaviour_median", "noisecam_printed_logits",
                                              "logistic")),
    ]  # fmt: skip
    return [figure for figure in made if len(figure.table)]


def _own(tables: Tables, cell: str) -> pd.DataFrame:
    """Rows of one cell, flipped images against clean and noisy ones, by each detector's rule."""
    rows = tables["detectors"]
    rows = rows[(rows["cell"] == cell) & rows["detector"].isin(SHOWN)]
    rows = rows.query("positives == 'success' and negatives == 'both'")
    ruled = rows.loc[rows["rule"] == "own", "detector"].unique()
    return rows[(rows["rule"] == "own") | ~rows["detector"].isin(ruled)]


def accuracy(tables: Tables, cell: str) -> Figure:
    """Returns figure 8a: how often detectors are right, by strength."""
    rows = _own(tables, cell).assign(order=lambda t: t["detector"].map(SHOWN.index))
    rows = rows.sort_values(["order", "strength"]).dropna(subset=["balanced"])
    table = rows.assign(x=rows["strength"].map(percent)).rename(
        columns={"detector": "series", "balanced": "y", "balanced_low": "low",
                 "balanced_high": "high"}
    )  # fmt: skip
    return Figure(
        "figure_8a",
        f"Balanced accuracy of detectors by strength ({cell})",
        "Mean of the shares of attacked images that are called adversarial and of clean and noisy "
        "images that are not; 0.5 is chance. Attacked images whose class flips, test images only. "
        "Detectors decide by their own rule or, where they have none, above a threshold chosen on "
        "other images. Bars are bootstrap intervals, resampled by source picture.",
        "lines",
        table[["series", "x", "y", "low", "high"]].reset_index(drop=True),
        "strength of the attack, of its perturbation",
        "balanced accuracy",
        (0.0, 1.02),
    )


def rates(tables: Tables, cell: str) -> Figure:
    """Returns figure 8b: the two rates behind the accuracy, of the paper's detectors."""
    rows = _own(tables, cell)
    rows = rows[rows["detector"].isin(SHOWN[:3])].dropna(subset=["tpr"])
    parts = [
        rows.assign(series=rows["detector"] + f", {rate.upper()}", y=rows[rate],
                    low=rows[f"{rate}_low"], high=rows[f"{rate}_high"])
        for rate in ("tpr", "tnr")
    ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    table["x"] = table["strength"].map(percent)
    return Figure(
        "figure_8b",
        f"True positive and true negative rates by strength ({cell})",
        "TPR: share of attacked images, of those whose class flips, that are called adversarial. "
        "TNR: share of clean and noisy images that are not. By the paper's rules.",
        "lines",
        table[["series", "x", "y", "low", "high"]],
        "strength of the attack, of its perturbation",
        "rate",
        (0.0, 1.02),
    )


def curves(tables: Tables, cell: str) -> Figure:
    """Returns ROC curves at strength 1."""
    rows = tables["roc"]
    rows = rows[(rows["cell"] == cell) & (rows["strength"] == 1) & rows["detector"].isin(SHOWN)]
    rows = rows.rename(columns={"detector": "series", "fpr": "x", "tpr": "y"})
    return Figure(
        "roc",
        f"What a threshold costs: ROC curves at 100 % ({cell})",
        "Each point is a threshold on the detector's score: the share of clean and noisy images "
        "called adversarial against that of attacked images whose class flips. Chance is the "
        "diagonal; further up and left is better.",
        "lines",
        rows[["series", "x", "y"]].reset_index(drop=True),
        "false positive rate",
        "true positive rate",
        (0.0, 1.02),
    )


def knowing(tables: Tables, cell: str) -> Figure:
    """Returns each detector's AUROC with and without an attack that knows it."""
    rows = tables["knowing"].query("cell == @cell").dropna(subset=["auroc"])
    rows = rows[rows["detector"] != "chance"]
    both = rows.groupby("detector")["arm"].transform("nunique") == 2
    names = {"oblivious": "does not know the detector", "adaptive": "knows the detector"}
    table = (
        rows[both]
        .assign(series=rows["arm"].map(names))
        .rename(columns={"detector": "x", "auroc": "y"})
    )
    return Figure(
        "adaptive",
        f"Detectors against an attack that knows them ({cell})",
        "AUROC, attacked images whose class flips against clean and noisy ones; 0.5 is chance. "
        "Both attacks have the same budget; the one that knows the detector also lowers its score.",
        "bars",
        table[["series", "x", "y"]].sort_values("series", kind="stable").reset_index(drop=True),
        "detector",
        "AUROC",
        (0.0, 1.02),
    )


def transfer(tables: Tables, detector: str) -> Figure:
    """Returns a detector's AUROC, fitted on one attack and strength and tested on another."""
    rows = tables["transfer"].query("detector == @detector")

    def named(cell: str, strength: str) -> pd.Series:
        return rows[cell] + " " + rows[strength].map(percent)

    table = pd.DataFrame({"series": named("fitted_cell", "fitted_strength"),
                          "x": named("cell", "strength"), "y": rows["auroc"]})  # fmt: skip
    return Figure(
        f"transfer_{detector}",
        f"Fitted on one attack, tested on another: {detector}",
        "AUROC, attacked images whose class flips against clean and noisy ones. Rows: the attack "
        "and strength that the detector was fitted on; columns: those that it was tested on, with "
        "other images.",
        "matrix",
        table.reset_index(drop=True),
        "tested on",
        "fitted on",
        (0.0, 1.0),
    )


def panels(detected: Detected, names: dict[int, str], *, blur: float) -> list[Figure]:
    """Returns figures 1, 5 and 9: images and maps of attacked images, if NoiseCAM was tried.

    Args:
        detected: of the cell.
        names: of classes, by number, where they are known.
        blur: standard deviation of figure 1's blur, in px.
    """
    if not len(detected.pictures):
        return []
    order = list(detected.examples["variant"][: detected.pictures.shape[1]])
    methods = {name: i for i, name in enumerate(detected.facts["methods"])}
    size = detected.pictures.shape[2]
    shown = detected.examples.iloc[: len(order)].set_index("variant")["prediction"]

    def label(variant: str) -> str:
        number = int(shown[variant])
        return f"{KNOWN[variant]}: {names.get(number, f'class {number}')}"

    def picture(example: int, variant: str) -> np.ndarray:
        return np.asarray(detected.pictures[example, order.index(variant)])

    def heat(example: int, variant: str, method: str) -> np.ndarray:
        values = detected.maps[example, order.index(variant), methods[method]]
        return coloured(np.asarray(values, dtype=np.float32), size)

    rows = (ADVERSARIAL, NOISE, CLEAN)
    smooth = [gaussian_filter(picture(0, v).astype(float), (blur, blur, 0)) for v in rows]
    first = [[picture(0, v), s.round().astype(np.uint8)] for v, s in zip(rows, smooth, strict=True)]
    fifth = [[picture(0, v), *(heat(0, v, name) for name in METHODS)] for v in rows]
    ninth = []
    for i in range(len(detected.pictures)):
        change = picture(i, ADVERSARIAL).astype(int) - picture(i, CLEAN)
        plain = (128 + change).clip(0, 255).astype(np.uint8)
        strong = (128 + 127 * change / max(1, np.abs(change).max())).astype(np.uint8)
        maps = (heat(i, ADVERSARIAL, name) for name in
                ("printed_logits", "grad_cam_plus_plus", "layer_cam"))  # fmt: skip
        ninth.append([picture(i, ADVERSARIAL), plain, strong, *maps])
    labels = [label(variant) for variant in rows]
    return [
        panel("tan_figure_1", "A Gaussian blur as a defence",
               f"One image attacked, with noise of the same size, and clean; right, each blurred "
               f"(standard deviation {blur:g} px). The class is that before the blur.",
               first, ["image", "blurred"], labels),
        panel("tan_figure_5", "NoiseCAM of an attacked, a noisy and a clean image",
               "Grad-CAM++ and the four readings of NoiseCAM at its layer, each divided by its own "
               "maximum. The paper finds NoiseCAM dark for noisy and clean images.",
               fifth, ["image", *METHODS.values()], labels),
        panel("tan_figure_9", "Attacked images, their perturbation and their maps",
               "The perturbation as it is, around grey, and stretched to its largest value; then "
               "the maps of the attacked image.",
               ninth, ["attacked", "perturbation", "stretched", "NoiseCAM", "Grad-CAM++",
                       "LayerCAM"], [f"image {i + 1}" for i in range(len(ninth))]),
    ]  # fmt: skip


METHODS = {
    "grad_cam_plus_plus": "Grad-CAM++",
    "printed_logits": "printed, logits",
    "printed_softmax": "printed, softmax",
    "code_logits": "code, logits",
    "code_softmax": "code, softmax",
}

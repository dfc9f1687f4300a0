"""Figures of the evaluation of detectors.

A function has the name of its figure: `figure_8a` draws `tan_figure_8a`, which imitates the
paper's; the others are the study's own. Figures 6 and 7 of the paper are 5 and 6 of renkhoff2022.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from camdrift.analysis.drawing import Figure, coloured, panel, percent
from camdrift.analysis.results import Tables
from camdrift.papers.tan2023 import adaptive
from camdrift.storage import ADVERSARIAL, ATTACKS, CLEAN, NOISE, Detected

# A reader can distinguish seven lines: the paper's two detectors, and the best baselines.
DETECTORS = ("behaviour_median", "noisecam_printed_logits", "noisecam_code_softmax", "confidence",
         "squeezing", "mahalanobis", "logistic")  # fmt: skip
VARIANT_NAMES = {ADVERSARIAL: "attack", NOISE: "noise", CLEAN: "clean"}


def by_name(tables: Tables, cell: str) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures of a cell from tables alone, by figure name."""
    figures: dict[str, Callable[[], Figure]] = {
        "tan_figure_8a": partial(figure_8a, tables, cell),
        "tan_figure_8b": partial(figure_8b, tables, cell),
        "roc_curves": partial(roc_curves, tables, cell),
        "detector_matrix": partial(detector_matrix, tables),
    }
    for attacked_cell in tables["adaptive"]["cell"].unique():
        figures["auroc_under_adaptive_attack"] = partial(
            auroc_under_adaptive_attack, tables, attacked_cell
        )
    for detector in ("behaviour_median", "noisecam_printed_logits", "logistic"):
        figures[f"transfer_{detector}"] = partial(transfer, tables, detector)
    return figures


def study_figures(tables: Tables, cell: str) -> list[Figure]:
    """Returns the figures that are drawn from a study's tables, without empty ones."""
    figures = [draw() for draw in by_name(tables, cell).values()]
    return [figure for figure in figures if len(figure.table)]


def _decision_rows(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the rows of one cell, flipped against benign images, by each detector's rule."""
    rows = tables["detectors"]
    rows = rows[(rows["cell"] == cell) & rows["detector"].isin(DETECTORS)]
    rows = rows.query("positives == 'success' and negatives == 'both'")
    with_rule = rows.loc[rows["rule"] == "own", "detector"].unique()
    return rows[(rows["rule"] == "own") | ~rows["detector"].isin(with_rule)]


def figure_8a(tables: Tables, cell: str) -> Figure:
    """Returns the balanced accuracy of detectors by strength."""
    rows = _decision_rows(tables, cell).assign(order=lambda t: t["detector"].map(DETECTORS.index))
    rows = rows.sort_values(["order", "strength"]).dropna(subset=["balanced"])
    table = rows.assign(x=rows["strength"].map(percent)).rename(
        columns={"detector": "series", "balanced": "y", "balanced_low": "low",
                 "balanced_high": "high"}
    )  # fmt: skip
    return Figure(
        "tan_figure_8a",
        f"Balanced accuracy of detectors by strength ({cell})",
        "Mean of the shares of attacked images that are called adversarial and of clean and noisy "
        "images that are not; 0.5 is chance. Attacked images whose class flips, test images only. "
        "One fit for all strengths: detectors are calibrated, and thresholds chosen, at 100 %. "
        "Detectors decide by their own rule or, where they have none, above a threshold chosen on "
        "other images. Bars are bootstrap intervals, resampled by source picture.",
        "lines",
        table[["series", "x", "y", "low", "high"]].reset_index(drop=True),
        "strength of the attack, of its perturbation",
        "balanced accuracy",
        (0.0, 1.02),
    )


def figure_8b(tables: Tables, cell: str) -> Figure:
    """Returns the TPR and TNR of the paper's detectors by strength."""
    rows = _decision_rows(tables, cell)
    rows = rows[rows["detector"].isin(DETECTORS[:3])].dropna(subset=["tpr"])
    parts = [
        rows.assign(series=rows["detector"] + f", {rate.upper()}", y=rows[rate],
                    low=rows[f"{rate}_low"], high=rows[f"{rate}_high"])
        for rate in ("tpr", "tnr")
    ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    table["x"] = table["strength"].map(percent)
    return Figure(
        "tan_figure_8b",
        f"True positive and true negative rates by strength ({cell})",
        "TPR: share of attacked images, of those whose class flips, that are called adversarial. "
        "TNR: share of clean and noisy images that are not. By the paper's rules. One fit for all "
        "strengths, at 100 %: the table `detectors` has the rates of detectors that are fitted at "
        "each strength, which differ by the brightness of NoiseCAM that is chosen there.",
        "lines",
        table[["series", "x", "y", "low", "high"]],
        "strength of the attack, of its perturbation",
        "rate",
        (0.0, 1.02),
    )


def roc_curves(tables: Tables, cell: str) -> Figure:
    """Returns ROC curves at strength 1."""
    rows = tables["roc"]
    rows = rows[(rows["cell"] == cell) & (rows["strength"] == 1) & rows["detector"].isin(DETECTORS)]
    rows = rows.rename(columns={"detector": "series", "fpr": "x", "tpr": "y"})
    return Figure(
        "roc_curves",
        f"ROC curves of detectors at 100 % ({cell})",
        "Each point is a threshold on the detector's score: the share of clean and noisy images "
        "called adversarial against that of attacked images whose class flips. Chance is the "
        "diagonal; further up and left is better.",
        "lines",
        rows[["series", "x", "y"]].reset_index(drop=True),
        "false positive rate",
        "true positive rate",
        (0.0, 1.02),
    )


def auroc_under_adaptive_attack(tables: Tables, cell: str) -> Figure:
    """Returns each detector's AUROC under attacks that know it, beside one that does not."""
    rows = tables["adaptive"].query("cell == @cell").dropna(subset=["auroc"])
    rows = rows[rows["detector"] != "chance"]
    attacked = rows.groupby("detector")["arm"].transform("nunique") > 1
    table = (
        rows[attacked]
        .sort_values("arm", key=lambda arms: arms.map(ATTACKS.index), kind="stable")
        .assign(series=rows["arm"].map(adaptive.NAMES))
        .rename(columns={"detector": "x", "auroc": "y"})
    )
    return Figure(
        "auroc_under_adaptive_attack",
        f"Detectors under non-adaptive and adaptive attacks ({cell})",
        "AUROC, attacked images whose class flips against clean and noisy ones. "
        f"{adaptive.reading({'adaptive': rows})}",
        "bars",
        table[["series", "x", "y"]].reset_index(drop=True),
        "detector",
        "AUROC",
        (0.0, 1.02),
    )


def transfer(tables: Tables, detector: str) -> Figure:
    """Returns the AUROC of a detector by the attack and strength of fitting and of testing."""
    rows = tables["transfer"].query("detector == @detector")

    def label(cell: str, strength: str) -> pd.Series:
        return rows[cell] + " " + rows[strength].map(percent)

    table = pd.DataFrame({"series": label("fitted_cell", "fitted_strength"),
                          "x": label("cell", "strength"), "y": rows["auroc"]})  # fmt: skip
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


def detector_matrix(tables: Tables) -> Figure:
    """Returns the AUROC of every detector on every attack, see `matrix.table`."""
    rows = tables.get("matrix", pd.DataFrame(columns=["detector", "cell", "auroc"]))
    table = rows.rename(columns={"detector": "series", "cell": "x", "auroc": "y"})
    return Figure(
        "detector_matrix",
        "Every detector against every attack",
        "AUROC, attacked images whose class flips against clean ones and noise of that attack's "
        "size; 0.5 is chance. Detectors that are trained on attacked images have seen this attack.",
        "matrix",
        table[["series", "x", "y"]].dropna().reset_index(drop=True),
        "attack, by its cell",
        "detector",
        (0.0, 1.0),
    )


def pictures(*, blur: float) -> dict[str, tuple[str, str]]:
    """Returns title and caption of the figures that show pictures, by name.

    Args:
        blur: standard deviation of figure 1's blur, in px.
    """
    return {
        "tan_figure_1": (
            "A Gaussian blur as a defence",
            "One image attacked, with noise of the same size, and clean; right, each blurred "
            f"(standard deviation {blur:g} px). The first class is that before the blur, the "
            "second that after it.",
        ),
        "tan_figure_5": (
            "NoiseCAM of an attacked, a noisy and a clean image",
            "Grad-CAM++ and the four readings of NoiseCAM at its layer, each divided by its own "
            "maximum. The paper finds NoiseCAM dark for noisy and clean images.",
        ),
        "tan_figure_9": (
            "Attacked images, their perturbation and their maps",
            "The perturbation as it is, around grey, and stretched to its largest value; then the "
            "maps of the attacked image.",
        ),
    }


@dataclass(frozen=True)
class Examples:
    """The pictures and maps of a cell's examples.

    detected: of the cell.
    """

    detected: Detected

    @property
    def order(self) -> list[str]:
        """The variants of one image, in the order of the pictures."""
        return list(self.detected.examples["variant"][: self.detected.pictures.shape[1]])

    def label(self, variant: str) -> str:
        """Returns the name of a variant of the first image, with its predicted class."""
        rows = self.detected.examples.iloc[: len(self.order)].set_index("variant")
        return f"{VARIANT_NAMES[variant]}: {self._name(rows.loc[variant, 'prediction'])}"

    def label_blurred(self, variant: str) -> str:
        """Returns `label` with the class that is predicted after the blur in a second line."""
        rows = self.detected.features
        first = self.detected.examples["image"].iloc[0]
        mine = rows[(rows["image"] == first) & (rows["variant"] == variant)]
        number = mine.loc[mine["strength"].isin([0.0, 1.0]), "blurred"].iloc[0]
        return f"{self.label(variant)}\nblurred: {self._name(number)}"

    def _name(self, number: float) -> str:
        return dict(self.detected.facts["classes"]).get(int(number), f"class {int(number)}")

    def picture(self, example: int, variant: str) -> np.ndarray:
        """Returns a picture, uint8 (h, w, channels)."""
        return np.asarray(self.detected.pictures[example, self.order.index(variant)])

    def heat(self, example: int, variant: str, method: str) -> np.ndarray:
        """Returns a map as a picture of the same size."""
        place = self.detected.facts["methods"].index(method)
        values = self.detected.maps[example, self.order.index(variant), place]
        return coloured(np.asarray(values, dtype=np.float32), self.detected.pictures.shape[2:4])


ROWS = (ADVERSARIAL, NOISE, CLEAN)


def panels(detected: Detected, *, blur: float) -> list[Figure]:
    """Returns figures 1, 5 and 9: images and maps of attacked images, if NoiseCAM was evaluated.

    Args:
        detected: of the cell.
        blur: standard deviation of figure 1's blur, in px.
    """
    if not len(detected.pictures):
        return []
    examples, texts = Examples(detected), pictures(blur=blur)
    return [
        figure_1(examples, *texts["tan_figure_1"], blur=blur),
        figure_5(examples, *texts["tan_figure_5"]),
        figure_9(examples, *texts["tan_figure_9"]),
    ]


def figure_1(examples: Examples, title: str, caption: str, *, blur: float) -> Figure:
    """Returns an attacked, a noisy and a clean image, and each blurred."""
    plain = [examples.picture(0, variant) for variant in ROWS]
    smooth = [gaussian_filter(picture.astype(float), (blur, blur, 0)) for picture in plain]
    tiles = [[p, s.round().astype(np.uint8)] for p, s in zip(plain, smooth, strict=True)]
    labels = [examples.label_blurred(variant) for variant in ROWS]
    return panel("tan_figure_1", title, caption, tiles, ["image", "blurred"], labels)


def figure_5(examples: Examples, title: str, caption: str) -> Figure:
    """Returns the maps of an attacked, a noisy and a clean image."""
    tiles = [
        [examples.picture(0, v), *(examples.heat(0, v, name) for name in METHODS)] for v in ROWS
    ]
    labels = [examples.label(variant) for variant in ROWS]
    return panel("tan_figure_5", title, caption, tiles, ["image", *METHODS.values()], labels)


def figure_9(examples: Examples, title: str, caption: str) -> Figure:
    """Returns attacked images with their perturbation and their maps."""
    tiles = []
    for i in range(len(examples.detected.pictures)):
        change = examples.picture(i, ADVERSARIAL).astype(int) - examples.picture(i, CLEAN)
        plain = (128 + change).clip(0, 255).astype(np.uint8)
        strong = (128 + 127 * change / max(1, np.abs(change).max())).astype(np.uint8)
        maps = (
            examples.heat(i, ADVERSARIAL, name)
            for name in ("printed_logits", "grad_cam_plus_plus", "layer_cam")
        )
        tiles.append([examples.picture(i, ADVERSARIAL), plain, strong, *maps])
    columns = ["attacked", "perturbation", "stretched", "NoiseCAM", "Grad-CAM++", "LayerCAM"]
    labels = [f"image {i + 1}" for i in range(len(tiles))]
    return panel("tan_figure_9", title, caption, tiles, columns, labels)


METHODS = {
    "grad_cam_plus_plus": "Grad-CAM++",
    "printed_logits": "printed, logits",
    "printed_softmax": "printed, softmax",
    "code_logits": "code, logits",
    "code_softmax": "code, softmax",
}

"""The report of a study of detectors, and its tables as texts."""

import pandas as pd
from markupsafe import Markup

from camdrift.analysis import page as pages
from camdrift.analysis.drawing import Figure
from camdrift.analysis.page import Part
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.papers import claims
from camdrift.papers.findings import RULES
from camdrift.papers.tan2023 import adaptive, matrix
from camdrift.papers.tan2023.claims import CLAIMS
from camdrift.papers.tan2023.verdicts import FEW
from camdrift.settings import DetectorStudy, Settings


def evaluation(tables: Tables, cell: str, strength: float = 1.0) -> pd.DataFrame:
    """Returns the rates of detectors on a cell as texts: one row for each detector and rule.

    Attacked images whose class flips against clean and noisy ones, test images only.
    """
    rows = tables["detectors"]
    rows = rows[(rows["cell"] == cell) & (rows["strength"] == strength)]
    rows = rows.query("positives == 'success' and negatives == 'both'")
    elsewhere = tables["transfer"].query(
        "cell == @cell and strength == @strength and fitted_strength == 1 and fitted_cell != @cell"
    )
    texts = [
        {
            "detector": row["detector"],
            "trained on": row.get("trained_on", ""),
            "decides": {"own": "by its rule", "chosen": "above a chosen threshold"}[row["rule"]],
            "AUROC": as_text(row["auroc"], row["auroc_low"], row["auroc_high"]),
            "average precision": as_text(row["precision"], float("nan"), float("nan")),
            "TPR at 5 % FPR": as_text(row["tpr_at_5"], float("nan"), float("nan")),
            "TPR": as_text(row["tpr"], row["tpr_low"], row["tpr_high"]),
            "TNR": as_text(row["tnr"], row["tnr_low"], row["tnr_high"]),
            "balanced accuracy": as_text(
                row["balanced"], row["balanced_low"], row["balanced_high"]
            ),
            "attacked / benign": f"{row['n_positive']:g} / {row['n_negative']:g}",
            "AUROC, trained on another attack": _elsewhere(elsewhere, row),
            "note": row["note"],
        }
        for _, row in rows.iterrows()
    ]
    return pd.DataFrame(texts)


def probe(tables: Tables, cell: str) -> str:
    """Returns which layer behaviour deviation reads, and its rank beside that by the paper's place.

    The paper's block5_conv1 is the third conv layer from the end.
    """
    if "layers" not in tables:  # written by an earlier revision
        return ""
    layers = tables["layers"].query("cell == @cell").reset_index(drop=True)
    read = layers[layers["behaviour"].astype(bool)]
    if not len(read):
        return ""

    def rank(row: pd.Series) -> str:
        if pd.isna(row["rank"]):
            return f"without a rank, as {row['empty']:.0%} of its pairs have an empty map"
        return f"rank {row['rank']:.0f} of {len(layers)} (raw: {row['raw_rank']:.0f})"

    mine, placed = read.iloc[0], layers.iloc[-min(3, len(layers))]
    text = f"Behaviour deviation reads layer {mine['layer']}, {rank(mine)} by sensitivity to "
    text += "attack and noise above the floor on the calibration images"
    if mine["layer"] != placed["layer"]:
        text += f"; at the paper's place is {placed['layer']}, {rank(placed)}"
    return f"{text}."


def _elsewhere(transfer: pd.DataFrame, row: pd.Series) -> str:
    """Returns the AUROCs of a row's detector, trained on each other attack."""
    if row.get("trained_on") != row["cell"]:
        return ""
    others = transfer[transfer["detector"] == row["detector"]]
    return ", ".join(f"{other.fitted_cell} {other.auroc:.3f}" for other in others.itertuples())


def with_counts(rates: pd.DataFrame) -> pd.DataFrame:
    """Returns the texts of `evaluation` with the images behind each value; few ones are marked."""
    counted = rates.copy()
    for i, counts in rates["attacked / benign"].str.split(" / ").items():
        numbers = dict(zip(("TPR", "TNR"), counts, strict=True))
        numbers |= dict.fromkeys(("AUROC", "balanced accuracy"), " + ".join(counts))
        for column, count in numbers.items():
            least = min(float(number) for number in count.split(" + "))
            few = ", *few*" if least < FEW else ""
            if rates.loc[i, column]:
                counted.loc[i, column] = f"{rates.loc[i, column]} ({count}{few})"
    return counted


def disguise(tables: Tables, cell: str, strength: float = 1.0) -> pd.DataFrame:
    """Returns the rank correlation of NoiseCAM with the confidence as texts: a row per reading."""
    rows = tables["disguise"]
    rows = rows[(rows["cell"] == cell) & (rows["strength"] == strength)]
    readings = []
    for reading, part in rows.groupby("reading", sort=False):
        kinds = part.set_index("kind")
        row = {"reading": reading}
        for kind in ("all", "benign"):
            value = as_text(*kinds.loc[kind, ["spearman", "low", "high"]])
            row[f"rank correlation, {kind} images"] = value
        gain = kinds.loc["all", ["gain", "gain_low", "gain_high"]]
        readings.append(row | {"AUROC minus that of the confidence": as_text(*gain)})
    return pd.DataFrame(readings)


def page(name: str, settings: Settings, tables: Tables, figures: list[Figure]) -> str:
    """Returns the HTML of the report; class and file names in it are text, never markup."""
    study = settings.study(name, DetectorStudy)
    lead = Markup(
        "Study <code>{}</code>. Headline cell: <code>{}</code>. Numbers rest on this study's own "
        "images and model, not on those of any paper."
    ).format(name, study.headline)
    layers = tables["layers"].query("cell == @study.headline").drop(columns="cell")
    adaptive_rates = adaptive.texts(tables) if len(tables["adaptive"]) else None
    parts = [
        Part(text=lead),
        Part("Claims", f"{RULES} A verdict applies to the images and the model of this "
             "study, not to those of the paper.",
             claims.texts(tables, CLAIMS)),
        Part("Detectors", "Each detector sees one image, never its clean twin. Attacked images "
             "whose class flips, at strength 100 %, against clean and noisy images. Each "
             "detector is calibrated, its threshold chosen, and it is tested on different "
             "images.", evaluation(tables, study.headline)),
        Part("NoiseCAM and its rivals", "The detectors of the first claims by balanced accuracy, "
             "which depends on a threshold, and by AUROC, at each strength.",
             tables["rivals"].query("cell == @study.headline")),
        Part("Every detector against every attack",
             "AUROC at strength 100 %, as above. Elsewhere: the mean AUROC when trained on another "
             "attack. Adaptively: from an attack that does not know the detector to one that does, "
             "both within `detection.adaptive.eps`; without gradients: a random search within it "
             "for a lower score. Passes: forward ones of the model an image.",
             matrix.texts(tables)),
        Part("Detectors under attacks that know them",
             f"{adaptive.reading(tables)} Lowered: the share of images whose score is lower than "
             "under the non-adaptive attack, of those that both flip. The column on the cell's "
             "attack is against noise of that one's size, which is smaller."
             if adaptive_rates is not None else "Not run here.", adaptive_rates),
        Part("Is NoiseCAM the confidence in disguise?", "Rank correlation of its number of "
             "clusters with 1 minus the model's top probability, on test images, and the "
             "difference of their AUROCs.", disguise(tables, study.headline)),
        Part("The layer that behaviour deviation reads", probe(tables, study.headline), layers),
        Part("The most sensitive layer, one switch at a time", "The statistic of the claim on "
             "layers under each protocol.", claims.by_protocol(tables, study.headline)),
    ]  # fmt: skip
    return pages.page(study.title, parts, figures)

"""Tables of the evaluation of detectors."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_curve

from camdrift.analysis import statistics
from camdrift.detectors import noisecam
from camdrift.detectors.families import families
from camdrift.evaluation.evaluation import (
    Evaluation,
    draw_resamples,
    fit_detectors,
    rows_at_strength,
)
from camdrift.papers.tan2023 import adaptive, matrix
from camdrift.papers.tan2023.darkness import BLANK, Row, blankness
from camdrift.pipeline import randomness
from camdrift.settings import Cell, DetectionSettings, StatisticsSettings
from camdrift.storage import CLEAN, NOISE, Detected

# The contents of the tables, in a line each.
ABOUT = {
    "detectors": "AUROC, TPR, TNR, balanced accuracy by detector, rule, strength and kind of image",
    "judged": "score of each test image under each detector",
    "limits": "each detector's chosen threshold",
    "roc": "points of the ROC curves",
    "transfer": "AUROC of a detector fitted on one attack and strength, tested on another, on the "
    "same images",
    "adaptive": adaptive.ABOUT,
    "rivals": "balanced accuracy and AUROC of the best NoiseCAM minus those of its rivals",
    "layers": "sensitivity of each layer on the calibration images, and which one is read",
    "flags": "conditions that limit the validity of a verdict, and the claims affected",
    "blank": "share of NoiseCAM maps without a cluster, and their mass, normalised and as they are",
    "blur": "accuracy before and after a Gaussian blur",
    "disguise": "rank correlation of NoiseCAM and the model's confidence",
    "switches": "the finding of each protocol on the claim on layers",
    "matrix": matrix.ABOUT,
    "claims": "the published claims: statistic, threshold, value, verdict, published and corrected",
}
POSITIVES = ("success", "failure", "all")
NEGATIVES = ("clean", "noise", "both")
FEW = 300  # clean test images, the fewest for the TPR at an FPR of 1 %


def performance(evaluation: Evaluation, refitted: Evaluation | None = None) -> pd.DataFrame:
    """Returns the rates of each detector, for every kind of positives and negatives.

    Columns: `detector, rule, positives, negatives, n_positive, n_negative`; `auroc`, `balanced`,
    `tpr`, `tnr`, each with `_low` and `_high`; `precision` (average), `accuracy`, `tpr_at_5`,
    `tpr_at_1` (missing below 300 clean test images), `note`; for successes against clean and noisy
    images `auroc_refitted` and so on, of detectors that are fitted, and whose thresholds are
    chosen, at the tested strength.

    Args:
        evaluation: of the detectors.
        refitted: the evaluation of those that are fitted at the tested strength, None for none.
    """
    rows: list[Row] = []
    clean = int((evaluation.test["kind"] == CLEAN).sum())
    for name, detector in evaluation.detectors.items():
        for rule in ("own", "chosen") if detector.own_rule else ("chosen",):
            for positives in POSITIVES:
                for negatives in NEGATIVES:
                    row: Row = {"detector": name, "rule": rule, "positives": positives,
                           "negatives": negatives, "note": ""}  # fmt: skip
                    if detector.unfit:
                        rows.append(row | {"note": detector.unfit})
                        continue
                    row |= _numbers(evaluation, name, rule, positives, negatives, clean)
                    if (positives, negatives) == ("success", "both") and refitted is not None:
                        row |= _refitted_rates(refitted, name, rule)
                    rows.append(row)
    return pd.DataFrame(rows, columns=RATES)


def trained_on(evaluation: Evaluation, cell: str) -> dict[str, str]:
    """Returns the images that each detector's score is fitted to, by detector.

    'none', 'benign images', or the name of the cell whose attacked images it has seen. The layer of
    behaviour deviation, which the tested cell's calibration images may choose, is not counted.
    """
    names = {"none": "none", "benign": "benign images", "attacked": cell}
    return {name: names[each.trained_on] for name, each in evaluation.detectors.items()}


def _refitted_rates(evaluation: Evaluation, name: str, rule: str) -> Row:
    yes, no = evaluation.members("success", "both")
    if evaluation.detectors[name].unfit or not len(yes) or not len(no):
        return {}
    alarms = evaluation.alarms(name, rule)
    rates = {"tpr": alarms[yes].mean(), "tnr": (~alarms[no]).mean()}
    rates |= {"auroc": evaluation.auroc(name, "success", "both")[0]}
    rates |= {"balanced": (rates["tpr"] + rates["tnr"]) / 2}
    return {f"{rate}_refitted": value for rate, value in rates.items()}


# Columns of `performance`; some are of no row where no detector could be fitted.
RATES = [
    "detector", "rule", "positives", "negatives", "note", "n_positive", "n_negative",
    *(f"{rate}{end}" for rate in ("auroc", "tpr", "tnr", "balanced")
      for end in ("", "_low", "_high")),
    "precision", "accuracy", "tpr_at_5", "tpr_at_1",
    *(f"{rate}_refitted" for rate in ("auroc", "tpr", "tnr", "balanced")),
]  # fmt: skip


def _numbers(
    evaluation: Evaluation, name: str, rule: str, positives: str, negatives: str, clean: int
) -> Row:
    yes, no = evaluation.members(positives, negatives)
    row: Row = {"n_positive": len(yes), "n_negative": len(no)}
    if not len(yes) or not len(no):
        return row | {"note": f"no test image of the kind '{positives}'"}
    alarms, scores = evaluation.alarms(name, rule), evaluation.scores[name]
    balanced = (evaluation.rate(alarms, yes) + evaluation.rate(~alarms, no)) / 2
    for key, estimate in {
        "auroc": evaluation.interval(evaluation.auroc(name, positives, negatives)),
        "tpr": evaluation.share(alarms, yes),
        "tnr": evaluation.share(~alarms, no),
        "balanced": evaluation.interval(balanced),
    }.items():
        row[key], row[f"{key}_low"], row[f"{key}_high"] = estimate
    truth = np.isin(np.concatenate([yes, no]), yes)
    row["precision"] = average_precision_score(truth, scores[np.concatenate([yes, no])])
    row["accuracy"] = (alarms[yes].sum() + (~alarms[no]).sum()) / (len(yes) + len(no))
    for share in (0.05, 0.01):
        limit = np.quantile(scores[no], 1 - share, method="higher")
        value = (scores[yes] > limit).mean() if share > 0.01 or clean >= FEW else np.nan
        row[f"tpr_at_{100 * share:.0f}"] = value
    if clean < FEW:
        row["note"] = f"TPR at 1 %: too few images ({clean} clean, wanted {FEW})"
    return row


def curves(evaluation: Evaluation) -> pd.DataFrame:
    """Returns ROC curves, successes against clean and noisy images: `detector, fpr, tpr`."""
    yes, no = evaluation.members("success", "both")
    if not len(yes) or not len(no) or not evaluation.scores:
        return pd.DataFrame(columns=["detector", "fpr", "tpr"])
    both = np.concatenate([yes, no])
    parts = []
    for name, scores in evaluation.scores.items():
        fpr, tpr, _ = roc_curve(np.isin(both, yes), scores[both])
        parts.append(pd.DataFrame({"detector": name, "fpr": fpr, "tpr": tpr}))
    return pd.concat(parts, ignore_index=True)


def image_scores(evaluation: Evaluation) -> pd.DataFrame:
    """Returns each detector's score of each test image: `image, kind`, a column for each detector.

    A score is missing if the detector's fitting failed.
    """
    scores = {name: evaluation.scores.get(name, np.nan) for name in evaluation.detectors}
    return evaluation.test[["image", "kind"]].assign(**scores)


def limits(evaluation: Evaluation) -> pd.DataFrame:
    """Returns the chosen threshold of each detector, if there is one: `detector, limit`."""
    rows = [(name, evaluation.threshold(name)) for name in evaluation.scores]
    return pd.DataFrame(rows, columns=["detector", "limit"])


def transfer(evaluations: Iterator[tuple[dict, Evaluation]]) -> pd.DataFrame:
    """Returns the rates of detectors that were fitted on one attack or strength, on another.

    Columns: those of the facts beside each evaluation, `detector, trained_on` (see `trained_on`),
    `auroc, balanced`.
    """
    rows: list[Row] = []
    for facts, evaluation in evaluations:
        yes, no = evaluation.members("success", "both")
        if not len(yes) or not len(no):
            continue
        training = trained_on(evaluation, facts["fitted_cell"])
        for name in evaluation.scores:
            alarms = evaluation.detectors[name].predict(evaluation.test)
            balanced = (alarms[yes].mean() + (~alarms[no]).mean()) / 2
            row = facts | {"detector": name, "trained_on": training[name], "balanced": balanced}
            rows.append(row | {"auroc": evaluation.auroc(name, "success", "both")[0]})
    return pd.DataFrame(rows, columns=TABLES["transfer"])


def blurring(evaluation: Evaluation) -> pd.DataFrame:
    """Returns the effect of a blur: a row for 'clean', 'noise', 'success' and 'failure' each.

    Test images only. Columns: `kind, images`; `before` and `after`, share of right predictions;
    `lost`, their difference, with `low` and `high`; `restored`, share of images on which the blur
    restores the class of the clean image.
    """
    rows = []
    test = evaluation.test
    right = (test["prediction"] == test["label"]).to_numpy(dtype=float)
    after = (test["blurred"] == test["label"]).to_numpy(dtype=float)
    back = (test["blurred"] == test["clean"]).to_numpy(dtype=float)
    for kind in (CLEAN, NOISE, "success", "failure"):
        places = np.flatnonzero(test["kind"] == kind)
        if len(places):
            lost = evaluation.interval(evaluation.rate(right - after, places))
            row = {"kind": kind, "images": len(places), "before": right[places].mean(),
                   "after": after[places].mean(), "restored": back[places].mean()}  # fmt: skip
            rows.append(row | dict(zip(("lost", "low", "high"), lost, strict=True)))
    return pd.DataFrame(rows)


DISGUISE = ("reading", "kind", "images", "spearman", "low", "high", "gain", "gain_low",
            "gain_high")  # fmt: skip


def disguise(evaluation: Evaluation) -> pd.DataFrame:
    """Returns the agreement of NoiseCAM and the model's confidence by reading and kind.

    Kinds of test images are 'all' and 'benign'. Columns: `reading, kind, images`; `spearman`, rank
    correlation of the number of clusters with 1 minus the top probability, with `low` and `high`;
    `gain`, NoiseCAM's AUROC minus that of the confidence on the same images (successes against
    clean and noisy ones), with `gain_low` and `gain_high`; missing for 'benign'.
    """
    rows: list[Row] = []
    if "confidence" not in evaluation.scores:
        return pd.DataFrame(rows, columns=DISGUISE)
    doubt = 1 + evaluation.scores["confidence"]
    yes, no = evaluation.members("success", "both")
    everyone = np.arange(len(evaluation.test))
    for name in noisecam.NAMES:
        if name not in evaluation.scores:
            continue
        for kind, places in (("all", everyone), ("benign", no)):
            pair = evaluation.scores[name][places], doubt[places]
            correlation = evaluation.interval(
                statistics.spearman(*pair, weights=evaluation.counts(places))
            )
            row: Row = {
                "reading": name.removeprefix("noisecam_"), "kind": kind, "images": len(places)
            }  # fmt: skip
            row |= dict(zip(("spearman", "low", "high"), correlation, strict=True))
            if kind == "all" and len(yes) and len(no):
                pairs = [evaluation.auroc(one, "success", "both") for one in (name, "confidence")]
                gain = evaluation.interval(pairs[0] - pairs[1])
                row |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=DISGUISE)


def study_tables(
    cells: dict[str, tuple[Cell, Detected]],
    detection: DetectionSettings,
    settings: StatisticsSettings,
    *,
    seed: int,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[float, Evaluation]]]:
    """Returns the tables of the evaluation of detectors, and the evaluations by cell and strength.

    Detectors are fitted once, and their thresholds chosen, at strength 1 of the cell, and tested at
    every strength: who meets an attack does not know its strength. In `transfer` they are fitted
    at each strength.

    Each has the column `cell` and, except `adaptive` and `transfer`, `strength`. They are
    detectors (see `performance`), roc (`curves`), judged, limits, transfer, adaptive, blur
    (`blurring`), blank (`blankness`) and disguise.

    Args:
        cells: each cell that names strengths for detectors, with its features.
        detection: settings of the detection.
        settings: of the intervals.
        seed: of the resamples.
    """
    parts_by_table: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    evaluations: dict[str, dict[float, Evaluation]] = {}
    refitted: dict[str, dict[float, Evaluation]] = {}
    for key, (cell, detected) in cells.items():
        rng = randomness.generator(seed, "detection", cell.set)
        count = statistics.required_resamples(
            settings.resamples,
            comparisons=math.comb(len(cell.detect), 2),  # those of B4: every pair of strengths
            confidence=settings.confidence,
        )
        weights = draw_resamples(detected.images, resamples=count, rng=rng)
        refitted[key] = {}
        for strength in cell.detect:
            detectors = fit_detectors(
                detected.features, detected.images, strength, families(detection)
            )
            rows = rows_at_strength(detected.features, detected.images, strength)
            # Point estimates only: no resamples.
            refitted[key][strength] = Evaluation(detectors, rows, settings.confidence, weights[:0])
        fitted_once = replace(refitted[key][1.0], weights=weights)
        evaluations[key] = {}
        for strength, own in refitted[key].items():
            evaluation = fitted_once.tested_on(own.rows)
            evaluations[key][strength] = evaluation
            for name, table in (
                ("detectors", performance(evaluation, own)),
                ("roc", curves(evaluation)),
                ("judged", image_scores(evaluation)),
                ("limits", limits(evaluation)),
                ("blur", blurring(evaluation)),
                ("blank", blankness(evaluation)),
                ("disguise", disguise(evaluation)),
            ):
                table = table.assign(cell=key, strength=strength)
                if name == "detectors":
                    table["trained_on"] = table["detector"].map(trained_on(evaluation, key))
                parts_by_table[name].append(table)
        if cell.adaptive:
            table = adaptive.table(detected.features, detected.images, evaluations[key][1.0])
            parts_by_table["adaptive"].append(table.assign(cell=key))
    alike: dict[tuple, dict[str, dict[float, Evaluation]]] = {}
    for key, (cell, detected) in cells.items():
        alike.setdefault(_tried(cell, detected), {})[key] = refitted[key]
    parts_by_table["transfer"] += [transfer(_pairs(group)) for group in alike.values()]
    whole = {
        name: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        for (name, columns), parts in zip(TABLES.items(), parts_by_table.values(), strict=True)
    }
    return {n: t[[*(c for c in TABLES[n] if c in t), *t.columns.difference(TABLES[n], sort=False)]]
            for n, t in whole.items()}, evaluations  # fmt: skip


def _tried(cell: Cell, detected: Detected) -> tuple:
    """Returns model, set, and the split of each image: detectors pass on where all are the same."""
    splits = detected.images[["image", "split"]].itertuples(index=False, name=None)
    return cell.model, cell.set, *splits


# The first columns of each table, which are also those of a table without rows.
TABLES = {
    "detectors": ["cell", "strength", "detector", "trained_on", *RATES[1:]],
    "roc": ["cell", "strength", "detector", "fpr", "tpr"],
    "judged": ["cell", "strength", "image", "kind"],
    "limits": ["cell", "strength", "detector", "limit"],
    "transfer": [
        "fitted_cell", "fitted_strength", "cell", "strength", "detector", "trained_on", "auroc",
        "balanced",
    ],
    "adaptive": ["cell", *adaptive.COLUMNS],
    "blur": ["cell", "strength", "kind"],
    "blank": ["cell", "strength", *BLANK],
    "disguise": ["cell", "strength", "reading", "kind"],
}  # fmt: skip


def _pairs(evaluations: dict[str, dict[float, Evaluation]]) -> Iterator[tuple[dict, Evaluation]]:
    """Yields an evaluation for every pair of attack and strength in fitting and in testing."""
    for fitted_cell, by_strength in evaluations.items():
        for fitted_strength, evaluation in by_strength.items():
            for cell, others in evaluations.items():
                for strength, other in others.items():
                    facts = {"fitted_cell": fitted_cell, "fitted_strength": fitted_strength,
                             "cell": cell, "strength": strength}  # fmt: skip
                    yield facts, evaluation.tested_on(other.rows)

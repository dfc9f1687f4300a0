"""What the detectors' trials come to, as tables."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_curve

from camdrift.analysis import statistics
from camdrift.detectors import noisecam
from camdrift.detectors.families import families
from camdrift.pipeline import randomness
from camdrift.settings import Cell, DetectionSettings, StatisticsSettings
from camdrift.storage import ADAPTIVE, CLEAN, NOISE, OBLIVIOUS, Detected
from camdrift.trial.evaluation import Trial, calls, draws, fitted, told

# What the tables hold, in a line each.
ABOUT = {
    "detectors": "AUROC, TPR, TNR, balanced accuracy by detector, rule, strength and kind of image",
    "judged": "score of each test image under each detector",
    "limits": "each detector's chosen threshold",
    "roc": "points of the ROC curves",
    "transfer": "AUROC of a detector fitted on one attack and strength, tested on another",
    "knowing": "AUROC without and with an attack that knows the detector",
    "blank": "share of NoiseCAM maps without a cluster, and their mass",
    "blur": "accuracy before and after a Gaussian blur",
    "disguise": "rank correlation of NoiseCAM and the model's confidence",
}
POSITIVES = ("success", "failure", "all")
NEGATIVES = ("clean", "noise", "both")
Row = dict[str, float | int | str]
FEW = 300  # clean test images without which a rate of 1 % is not told


def performance(trial: Trial) -> pd.DataFrame:
    """Returns how well each detector does, for every kind of positives and negatives.

    Columns: `detector, rule, positives, negatives, n_positive, n_negative`; `auroc`, `balanced`,
    `tpr`, `tnr`, each with `_low` and `_high`; `precision` (average), `accuracy`, `tpr_at_5`,
    `tpr_at_1` (missing below 300 clean test images: too few), `note`.
    """
    rows: list[Row] = []
    clean = int((trial.test["kind"] == CLEAN).sum())
    for name, detector in trial.fitted.items():
        for rule in ("own", "chosen") if detector.own_rule else ("chosen",):
            for positives in POSITIVES:
                for negatives in NEGATIVES:
                    row: Row = {"detector": name, "rule": rule, "positives": positives,
                           "negatives": negatives, "note": ""}  # fmt: skip
                    if detector.unfit:
                        rows.append(row | {"note": detector.unfit})
                        continue
                    rows.append(row | _numbers(trial, name, rule, positives, negatives, clean))
    return pd.DataFrame(rows)


def _numbers(trial: Trial, name: str, rule: str, positives: str, negatives: str, clean: int) -> Row:
    yes, no = trial.members(positives, negatives)
    row: Row = {"n_positive": len(yes), "n_negative": len(no)}
    if not len(yes) or not len(no):
        return row | {"note": f"no test image of the kind '{positives}'"}
    called, scores = trial.called(name, rule), trial.scores[name]
    balanced = (trial.rate(called, yes) + trial.rate(~called, no)) / 2
    for key, estimate in {
        "auroc": trial.interval(trial.auroc(name, positives, negatives)),
        "tpr": trial.share(called, yes),
        "tnr": trial.share(~called, no),
        "balanced": trial.interval(balanced),
    }.items():
        row[key], row[f"{key}_low"], row[f"{key}_high"] = estimate
    truth = np.isin(np.concatenate([yes, no]), yes)
    row["precision"] = average_precision_score(truth, scores[np.concatenate([yes, no])])
    right = called[yes].sum() + (~called[no]).sum()
    row["accuracy"] = right / (len(yes) + len(no))
    for share in (0.05, 0.01):
        limit = np.quantile(scores[no], 1 - share, method="higher")
        value = (scores[yes] > limit).mean() if share > 0.01 or clean >= FEW else np.nan
        row[f"tpr_at_{100 * share:.0f}"] = value
    if clean < FEW:
        row["note"] = f"TPR at 1 %: too few images ({clean} clean, wanted {FEW})"
    return row


def curves(trial: Trial) -> pd.DataFrame:
    """Returns ROC curves, successes against clean and noisy images: `detector, fpr, tpr`."""
    yes, no = trial.members("success", "both")
    if not len(yes) or not len(no) or not trial.scores:
        return pd.DataFrame(columns=["detector", "fpr", "tpr"])
    both = np.concatenate([yes, no])
    parts = []
    for name, scores in trial.scores.items():
        wrong, right, _ = roc_curve(np.isin(both, yes), scores[both])
        parts.append(pd.DataFrame({"detector": name, "fpr": wrong, "tpr": right}))
    return pd.concat(parts, ignore_index=True)


def judged(trial: Trial) -> pd.DataFrame:
    """Returns each detector's score of each test image: `image, kind`, a column a detector.

    Missing where a detector could not be fitted.
    """
    scores = {name: trial.scores.get(name, np.nan) for name in trial.fitted}
    return trial.test[["image", "kind"]].assign(**scores)


def limits(trial: Trial) -> pd.DataFrame:
    """Returns the chosen threshold of each detector: `detector, limit`, missing where none is."""
    rows = [(name, trial.limit(name)) for name in trial.scores]
    return pd.DataFrame(rows, columns=["detector", "limit"])


def transfer(trials: Iterator[tuple[dict, Trial]]) -> pd.DataFrame:
    """Returns how detectors fitted on one attack or strength do on another.

    Columns: those that come with each trial, `detector, auroc, balanced`.
    """
    rows = []
    for facts, trial in trials:
        yes, no = trial.members("success", "both")
        if not len(yes) or not len(no):
            continue
        for name in trial.scores:
            called = trial.fitted[name].predict(trial.test)
            balanced = (called[yes].mean() + (~called[no]).mean()) / 2
            auroc = trial.auroc(name, "success", "both")[0]
            rows.append(facts | {"detector": name, "auroc": auroc, "balanced": balanced})
    names = [*TABLES["transfer"], "auroc", "balanced"]
    return pd.DataFrame(rows, columns=names)


def knowing(features: pd.DataFrame, images: pd.DataFrame, trial: Trial) -> pd.DataFrame:
    """Returns each detector's AUROC against an attack that knows it, beside one that does not.

    At the same budget, attacked test images whose class flips against clean and noisy ones.
    Columns: `detector, arm` ('oblivious' or 'adaptive'), `images, flipped, auroc, low, high`.
    """
    rows = []
    benign = trial.test[trial.test["kind"].isin([CLEAN, NOISE])]
    for name, detector in trial.fitted.items():
        for arm in (OBLIVIOUS, ADAPTIVE):
            mine = features[features["variant"] == arm]
            mine = mine[(mine["against"] == name) | (arm == OBLIVIOUS)]
            if not len(mine) or detector.unfit:
                continue
            attacked = told(mine, images)
            both = pd.concat([benign, attacked], ignore_index=True)
            part = Trial({name: detector}, both, trial.confidence, trial.weights)
            row = {"detector": name, "arm": arm, "images": len(attacked),
                   "flipped": float((attacked["kind"] == "success").mean())}  # fmt: skip
            if row["flipped"]:
                values = part.interval(part.auroc(name, "success", "both"))
                row |= dict(zip(("auroc", "low", "high"), values, strict=True))
            rows.append(row)
    names = ["detector", "arm", "images", "flipped", "auroc", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def blurring(trial: Trial) -> pd.DataFrame:
    """Returns what a blur does: a row each of 'clean', 'noise', 'success' and 'failure'.

    Of the test images. Columns: `kind, images`; `before` and `after`, share of right predictions;
    `lost`, their difference, with `low` and `high`; `restored`, share of images on which the blur
    brings back the class of the clean image.
    """
    rows = []
    test = trial.test
    right = (test["prediction"] == test["label"]).to_numpy(dtype=float)
    after = (test["blurred"] == test["label"]).to_numpy(dtype=float)
    back = (test["blurred"] == test["clean"]).to_numpy(dtype=float)
    for kind in (CLEAN, NOISE, "success", "failure"):
        mine = np.flatnonzero(test["kind"] == kind)
        if len(mine):
            lost = trial.interval(trial.rate(right - after, mine))
            row = {"kind": kind, "images": len(mine), "before": right[mine].mean(),
                   "after": after[mine].mean(), "restored": back[mine].mean()}  # fmt: skip
            rows.append(row | dict(zip(("lost", "low", "high"), lost, strict=True)))
    return pd.DataFrame(rows)


def blankness(trial: Trial) -> pd.DataFrame:
    """Returns how dark NoiseCAM's maps are: a row a reading and kind of test images.

    Columns: `reading, kind, images, without_clusters` (at the chosen brightness), with `low` and
    `high`; `mass`, mean of the normalised map; `relative_mass`, over that of successes.
    """
    rows = []
    test = trial.test
    for name in noisecam.NAMES:
        if name not in trial.scores:
            continue
        reading = name.removeprefix("noisecam_")
        masses = test.groupby("kind")[f"mass_{reading}"].mean()
        for kind in (CLEAN, NOISE, "success", "failure"):
            mine = np.flatnonzero(test["kind"] == kind)
            if len(mine):
                blank = trial.share(trial.scores[name] == 0, mine)
                row = {"reading": reading, "kind": kind, "images": len(mine),
                       "mass": masses[kind],
                       "relative_mass": masses[kind] / masses.get("success", np.nan)}  # fmt: skip
                names = ("without_clusters", "low", "high")
                rows.append(row | dict(zip(names, blank, strict=True)))
    return pd.DataFrame(rows)


DISGUISE = ("reading", "kind", "images", "spearman", "low", "high", "gain", "gain_low",
            "gain_high")  # fmt: skip


def disguise(trial: Trial) -> pd.DataFrame:
    """Returns how much of NoiseCAM is the model's confidence: a row a reading and kind of images.

    Of the test images, 'all' or 'benign'. Columns: `reading, kind, images`; `spearman`, rank
    correlation of the number of clusters with 1 minus the top probability, with `low` and `high`;
    `gain`, NoiseCAM's AUROC minus that of the confidence on the same images (successes against
    clean and noisy ones), with `gain_low` and `gain_high`; missing for 'benign'.
    """
    rows: list[Row] = []
    if "confidence" not in trial.scores:
        return pd.DataFrame(rows, columns=DISGUISE)
    doubt = 1 + trial.scores["confidence"]
    yes, no = trial.members("success", "both")
    everyone = np.arange(len(trial.test))
    for name in noisecam.NAMES:
        if name not in trial.scores:
            continue
        for kind, mine in (("all", everyone), ("benign", no)):
            pair = trial.scores[name][mine], doubt[mine]
            found = trial.interval(statistics.spearman(*pair, weights=trial.drawn(mine)))
            row: Row = {
                "reading": name.removeprefix("noisecam_"), "kind": kind, "images": len(mine)
            }  # fmt: skip
            row |= dict(zip(("spearman", "low", "high"), found, strict=True))
            if kind == "all" and len(yes) and len(no):
                pairs = [trial.auroc(one, "success", "both") for one in (name, "confidence")]
                gain = trial.interval(pairs[0] - pairs[1])
                row |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=DISGUISE)


def of_study(
    seen: dict[str, tuple[Cell, Detected]],
    chosen: DetectionSettings,
    settings: StatisticsSettings,
    *,
    seed: int,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[float, Trial]]]:
    """Returns the tables of the detectors' trials, and the trials by cell and strength.

    Tables, each with the columns `cell` and, but for `knowing` and `transfer`, `strength`:
    detectors (see `performance`), roc (`curves`), judged, limits, transfer, knowing, blur
    (`blurring`), blank (`blankness`) and disguise.

    Args:
        seen: what detectors saw of each cell that names strengths for them.
        chosen: settings of the detection.
        settings: of the intervals.
        seed: of the resamples.
    """
    made: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    trials: dict[str, dict[float, Trial]] = {}
    rows: dict[tuple[str, float], pd.DataFrame] = {}
    for key, (cell, detected) in seen.items():
        rng = randomness.generator(seed, "detection", cell.set)
        count = statistics.required_resamples(
            settings.resamples,
            comparisons=math.comb(len(cell.detect), 2),  # B4's: of each two strengths
            confidence=settings.confidence,
        )
        weights = draws(detected.images, resamples=count, rng=rng)
        for strength in cell.detect:
            rows[key, strength] = calls(detected.features, detected.images, strength)
            detectors = fitted(detected.features, detected.images, strength, families(chosen))
            trial = Trial(detectors, rows[key, strength], settings.confidence, weights)
            trials.setdefault(key, {})[strength] = trial
            for name, table in (
                ("detectors", performance(trial)),
                ("roc", curves(trial)),
                ("judged", judged(trial)),
                ("limits", limits(trial)),
                ("blur", blurring(trial)),
                ("blank", blankness(trial)),
                ("disguise", disguise(trial)),
            ):
                made[name].append(table.assign(cell=key, strength=strength))
        if cell.adaptive:
            table = knowing(detected.features, detected.images, trials[key][1.0])
            made["knowing"].append(table.assign(cell=key))
    for model, name in dict.fromkeys((cell.model, cell.set) for cell, _ in seen.values()):
        mine = [k for k, (cell, _) in seen.items() if (cell.model, cell.set) == (model, name)]
        pairs = _pairs({key: trials[key] for key in mine}, rows)
        made["transfer"].append(transfer(pairs))
    whole = {
        name: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        for (name, columns), parts in zip(TABLES.items(), made.values(), strict=True)
    }
    return {n: t[[*(c for c in TABLES[n] if c in t), *t.columns.difference(TABLES[n], sort=False)]]
            for n, t in whole.items()}, trials  # fmt: skip


# Of the tables: the columns that come first, and those of a table without rows.
TABLES = {
    "detectors": ["cell", "strength", "detector"],
    "roc": ["cell", "strength", "detector", "fpr", "tpr"],
    "judged": ["cell", "strength", "image", "kind"],
    "limits": ["cell", "strength", "detector", "limit"],
    "transfer": ["fitted_cell", "fitted_strength", "cell", "strength", "detector"],
    "knowing": ["cell", "detector", "arm", "images", "flipped", "auroc", "low", "high"],
    "blur": ["cell", "strength", "kind"],
    "blank": ["cell", "strength", "reading", "kind"],
    "disguise": ["cell", "strength", "reading", "kind"],
}


def _pairs(
    trials: dict[str, dict[float, Trial]], rows: dict[tuple[str, float], pd.DataFrame]
) -> Iterator[tuple[dict, Trial]]:
    """Yields every trial fitted on one attack and strength and tested on one."""
    for fitted_cell, by_strength in trials.items():
        for fitted_strength, trial in by_strength.items():
            for cell, others in trials.items():
                for strength in others:
                    facts = {"fitted_cell": fitted_cell, "fitted_strength": fitted_strength,
                             "cell": cell, "strength": strength}  # fmt: skip
                    # A point alone: no resamples.
                    yield (
                        facts,
                        replace(trial, rows=rows[cell, strength], weights=trial.weights[:0]),
                    )

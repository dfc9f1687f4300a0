"""The detectors' trial: fitted on some images, chosen on others, tested on the rest."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_curve

from camdrift import detectors, randomness, statistics
from camdrift.artifacts import ADAPTIVE, ADVERSARIAL, CLEAN, NOISE, OBLIVIOUS, Detected
from camdrift.detectors import Detector, UnfitError
from camdrift.settings import Cell, DetectionSettings, StatisticsSettings

POSITIVES = ("success", "failure", "all")
NEGATIVES = ("clean", "noise", "both")
Row = dict[str, float | int | str]
FEW = 300  # clean test images without which a rate of 1 % is not told


def fitted(
    features: pd.DataFrame, images: pd.DataFrame, strength: float, chosen: DetectionSettings
) -> dict[str, Detector | str]:
    """Returns every detector fitted on the calibrating images, or why it could not be.

    Benign are the clean and the noisy images, adversarial those whose class the attack flips at
    that strength.
    """
    rows = calls(features, images, strength)
    rows = rows[(rows["split"] == "calibrate") & (rows["kind"] != "failure")]
    adversarial = (rows["kind"] == "success").to_numpy()
    found: dict[str, Detector | str] = {}
    for name in detectors.NAMES:
        made = detectors.make(name, thresholds=len(chosen.brightness), clusters=chosen.clusters)
        try:
            found[name] = made.fit(rows, adversarial)
        except UnfitError as fault:
            found[name] = str(fault)
    return found


def calls(features: pd.DataFrame, images: pd.DataFrame, strength: float) -> pd.DataFrame:
    """Returns the features of clean, attacked and noisy images at a strength.

    With `split`, `source`, `clean` (prediction) and `kind`: 'clean', 'noise', or for the attacked
    'success' where the prediction is not that on the clean image, else 'failure'.
    """
    at = (features["strength"] == strength) & features["variant"].isin([ADVERSARIAL, NOISE])
    rows = features[at | (features["variant"] == CLEAN)]
    return _told(rows, images)


def _told(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    facts = images.set_index("image")[["split", "source", "label", "clean"]]
    rows = rows.join(facts, on="image").reset_index(drop=True)
    flipped = np.where(rows["prediction"] != rows["clean"], "success", "failure")
    benign = rows["variant"].isin([CLEAN, NOISE])
    return rows.assign(kind=np.where(benign, rows["variant"], flipped))


@dataclass(frozen=True)
class Trial:
    """Detectors fitted at one strength of a cell, tested on the rows of one strength of a cell.

    fitted: as `fitted` returns it.
    rows: as `calls` returns it, of the tested cell and strength.
    confidence: of the intervals.
    weights: (resamples, test images), see `draws`; an image's variants, clean, attacked and noisy,
        are drawn together.
    """

    fitted: dict[str, Detector | str]
    rows: pd.DataFrame
    confidence: float
    weights: np.ndarray

    @cached_property
    def test(self) -> pd.DataFrame:
        """Rows of the test images."""
        return self.rows[self.rows["split"] == "test"].reset_index(drop=True)

    @cached_property
    def place(self) -> np.ndarray:
        """The test image, counted from 0, of each test row."""
        return np.unique(self.test["image"], return_inverse=True)[1]

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Scores of the test rows by detector, of those that could be fitted."""
        known = self.fitted.items()
        return {name: d.score_samples(self.test) for name, d in known if not isinstance(d, str)}

    def called(self, name: str, rule: str) -> np.ndarray:
        """Returns which test rows are called adversarial: bool (n,).

        By the detector's own rule ('own'), or above the score at which it is most often right on
        the choosing images, both kinds weighing the same ('chosen').
        """
        detector = self.fitted[name]
        assert not isinstance(detector, str)
        if rule == "own":
            return detector.predict(self.test)
        rows = self.rows[(self.rows["split"] == "choose") & (self.rows["kind"] != "failure")]
        adversarial = (rows["kind"] == "success").to_numpy()
        if adversarial.all() or not adversarial.any():
            return detector.predict(self.test)
        wrong, right, limits = roc_curve(adversarial, detector.score_samples(rows))
        best = int(np.argmax(right - wrong))
        return self.scores[name] >= limits[best]

    def members(self, positives: str, negatives: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the places of the test rows of each kind."""
        wanted = {"all": ["success", "failure"], "both": [CLEAN, NOISE]}
        kinds = self.test["kind"]
        return tuple(
            np.flatnonzero(kinds.isin(wanted.get(name, [name]))) for name in (positives, negatives)
        )  # type: ignore[return-value]

    @cached_property
    def _known(self) -> dict[tuple[str, str, str], np.ndarray]:
        return {}

    def auroc(self, name: str, positives: str, negatives: str) -> np.ndarray:
        """Returns the AUROC, and behind it that of each resample: (1 + resamples,).

        The chance that an attacked image scores above a benign one, half for a tie.
        """
        key = (name, positives, negatives)
        if key not in self._known:
            self._known[key] = self._auroc(*key)
        return self._known[key]

    def _auroc(self, name: str, positives: str, negatives: str) -> np.ndarray:
        yes, no = self.members(positives, negatives)
        scores = self.scores[name]
        above = (scores[yes][:, None] > scores[no]) + 0.5 * (scores[yes][:, None] == scores[no])
        mine, others = self._weights(yes), self._weights(no)
        with np.errstate(invalid="ignore"):
            pairs = mine.sum(1) * others.sum(1)
            return np.einsum("ri,ij,rj->r", mine, above, others, optimize=True) / pairs

    def rate(self, called: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Returns the share of some test rows that are called, and that of each resample."""
        weights = self._weights(members)
        with np.errstate(invalid="ignore"):
            return weights @ called[members] / weights.sum(1)

    def _weights(self, members: np.ndarray) -> np.ndarray:
        drawn = self.weights[:, self.place[members]]
        return np.concatenate([np.ones((1, len(members))), drawn])

    def balanced(self, name: str, rule: str, negatives: str = "both") -> np.ndarray:
        """Returns the mean of TPR and TNR, successes against benign images, and of resamples."""
        called = self.called(name, rule)
        yes, no = self.members("success", negatives)
        return (self.rate(called, yes) + 1 - self.rate(called, no)) / 2

    def interval(self, values: np.ndarray) -> tuple[float, float, float]:
        """Returns a value and its interval, from the value and its resamples."""
        low, high = statistics.interval(values[1:, None], confidence=self.confidence)
        return float(values[0]), float(low[0]), float(high[0])


def draws(images: pd.DataFrame, *, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns how often each test image is in each resample: (resamples, test images).

    Source pictures are drawn, with replacement, and all their test images with them: tiles of one
    picture are not independent. NaN with fewer than two pictures: there is no interval.
    """
    test = images[images["split"] == "test"].sort_values("image")
    names, place = np.unique(test["source"], return_inverse=True)
    if len(names) < 2:
        return np.full((resamples, len(test)), np.nan)
    share = np.full(len(names), 1 / len(names))
    return rng.multinomial(len(names), share, size=resamples)[:, place].astype(float)


def performance(trial: Trial) -> pd.DataFrame:
    """Returns how well each detector does, for every kind of positives and negatives.

    Columns: `detector, rule, positives, negatives, n_positive, n_negative`; `auroc`, `balanced`,
    `tpr`, `tnr`, each with `_low` and `_high`; `precision` (average), `accuracy`, `tpr_at_5`,
    `tpr_at_1` (missing below 300 clean test images: too few), `note`.
    """
    rows: list[Row] = []
    clean = int((trial.test["kind"] == CLEAN).sum())
    for name, detector in trial.fitted.items():
        rules = ("own", "chosen") if name in detectors.WITH_RULE else ("chosen",)
        for rule in rules:
            for positives in POSITIVES:
                for negatives in NEGATIVES:
                    row: Row = {"detector": name, "rule": rule, "positives": positives,
                           "negatives": negatives, "note": ""}  # fmt: skip
                    if isinstance(detector, str):
                        rows.append(row | {"note": detector})
                        continue
                    rows.append(row | _numbers(trial, name, rule, positives, negatives, clean))
    return pd.DataFrame(rows)


def _numbers(trial: Trial, name: str, rule: str, positives: str, negatives: str, clean: int) -> Row:
    yes, no = trial.members(positives, negatives)
    row: Row = {"n_positive": len(yes), "n_negative": len(no)}
    if not len(yes) or not len(no):
        return row | {"note": f"no test image of the kind '{positives}'"}
    called, scores = trial.called(name, rule), trial.scores[name]
    tpr, tnr = trial.rate(called, yes), 1 - trial.rate(called, no)
    for key, values in {"auroc": trial.auroc(name, positives, negatives), "tpr": tpr, "tnr": tnr,
                        "balanced": (tpr + tnr) / 2}.items():  # fmt: skip
        row[key], row[f"{key}_low"], row[f"{key}_high"] = trial.interval(values)
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
            called = trial.fitted[name].predict(trial.test)  # type: ignore[union-attr]
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
            if not len(mine) or isinstance(detector, str):
                continue
            told = _told(mine, images)
            both = pd.concat([benign, told], ignore_index=True)
            part = Trial({name: detector}, both, trial.confidence, trial.weights)
            row = {"detector": name, "arm": arm, "images": len(told),
                   "flipped": float((told["kind"] == "success").mean())}  # fmt: skip
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
    for name in detectors.NOISECAM:
        if name not in trial.scores:
            continue
        reading = name.removeprefix("noisecam_")
        masses = test.groupby("kind")[f"mass_{reading}"].mean()
        for kind in (CLEAN, NOISE, "success", "failure"):
            mine = np.flatnonzero(test["kind"] == kind)
            if len(mine):
                blank = trial.interval(trial.rate(trial.scores[name] == 0, mine))
                row = {"reading": reading, "kind": kind, "images": len(mine),
                       "mass": masses[kind],
                       "relative_mass": masses[kind] / masses.get("success", np.nan)}  # fmt: skip
                names = ("without_clusters", "low", "high")
                rows.append(row | dict(zip(names, blank, strict=True)))
    return pd.DataFrame(rows)


def of_study(
    seen: dict[str, tuple[Cell, Detected]],
    chosen: DetectionSettings,
    settings: StatisticsSettings,
    *,
    seed: int,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[float, Trial]]]:
    """Returns the tables of the detectors' trials, and the trials by cell and strength.

    Tables, each with the columns `cell` and, but for `knowing` and `transfer`, `strength`:
    detectors (see `performance`), roc (`curves`), transfer, knowing, blur (`blurring`) and blank
    (`blankness`).

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
        weights = draws(detected.images, resamples=settings.resamples, rng=rng)
        for strength in cell.detect:
            rows[key, strength] = calls(detected.features, detected.images, strength)
            found = fitted(detected.features, detected.images, strength, chosen)
            trial = Trial(found, rows[key, strength], settings.confidence, weights)
            trials.setdefault(key, {})[strength] = trial
            for name, table in (
                ("detectors", performance(trial)),
                ("roc", curves(trial)),
                ("blur", blurring(trial)),
                ("blank", blankness(trial)),
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
    "transfer": ["fitted_cell", "fitted_strength", "cell", "strength", "detector"],
    "knowing": ["cell", "detector", "arm", "images", "flipped", "auroc", "low", "high"],
    "blur": ["cell", "strength", "kind"],
    "blank": ["cell", "strength", "reading", "kind"],
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

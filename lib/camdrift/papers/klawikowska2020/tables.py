"""Tables of retrained models and of signatures: accuracy, success of attacks, flips, relevance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.statistics import Resampler
from camdrift.analysis.tables import rounded
from camdrift.pipeline import randomness
from camdrift.settings import EXTENDING, StatisticsSettings
from camdrift.storage import BASELINE, CLEAN, Retrained, Signatures, attack_of

Interval = tuple[float, float, float]

# What the tables hold, in a line each.
ABOUT = {
    "sets": "images right by model, on clean test images and with attacked ones added",
    "attacks": "share of right images that an attack made for a model changes, by split",
    "controls": "share of right images whose class noise of an attack's size and controls change",
    "budgets": "what each attack may spend, and how many images it adds to the training set",
    "flips": "which class became which, on the baseline model",
    "relevance": "correlation with the baseline's clean map; growth of relevance at the pixel",
    "points": "a row an image: its signature's place on the plane, classes, distances",
    "numbers": "what is measured of all signatures and of their plane",
    "claims": "what the paper says, statistic, threshold, value, verdict",
}


@dataclass(frozen=True)
class Inspection:
    """The results of the stages of a retraining, and how they are judged.

    name: of the retraining.
    settings: of intervals.
    """

    name: str
    retrained: Retrained
    signatures: Signatures
    settings: StatisticsSettings
    seed: int

    def draws(self, sources: pd.Series) -> Resampler:
        """Returns resamples of source pictures, the same for the same pictures."""
        rng = randomness.generator(self.seed, "inspection", self.name)
        names = sources.to_numpy()
        return Resampler.draw(names, resamples=self.settings.resamples, rng=rng)

    def mean(self, values: np.ndarray, sources: pd.Series) -> Interval:
        """Returns the mean of values (n,), NaN left out, and its interval by source picture.

        Of a share that is 0 or 1 the far end is a binomial's, see `statistics.far_ends`.
        """
        values = np.asarray(values, dtype=float)
        known = ~np.isnan(values)
        if not known.any():
            return np.nan, np.nan, np.nan
        estimate = self.draws(sources).estimate(
            values[:, None], confidence=self.settings.confidence
        )
        value, low, high = (float(part[0]) for part in (estimate.mean, estimate.low, estimate.high))
        if set(values[known]) <= {0.0, 1.0} and value in (0, 1):
            pictures = sources[known].nunique()
            low, high = statistics.far_ends(value, pictures, confidence=self.settings.confidence)
        return value, low, high

    def interval(self, value: float, resamples: np.ndarray) -> Interval:
        """Returns a statistic with the interval of its resamples (resamples,)."""
        rows = self.retrained.attacks
        low, high = statistics.interval(
            resamples[:, None],
            confidence=self.settings.confidence,
            clusters=rows.loc[rows["split"] == "test", "source"].nunique(),
        )
        return float(value), float(low[0]), float(high[0])

    def attacked(self, model: str, attack: str, split: str = "test") -> pd.DataFrame:
        """Returns the rows of an attack on a model, a row an image."""
        rows = self.retrained.attacks
        mask = (rows["model"] == model) & (rows["attack"] == attack) & (rows["split"] == split)
        return rows[mask].reset_index(drop=True)

    def succeeded(self, attack: str) -> np.ndarray:
        """Returns whether an attack succeeds on the baseline model: bool, a test image each."""
        return self.attacked(BASELINE, attack)["success"].to_numpy()

    def extended(self, model: str, attack: str | None) -> pd.DataFrame:
        """Returns a model's predictions on an extended set, as the paper builds it.

        The clean test images and, of an attack, the images that it changed successfully on the
        baseline model. Columns: `source, label, prediction, right`.
        """
        rows = self.retrained.predictions
        rows = rows[rows["model"] == model]
        parts = [rows[rows["on"] == CLEAN]]
        if attack is not None:
            parts.append(rows[rows["on"] == attack][self.succeeded(attack)])
        whole = pd.concat(parts, ignore_index=True)
        return whole.assign(right=(whole["prediction"] == whole["label"]).astype(float))


def tables(inspection: Inspection) -> dict[str, pd.DataFrame]:
    """Returns the tables of a study by name: sets, attacks, flips, relevance, points, numbers.

    sets: `model, set, images, right, accuracy, low, high`, table 1 of the paper and beyond.
    attacks: `model, attack, split, images, wrong` (before the attack, left out), `successes, rate,
        low, high, rate_8bit` (after rounding to 256 levels), `evaluations` (mean an image), `l2`
        (in pixel values, mean of the successes), `gain` (median of the successes).
    controls: `model, attack, control, images, flipped, rate, low, high`, of images that are right.
    flips: `attack, class_before, class_after, images`, on the baseline model.
    relevance: `model, on, kind, images, mean, low, high`: correlation with the clean map, also
        where both explain the clean image's class ('correlation, same class'); after a one-pixel
        attack and its controls, how the window's share grew ('growth'), and the share of images
        where it more than tripled ('tripled'); of other models, how many times the baseline's share
        it is ('shrinkage').
    points: of the plane, with `class_before` and `class_after`. numbers: `number, value`.
    budgets: `attack, budget` (in words), `added` (images to the training set).
    """
    names = _names(inspection)
    points = inspection.signatures.points
    points = points.assign(class_before=names(points["label"]), after=names(points["after"]))
    frames = {
        "sets": _sets(inspection),
        "attacks": _attacks(inspection),
        "controls": _controls(inspection),
        "flips": _flips(inspection),
        "relevance": _relevance(inspection),
        "points": points.drop(columns="label").rename(columns={"after": "class_after"}),
        "numbers": pd.DataFrame(
            sorted(inspection.signatures.facts["numbers"].items()), columns=["number", "value"]
        ),
        "budgets": _budgets(inspection),
    }
    return {name: rounded(table) for name, table in frames.items()}


def metrics(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """Returns a study's summary, by model: accuracy on each set, success of each attack."""
    summary: dict[str, dict[str, float]] = {}
    for row in tables["sets"].itertuples():
        summary.setdefault(row.model, {})[f"accuracy {row.set}"] = row.accuracy
    for row in tables["attacks"].query("split == 'test'").itertuples():
        if not np.isnan(row.rate):
            summary[row.model][f"success {row.attack}"] = row.rate
    return summary


def _sets(inspection: Inspection) -> pd.DataFrame:
    rows = []
    for model in inspection.retrained.predictions["model"].unique():
        for attack in (None, *EXTENDING):
            table = inspection.extended(model, attack)
            value, low, high = inspection.mean(table["right"].to_numpy(), table["source"])
            rows.append({"model": model, "set": "clean" if attack is None else f"clean + {attack}",
                         "images": len(table), "right": int(table["right"].sum()),
                         "accuracy": value, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(rows)


def _attacks(inspection: Inspection) -> pd.DataFrame:
    rows = []
    groups = inspection.retrained.attacks.groupby(["model", "attack", "split"], sort=False)
    for (model, attack, split), table in groups:
        right = table[table["right"]]
        value, low, high = inspection.mean(right["success"].to_numpy(float), right["source"])
        rows.append({"model": model, "attack": attack, "split": split, "images": len(right),
                     "wrong": len(table) - len(right), "successes": int(right["success"].sum()),
                     "rate": value, "low": low, "high": high,
                     "rate_8bit": right["success_8bit"].mean(),
                     "evaluations": right["evaluations"].mean(),
                     "l2": right.loc[right["success"], "l2"].mean(),
                     "gain": right.loc[right["success"], "gain"].median()})  # fmt: skip
    return pd.DataFrame(rows)


def _controls(inspection: Inspection) -> pd.DataFrame:
    rows = []
    keys = ["model", "attack", "control"]
    right = inspection.retrained.controls.query("right")
    for key, table in right.groupby(keys, sort=False):
        flipped = table["flipped"].to_numpy(float)
        value, low, high = inspection.mean(flipped, table["source"].reset_index(drop=True))
        rows.append((*key, len(table), int(flipped.sum()), value, low, high))
    return pd.DataFrame(rows, columns=[*keys, "images", "flipped", "rate", "low", "high"])


def _flips(inspection: Inspection) -> pd.DataFrame:
    rows = inspection.retrained.attacks.query("model == @BASELINE and success and split == 'test'")
    counts = rows.groupby(["attack", "label", "adversarial"], sort=True).size()
    table, names = counts.rename("images").reset_index(), _names(inspection)
    table = table.assign(
        class_before=names(table["label"]), class_after=names(table["adversarial"])
    )
    return table[["attack", "class_before", "class_after", "images"]]


def _names(inspection: Inspection) -> Callable[[pd.Series], pd.Series]:
    """Returns what turns numbers of classes into their names."""
    tests = inspection.retrained.tests
    known = tests.drop_duplicates("label").set_index("label")["class_name"].to_dict()
    return lambda numbers: numbers.map(lambda number: known.get(number, f"class {number}"))


def _budgets(inspection: Inspection) -> pd.DataFrame:
    rows = []
    for attack, own in inspection.retrained.facts["settings"].items():
        if "population" in own:
            budget = f"{own['population'] * (own['generations'] + 1)} queries"
        elif "steps" in own:
            budget = f"eps {own['eps']:g}, {own['steps']} steps"
        else:
            budget = f"gain to {own['eps']:g}" if own["gains"] > 1 else f"eps {own['eps']:g}"
        added = inspection.retrained.facts["added"].get(attack, np.nan)
        rows.append({"attack": attack, "budget": budget, "added": added})
    return pd.DataFrame(rows)


def growth(inspection: Inspection, on: str = "one_pixel") -> np.ndarray:
    """Returns how many times the window's share of relevance grew, an image each, baseline model.

    NaN where the one-pixel attack does not succeed. `on` is that attack, or a control of it.
    """
    rows = inspection.signatures.images.query("model == @BASELINE and on == @on")
    with np.errstate(invalid="ignore", divide="ignore"):
        times = (rows["window"] / rows["window_before"]).to_numpy()
    return np.where(inspection.succeeded("one_pixel"), times, np.nan)


def shrinkage(inspection: Inspection, model: str) -> np.ndarray:
    """Returns how many times the baseline's share of relevance in the window a model has.

    Of each image under the one-pixel attack; NaN where that does not succeed on the baseline.
    """
    images = inspection.signatures.images.query("on == 'one_pixel'")
    mine, base = (
        images.loc[images["model"] == name, "window"].to_numpy() for name in (model, BASELINE)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(inspection.succeeded("one_pixel"), mine / base, np.nan)


def tripled(times: np.ndarray) -> np.ndarray:
    """Returns whether a window's share more than tripled: 0 or 1, NaN where that is not known."""
    return np.where(np.isnan(times), np.nan, (times > 3).astype(float))


def correlations(
    inspection: Inspection, model: str, on: str, *, same_class: bool = False
) -> np.ndarray:
    """Returns the correlation of maps with the baseline model's of the clean image, an image each.

    NaN where the attack `on`, or that of which it is a control, does not succeed on the baseline
    model. `same_class`: both maps explain the clean image's class, and not each its own.
    """
    rows = inspection.signatures.images
    rows = rows[(rows["model"] == model) & (rows["on"] == on)]
    mask = np.ones(len(rows), bool) if on == CLEAN else inspection.succeeded(attack_of(on))
    column = "correlation_same_class" if same_class else "correlation"
    return np.where(mask, rows[column].to_numpy(), np.nan)


def _relevance(inspection: Inspection) -> pd.DataFrame:
    rows = []
    sources = inspection.retrained.tests["source"]
    for model, on in inspection.signatures.facts["shown"]:
        values = correlations(inspection, model, on)
        kinds = {"correlation": values}
        if model == BASELINE and on in EXTENDING:
            same = correlations(inspection, model, on, same_class=True)
            kinds["correlation, same class"] = same
        if model == BASELINE and attack_of(on) == "one_pixel":
            kinds["growth"] = growth(inspection, on)
            kinds["tripled"] = tripled(kinds["growth"])
        if model != BASELINE and on == "one_pixel":
            kinds["shrinkage"] = shrinkage(inspection, model)
        for kind, each in kinds.items():
            value, low, high = inspection.mean(each, sources)
            rows.append({"model": model, "on": on, "kind": kind,
                         "images": int((~np.isnan(each)).sum()), "mean": value, "low": low,
                         "high": high})  # fmt: skip
    return pd.DataFrame(rows)

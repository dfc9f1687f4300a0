"""Tables of retrained models and of signatures: accuracy, success of attacks, flips, relevance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.statistics import Resampler
from camdrift.analysis.tables import rounded
from camdrift.papers.klawikowska2020.additions import budgets
from camdrift.pipeline import randomness
from camdrift.settings import EXTENDING, RETRAINED_8BIT, StatisticsSettings
from camdrift.storage import (
    BASELINE,
    CLEAN,
    Retrained,
    Signatures,
    as_8bit,
    attack_of,
    controlled,
)

Interval = tuple[float, float, float]

# A number that rests on fewer images is marked in the column `few`. The interval of a share of 30
# is about 0.35 wide.
FEWEST = 30
# Ends of the names of columns of `Signatures`, and words for them: which class the maps explain.
CLASSES = {"": "", "_same_class": ", same class", "_swapped": ", class swap"}
DISPLACED = controlled("one_pixel", "displaced")

# What the tables hold, in a line each.
ABOUT = {
    "sets": "images right by model, on clean test images and with attacked ones added",
    "attacks": "share of right images that an attack made for a model changes, by split",
    "controls": "share of right images whose class noise of an attack's size and controls change",
    "budgets": "what each attack may spend, and how many images it adds to the training set",
    "flips": "which class became which, on the baseline model",
    "relevance": "correlation with the baseline's clean map and relevance at the pixel, by class",
    "readings": "each claim's rule applied to controls and to other readings of its statistic",
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

    @cached_property
    def _draws(self) -> dict[bytes, Resampler]:
        return {}

    def draws(self, sources: pd.Series) -> Resampler:
        """Returns resamples of source pictures, the same for the same pictures."""
        names = sources.to_numpy()
        key = "\n".join(map(str, names)).encode()
        if key not in self._draws:
            rng = randomness.generator(self.seed, "inspection", self.name)
            self._draws[key] = Resampler.draw(names, resamples=self.settings.resamples, rng=rng)
        return self._draws[key]

    def after(self, model: str, on: str) -> pd.DataFrame:
        """Returns what a model's maps show of the test images, a row an image, see `Signatures`."""
        rows = self.signatures.images
        return rows[(rows["model"] == model) & (rows["on"] == on)].reset_index(drop=True)

    def mean(self, values: np.ndarray, sources: pd.Series) -> Interval:
        """Returns the mean of values (n,) and its interval, see `means`."""
        return self.means([values], sources)[0]

    def means(self, columns: Sequence[np.ndarray], sources: pd.Series) -> list[Interval]:
        """Returns the mean of each column (n,), NaN left out, and its interval by source picture.

        Of a share that is 0 or 1 the far end is a binomial's, see `statistics.far_ends`.
        """
        confidence = self.settings.confidence
        values = np.stack([np.asarray(each, dtype=float) for each in columns], axis=1)
        estimate = self.draws(sources).estimate(values, confidence=confidence)
        means = []
        for column, *interval in zip(
            values.T, estimate.mean, estimate.low, estimate.high, strict=True
        ):
            value, low, high = map(float, interval)
            known = ~np.isnan(column)
            if known.any() and set(column[known]) <= {0.0, 1.0} and value in (0, 1):
                pictures = sources[known].nunique()
                low, high = statistics.far_ends(value, pictures, confidence=confidence)
            means.append((value, low, high))
        return means

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

    def succeeded(self, attack: str, *, in_8bit: bool = False) -> np.ndarray:
        """Returns whether an attack succeeds on the baseline model: bool, a test image each.

        `in_8bit`: after rounding to 256 levels.
        """
        rows = self.attacked(BASELINE, attack)
        return rows["success_8bit" if in_8bit else "success"].to_numpy()

    def survivors(self, on: str) -> np.ndarray:
        """Returns which images an attack or its control leaves in their class: bool, each.

        Of those that the baseline model gets right, all others are False.
        """
        right = self.attacked(BASELINE, attack_of(on))["right"].to_numpy()
        first, second = (self.after(BASELINE, each)["prediction"] for each in (CLEAN, on))
        return right & (first == second).to_numpy()

    def extended(self, model: str, attack: str | None, *, in_8bit: bool = False) -> pd.DataFrame:
        """Returns a model's predictions on an extended set, as the paper builds it.

        The clean test images and, of an attack, the images that it changed successfully on the
        baseline model. Columns: `source, label, prediction, right`.

        `in_8bit`: the added images are those that it changed successfully after rounding to 256
        levels, and rounded.
        """
        rows = self.retrained.predictions
        rows = rows[rows["model"] == model]
        parts = [rows[rows["on"] == CLEAN]]
        if attack is not None:
            own = rows[rows["on"] == (as_8bit(attack) if in_8bit else attack)]
            if in_8bit and model not in RETRAINED_8BIT.values():
                own = self.signatures.rounded.query("model == @model and on == @attack")
            parts.append(own[self.succeeded(attack, in_8bit=in_8bit)])
        whole = pd.concat(parts, ignore_index=True)
        return whole.assign(right=(whole["prediction"] == whole["label"]).astype(float))


def tables(inspection: Inspection) -> dict[str, pd.DataFrame]:
    """Returns the tables of a study by name: sets, attacks, flips, relevance, points, numbers.

    In each, `few` says whether a row rests on fewer than 30 images.

    sets: `model, set, images, right, accuracy, low, high`, table 1 of the paper and beyond, and,
        as '8 bit', with the added images rounded to 256 levels, those that are successful so.
    attacks: `model, attack, split, images, wrong` (before the attack, left out), `successes, rate,
        low, high`; `successes_8bit, rate_8bit, low_8bit, high_8bit` (after rounding to 256 levels),
        `evaluations` (mean an image), `l2` (in pixel values, mean of the successes), `gain` (median
        of the successes).
    controls: `model, attack, control, images, flipped, rate, low, high`, of images that are right.
    flips: `attack, class_before, class_after, images`, on the baseline model.
    relevance: `model, on, kind, images, mean, low, high`, see `relevance`.
    points: of the planes, with `class_before` and `class_after`. numbers: `number, images, value`.
    budgets: see `additions.budgets`.
    """
    names = _names(inspection)
    points = inspection.signatures.points
    points = points.assign(class_before=names(points["label"]), after=names(points["after"]))
    frames = {
        "sets": _sets(inspection),
        "attacks": _attacks(inspection),
        "controls": _controls(inspection),
        "flips": _flips(inspection),
        "relevance": relevance(inspection),
        "points": points.drop(columns="label").rename(columns={"after": "class_after"}),
        "numbers": _numbers(inspection),
        "budgets": budgets(inspection.retrained),
    }
    counted = ("sets", "attacks", "controls", "relevance", "numbers")
    return {
        name: rounded(counting(table) if name in counted else table)
        for name, table in frames.items()
    }


def counting(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with `few`: whether a row rests on fewer than `FEWEST` images."""
    return table.assign(few=table["images"] < FEWEST)


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
    whole: list[tuple[str, str | None, bool]] = [("clean", None, False)]
    whole += [(f"clean + {attack}", attack, False) for attack in EXTENDING]
    whole += [(f"clean + {attack}, 8 bit", attack, True) for attack in EXTENDING]
    for model in inspection.retrained.predictions["model"].unique():
        for name, attack, in_8bit in whole:
            table = inspection.extended(model, attack, in_8bit=in_8bit)
            value, low, high = inspection.mean(table["right"].to_numpy(), table["source"])
            rows.append({"model": model, "set": name, "images": len(table),
                         "right": int(table["right"].sum()), "accuracy": value, "low": low,
                         "high": high})  # fmt: skip
    return pd.DataFrame(rows)


def _attacks(inspection: Inspection) -> pd.DataFrame:
    rows = []
    groups = inspection.retrained.attacks.groupby(["model", "attack", "split"], sort=False)
    for (model, attack, split), table in groups:
        right = table[table["right"]].reset_index(drop=True)
        columns = [right[column].to_numpy(float) for column in ("success", "success_8bit")]
        (value, low, high), in_8bit = inspection.means(columns, right["source"])
        rows.append({"model": model, "attack": attack, "split": split, "images": len(right),
                     "wrong": len(table) - len(right), "successes": int(right["success"].sum()),
                     "rate": value, "low": low, "high": high,
                     "successes_8bit": int(right["success_8bit"].sum()),
                     **dict(zip(("rate_8bit", "low_8bit", "high_8bit"), in_8bit, strict=True)),
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


def _numbers(inspection: Inspection) -> pd.DataFrame:
    points = inspection.signatures.points
    clean = int((points["on"] == CLEAN).sum())
    rows = [
        (name, len(points) if name.startswith("trustworthiness") else clean, value)
        for name, value in sorted(inspection.signatures.facts["numbers"].items())
    ]
    return pd.DataFrame(rows, columns=["number", "images", "value"])


def growth(
    inspection: Inspection, on: str = "one_pixel", *, of: str = "", flips: bool = True
) -> np.ndarray:
    """Returns how many times the window's share of relevance grew, an image each, baseline model.

    Args:
        inspection: the study's.
        on: the one-pixel attack, or a control of it.
        of: the class explained after the change, one of `CLASSES`; 'class swap' explains the clean
            image instead, for the class that the attack leads to.
        flips: NaN where the attack does not succeed; else where `on` changes the class, or where
            the baseline model was wrong.
    """
    rows = inspection.after(BASELINE, on)
    with np.errstate(invalid="ignore", divide="ignore"):
        times = (rows[f"window{of}"] / rows["window_before"]).to_numpy()
    mask = inspection.succeeded("one_pixel") if flips else inspection.survivors(on)
    return np.where(mask, times, np.nan)


def shrinkage(
    inspection: Inspection, model: str, on: str = "one_pixel", *, of: str = "", flips: bool = True
) -> np.ndarray:
    """Returns how many times the baseline's share of relevance in the window a model has.

    Arguments and missing ones are those of `growth`, but that 'class swap' is the baseline model's
    map of the same changed image for the clean image's class, over that for its own class.
    """
    swaps = of == "_swapped"
    mine = inspection.after(model, on)["window_same_class" if swaps else f"window{of}"]
    base = inspection.after(BASELINE, on)["window" if swaps else f"window{of}"]
    mask = inspection.succeeded("one_pixel") if flips else inspection.survivors(on)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mask, (mine / base).to_numpy(), np.nan)


def tripled(times: np.ndarray) -> np.ndarray:
    """Returns whether a window's share more than tripled: 0 or 1, NaN where that is not known."""
    return np.where(np.isnan(times), np.nan, (times > 3).astype(float))


def halved(times: np.ndarray) -> np.ndarray:
    """Returns whether a window's share is less than half: 0 or 1, NaN where that is not known."""
    return np.where(np.isnan(times), np.nan, (times < 0.5).astype(float))


def correlations(inspection: Inspection, model: str, on: str, *, of: str = "") -> np.ndarray:
    """Returns the correlation of maps with the baseline model's of the clean image, an image each.

    NaN where the attack `on`, or that of which it is a control, does not succeed on the baseline
    model. `of`: the class explained, one of `CLASSES`; 'class swap' explains the clean image for
    the class that the attack leads to.
    """
    rows = inspection.after(model, on)
    mask = np.ones(len(rows), bool) if on == CLEAN else inspection.succeeded(attack_of(on))
    return np.where(mask, rows[f"correlation{of}"].to_numpy(), np.nan)


def relevance(inspection: Inspection) -> pd.DataFrame:
    """Returns the means of what maps show: `model, on, kind, images, mean, low, high`.

    Of images that the attack changes on the baseline model, and whose maps explain their own class
    unless said.

    correlation: with the baseline model's map of the clean image.
    share, share before: of relevance in a window around the changed pixel, after and before.
    growth: the former over the latter. tripled: of images, where that is more than three times.
    shrinkage: the share over the baseline's. halved: of images, where that is less than half.
    '..., same class': both maps explain the clean image's class.
    '..., class swap': the same image's map of another class: of the clean image, for the class that
        the attack leads to; of shrinkage, of the attacked image, for the clean image's class.
    '..., no flip': of images that were right and whose class the change leaves, instead.
    """
    keys, columns = [], []
    for model, on in inspection.signatures.facts["shown"]:
        for kind, values in _measured(inspection, model, on).items():
            keys.append((model, on, kind, int((~np.isnan(values)).sum())))
            columns.append(values)
    means = inspection.means(columns, inspection.retrained.tests["source"])
    rows = [(*key, *mean) for key, mean in zip(keys, means, strict=True)]
    return pd.DataFrame(rows, columns=["model", "on", "kind", "images", "mean", "low", "high"])


def _measured(inspection: Inspection, model: str, on: str) -> dict[str, np.ndarray]:
    """Returns the values behind the rows of `relevance`, an image each, by kind."""
    classes = [""] if on not in EXTENDING else ["", "_same_class"]
    kinds = {
        f"correlation{CLASSES[of]}": correlations(inspection, model, on, of=of) for of in classes
    }
    if model == BASELINE and on in EXTENDING:
        classes.append("_swapped")
        swapped = correlations(inspection, model, on, of="_swapped")
        kinds[f"correlation{CLASSES['_swapped']}"] = swapped
    if attack_of(on) != "one_pixel":
        return kinds
    mask, own = inspection.succeeded("one_pixel"), inspection.after(model, on)
    kinds["share"] = np.where(mask, own["window"], np.nan)
    if model == BASELINE:
        kinds["share before"] = np.where(mask, own["window_before"], np.nan)
        times = {CLASSES[of]: growth(inspection, on, of=of) for of in classes}
        times[", no flip"] = growth(inspection, on, flips=False)
        kinds |= {f"growth{words}": each for words, each in times.items()}
        kinds |= {f"tripled{words}": tripled(each) for words, each in times.items()}
        classes = ["_swapped"] if on == "one_pixel" else []
    times = {CLASSES[of]: shrinkage(inspection, model, on, of=of) for of in classes}
    if model != BASELINE and on == DISPLACED:
        times[", no flip"] = shrinkage(inspection, model, on, flips=False)
    kinds |= {f"shrinkage{words}": each for words, each in times.items()}
    return kinds | {f"halved{words}": halved(each) for words, each in times.items()}

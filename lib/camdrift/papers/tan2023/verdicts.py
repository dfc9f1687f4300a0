"""Judges of tan2023's claims on detection: from an evaluation to a verdict."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.detectors import behaviour, noisecam
from camdrift.evaluation.evaluation import Evaluation
from camdrift.papers import differences
from camdrift.papers.findings import (
    FINDING_COLUMNS,
    NOT_RUN,
    UNDECIDED,
    Finding,
    nothing,
    verdict_of_all,
    verdict_of_interval,
    verdict_of_parts,
    verdict_of_range,
)
from camdrift.papers.tan2023.adaptive import KNOWING
from camdrift.papers.tan2023.darkness import raw_masses
from camdrift.settings.section import in_words
from camdrift.storage import CLEAN, NOISE

# Detectors of others, with which the paper's are compared.
BASELINES = ("confidence", "energy", "squeezing", "residual", "logistic", "mahalanobis")
MINIMUM = 10  # flipped test images at each strength, the fewest for a comparison of rates
TOO_FEW = f"no flipped image to choose on, or fewer than {MINIMUM} to test at one of the strengths"
PAPERS_SIZE = 224  # px: radius 2 and 3 clusters belong to this size


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a cell.

    by_strength: tested at each strength; fitted, and thresholds chosen, at strength 1.
    adaptive: as `adaptive.table` returns it, with `cell`, of the cells of the same model
        with an adaptive attack.
    size: of the images in px, see `settings.section.sides`.
    transfer: as `tables.transfer` returns it, of detectors that are fitted at strength 1 on the
        other attacks on the same model and images, and tested on this cell at strength 1.
    """

    by_strength: dict[float, Evaluation]
    adaptive: pd.DataFrame
    size: int | list[int]
    transfer: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["fitted_cell", "detector", "auroc"])
    )

    @property
    def whole(self) -> Evaluation:
        """The evaluation at strength 1."""
        return self.by_strength[1.0]

    def best(self, names: tuple[str, ...], rule: str) -> str | None:
        """Returns the name of the best of some detectors on the choosing images.

        With rule 'own' it is the one with the highest balanced accuracy by its own rule; with
        'chosen', whose thresholds are chosen on the same images, the one with the highest AUROC.
        """
        evaluation, rows = self.whole, self.whole.choosing
        adversarial = (rows["kind"] == "success").to_numpy()
        if adversarial.all() or not adversarial.any():
            return None
        accuracies = {}
        for name in names:
            detector = evaluation.detectors.get(name)
            if detector is None or detector.unfit:
                continue
            if rule == "own":
                alarms = detector.predict(rows)
                accuracies[name] = (alarms[adversarial].mean() + (~alarms[~adversarial]).mean()) / 2
            else:
                scores = detector.score_samples(rows)
                above = scores[adversarial][:, None] - scores[~adversarial]
                accuracies[name] = ((above > 0) + 0.5 * (above == 0)).mean()
        return max(accuracies, key=accuracies.__getitem__) if accuracies else None


def more_accurate(evaluations: Evaluations, rivals: tuple[str, ...], rule: str) -> Finding:
    """Judges B1 and B1b: the best NoiseCAM against the best of some rivals.

    They are compared by balanced accuracy, on attacked images whose class flips and on clean and
    noisy ones. The choosing images select the reading and the rival. The detail has their AUROCs,
    which do not depend on a threshold.
    """
    mine, other = evaluations.best(noisecam.NAMES, "own"), evaluations.best(rivals, rule)
    if mine is None or other is None:
        return nothing("the choosing images lack one kind")
    evaluation = evaluations.whole
    balanced, auroc = (
        compare(evaluation, measure, mine, other, rule) for measure in (BALANCED, AUROC)
    )
    detail = (
        f"{mine} {balanced.mine:.2f}, {other} {balanced.other:.2f}; AUROC {auroc.mine:.2f}, "
        f"{auroc.other:.2f}, difference {auroc.value:+.2f} [{auroc.low:.2f}, {auroc.high:.2f}]"
    )
    if evaluation.detectors[other].trained_on == "attacked":
        detail += f"; {other} is trained on this attack"
        elsewhere = evaluations.transfer[evaluations.transfer["detector"] == other]
        for row in elsewhere.itertuples():
            detail += f", trained on '{row.fitted_cell}' its AUROC is {row.auroc:.2f}"
    verdict = verdict_of_interval(balanced.low, balanced.high, above=0)
    return Finding(balanced.value, balanced.low, balanced.high, verdict, detail)


BALANCED, AUROC = "balanced accuracy", "AUROC"


@dataclass(frozen=True)
class Comparison:
    """A measure of two detectors, and their difference with its interval."""

    mine: float
    other: float
    value: float
    low: float
    high: float


def compare(evaluation: Evaluation, measure: str, mine: str, other: str, rule: str) -> Comparison:
    """Returns two detectors compared by a measure, successes against clean and noisy images.

    Args:
        evaluation: of both.
        measure: `BALANCED` or `AUROC`.
        mine: the first detector, which decides by its own rule.
        other: the second.
        rule: of the second, see `Evaluation.alarms`.
    """
    if measure == AUROC:
        values = [evaluation.auroc(name, "success", "both") for name in (mine, other)]
    else:
        values = [evaluation.balanced(mine, "own"), evaluation.balanced(other, rule)]
    difference = evaluation.interval(values[0] - values[1])
    return Comparison(float(values[0][0]), float(values[1][0]), *difference)


def rivals(evaluations: Evaluations) -> pd.DataFrame:
    """Returns what B1 and B1b compare, by both measures and at each strength.

    The detectors are those of the claims, selected at strength 1. Columns: `claim, strength,
    detector, rival, measure, value, rival_value, difference, low, high, n_positive, n_negative`.
    """
    rows = []
    for claim, (names, rule) in RIVALS.items():
        mine, other = evaluations.best(noisecam.NAMES, "own"), evaluations.best(names, rule)
        if mine is None or other is None:
            continue
        for strength, evaluation in evaluations.by_strength.items():
            yes, no = evaluation.members("success", "both")
            for measure in (BALANCED, AUROC) if len(yes) and len(no) else ():
                row = compare(evaluation, measure, mine, other, rule)
                rows.append((claim, strength, mine, other, measure, row.mine, row.other, row.value,
                             row.low, row.high, len(yes), len(no)))  # fmt: skip
    return pd.DataFrame(rows, columns=RIVAL_COLUMNS)


RIVALS = {"B1": (behaviour.NAMES, "own"), "B1b": (BASELINES, "chosen")}
RIVAL_COLUMNS = ["claim", "strength", "detector", "rival", "measure", "value", "rival_value",
                 "difference", "low", "high", "n_positive", "n_negative"]  # fmt: skip


def misses_and_alarms(evaluations: Evaluations) -> Finding:
    """Judges B2: behaviour deviation's TPR is lower and its TNR higher; the value is the first."""
    mine, other = evaluations.best(behaviour.NAMES, "own"), evaluations.best(noisecam.NAMES, "own")
    if mine is None or other is None:
        return nothing("the choosing images lack one kind")
    evaluation = evaluations.whole
    yes, no = evaluation.members("success", "both")
    alarms = [evaluation.alarms(name, "own") for name in (other, mine)]
    tpr = evaluation.interval(evaluation.rate(alarms[0], yes) - evaluation.rate(alarms[1], yes))
    tnr = evaluation.interval(evaluation.rate(alarms[0], no) - evaluation.rate(alarms[1], no))
    parts = [verdict_of_interval(low, high, above=0) for _, low, high in (tpr, tnr)]
    verdict = verdict_of_all(parts)
    detail = (
        f"{other} minus {mine}: TPR {tpr[0]:+.2f}; {mine} minus {other}: TNR {tnr[0]:+.2f} "
        f"[{tnr[1]:.2f}, {tnr[2]:.2f}]"
    )
    return Finding(*tpr, verdict, detail)


def _tprs(evaluations: Evaluations, names: tuple[str, ...]) -> tuple[str, np.ndarray] | None:
    """Returns the best detector's TPR by strength and resample: (1 + resamples, strengths)."""
    name = evaluations.best(names, "own")
    if name is None:
        return None
    columns = []
    for evaluation in evaluations.by_strength.values():
        yes, _ = evaluation.members("success", "both")
        if len(yes) < MINIMUM:
            return None
        columns.append(evaluation.rate(evaluation.alarms(name, "own"), yes))
    return name, np.stack(columns, axis=1)


def falls_with_strength(evaluations: Evaluations) -> Finding:
    """Judges B3: the slope of behaviour deviation's TPR in log2 strength."""
    if len(evaluations.by_strength) < 2:
        return nothing("one strength: no slope", NOT_RUN)
    best = _tprs(evaluations, behaviour.NAMES)
    if best is None:
        return nothing(TOO_FEW)
    name, rates = best
    x = np.log2(list(evaluations.by_strength))
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    value, low, high = evaluations.whole.interval(rates @ x)
    verdict = verdict_of_interval(-high, -low, above=0)
    detail = f"{name}: {_rates_text(evaluations, rates)}"
    return Finding(value, low, high, verdict, detail)


def _rates_text(evaluations: Evaluations, rates: np.ndarray) -> str:
    pairs = zip(evaluations.by_strength, rates[0], strict=True)
    return ", ".join(f"{strength:g}: {rate:.0%}" for strength, rate in pairs)


def does_not_depend(evaluations: Evaluations) -> Finding:
    """Judges B4: the range of NoiseCAM's TPR over strengths is less than 5 points."""
    if len(evaluations.by_strength) < 2:
        return nothing("one strength: no range", NOT_RUN)
    best = _tprs(evaluations, noisecam.NAMES)
    if best is None:
        return nothing(TOO_FEW)
    name, rates = best
    count = rates.shape[1]
    pairs = [(i, j) for i in range(count) for j in range(i)]
    steps = np.stack([rates[:, i] - rates[:, j] for i, j in pairs], axis=1)
    judged = differences.judge(
        steps[0],
        steps[1:],
        limit=0.05,
        confidence=evaluations.whole.confidence,
        clusters=evaluations.whole.test["source"].nunique(),
    )
    detail = f"{name}: {_rates_text(evaluations, rates)}; {judged.text}"
    reach = statistics.out_of_reach(
        len(pairs), resamples=len(steps) - 1, confidence=evaluations.whole.confidence
    )
    if judged.verdict == UNDECIDED and reach:
        detail += f"; {reach}"
    most = judged.most
    return Finding(float(judged.values[most]), float(judged.low[most]), float(judged.high[most]),
                   judged.verdict, detail)  # fmt: skip


def blank(evaluations: Evaluations) -> Finding:
    """Judges B5: maps of clean and noisy images have no cluster and a small mass."""
    name = evaluations.best(noisecam.NAMES, "own")
    if name is None:
        return nothing("the choosing images lack one kind")
    evaluation = evaluations.whole
    yes, no = evaluation.members("success", "both")
    share = evaluation.share(evaluation.scores[name] == 0, no)
    mass = evaluation.test[f"mass_{name.removeprefix('noisecam_')}"].to_numpy(dtype=float)
    relative = evaluation.interval(evaluation.rate(mass, no) / evaluation.rate(mass, yes))
    parts = [
        verdict_of_interval(share[1], share[2], above=0.9),
        verdict_of_range(relative[1], relative[2], least=0, most=0.1),
    ]
    verdict = verdict_of_all(parts)
    raw, dark = raw_masses(evaluation, name.removeprefix("noisecam_"), no)
    raw_parts = [
        verdict_of_interval(dark[1], dark[2], above=0.9),
        verdict_of_range(raw[1], raw[2], least=0, most=0.1),
    ]
    detail = (
        f"{name}; mass over that of adversarials {relative[0]:.2f} "
        f"[{relative[1]:.2f}, {relative[2]:.2f}]; before maps are normalised it is {raw[0]:.2f} "
        f"[{raw[1]:.2f}, {raw[2]:.2f}], below a tenth in {dark[0]:.0%}: would be "
        f"'{verdict_of_all(raw_parts)}'"
    )
    return Finding(*share, verdict, detail)


def blur_breaks(evaluations: Evaluations) -> Finding:
    """Judges B7: the loss of accuracy by a blur on clean and noisy images; value: the smaller."""
    evaluation = evaluations.whole
    test = evaluation.test
    right, after = (test[n] == test["label"] for n in ("prediction", "blurred"))
    lost = right.to_numpy(dtype=float) - after.to_numpy(dtype=float)
    losses = {k: evaluation.interval(evaluation.rate(lost, np.flatnonzero(test["kind"] == k)))
             for k in (CLEAN, NOISE)}  # fmt: skip
    parts = [verdict_of_interval(low, high, above=0.1) for _, low, high in losses.values()]
    verdict = verdict_of_all(parts)
    detail = ", ".join(f"{kind}: {value:.0%}" for kind, (value, _, _) in losses.items())
    return Finding(*min(losses.values()), verdict, detail)


def withstands_adaptive_attack(evaluations: Evaluations) -> Finding:
    """Judges B8: the least AUROC of the paper's detectors under an attack that knows them.

    Of a detector that is attacked along gradients and without, the lower AUROC counts. Noisy images
    are under noise of each attacked image's own size. The detail also has the least
    against noise of the size of the cell's attack, which is smaller.
    """
    rows = evaluations.adaptive[evaluations.adaptive["arm"].isin(KNOWING)].dropna(subset="auroc")
    rows = rows[rows["detector"].isin([*behaviour.NAMES, *noisecam.NAMES])]
    rows = rows.loc[rows.groupby(["cell", "detector"], sort=False)["auroc"].idxmin()]
    if not len(rows):
        return nothing("no adaptive attack that flips", NOT_RUN)
    parts = [verdict_of_interval(row.low, row.high, above=0.7) for row in rows.itertuples()]
    least = rows.loc[rows["auroc"].idxmin()]
    cells = ", ".join(f"'{name}'" for name in rows["cell"].unique())
    detail = f"cell {cells}: "
    detail += ", ".join(f"{row.detector} {row.auroc:.2f}" for row in rows.itertuples())
    if "auroc_cell_noise" in rows:
        old = rows.loc[rows["auroc_cell_noise"].idxmin()]
        parts_of_old = [
            verdict_of_interval(row.cell_noise_low, row.cell_noise_high, above=0.7)
            for row in rows.itertuples()
        ]
        detail += (
            f"; against noise of the size of the cell's attack the least is "
            f"{old['auroc_cell_noise']:.2f} [{old['cell_noise_low']:.2f}, "
            f"{old['cell_noise_high']:.2f}]: would be '{verdict_of_parts(parts_of_old)}'"
        )
    return Finding(float(least["auroc"]), float(least["low"]), float(least["high"]),
                   verdict_of_parts(parts), detail)  # fmt: skip


# Each claim's judge, and the threshold of its value.
JUDGES: dict[str, tuple[Callable[[Evaluations], Finding], float]] = {
    "B1": (lambda evaluations: more_accurate(evaluations, *RIVALS["B1"]), 0),
    "B1b": (lambda evaluations: more_accurate(evaluations, *RIVALS["B1b"]), 0),
    "B2": (misses_and_alarms, 0),
    "B3": (falls_with_strength, 0),
    "B4": (does_not_depend, 0.05),
    "B5": (blank, 0.9),
    "B7": (blur_breaks, 0.1),
    "B8": (withstands_adaptive_attack, 0.7),
}


DOUBTS = ["flag", "value", "limit", "touches", "protocols", "text"]
FEW = 30  # images, of which a share has an interval of 18 points to either side of a half
ON_FLIPPED = ("B1", "B1b", "B2", "B5")


def doubts(evaluations: Evaluations) -> pd.DataFrame:
    """Returns a flag for each claim that rests on few images, with the columns of `cell_flags`."""
    counts = {s: len(e.members("success", "both")[0]) for s, e in evaluations.by_strength.items()}
    clean = len(evaluations.whole.members("success", CLEAN)[1])
    rows = [
        *few("flipped test images at 100 %", counts[1.0], *ON_FLIPPED),
        *few("flipped test images at one of the strengths", min(counts.values()), "B3", "B4"),
        *few("clean test images", clean, "B5", "B7"),
    ]
    attacked = evaluations.adaptive[evaluations.adaptive["arm"].isin(KNOWING)]
    if len(attacked):
        flipped = (attacked["images"] * attacked["flipped"]).round().min()
        rows += few("images that the adaptive attack flips", int(flipped), "B8")
    return pd.DataFrame(rows, columns=DOUBTS)


def few(kind: str, count: int, *claims: str) -> list[tuple]:
    """Returns a flag, a row of `DOUBTS`, if fewer images of a kind than `FEW` are behind claims."""
    if count >= FEW:
        return []
    text = f"only {count} {kind}, wanted {FEW}"
    return [(f"few {kind}", count, FEW, " ".join(claims), "", text)]


def row(claim: str, finding: Finding, images: int) -> tuple:
    """Returns a finding under the corrected protocol as a row of `FINDING_COLUMNS`."""
    return ("corrected", claim, finding.value, finding.low, finding.high, finding.verdict, images,
            finding.detail)  # fmt: skip


def judge_evaluations(evaluations: Evaluations) -> pd.DataFrame:
    """Returns the findings of a cell's evaluations under one protocol, with `FINDING_COLUMNS`.

    The paper's constants belong to 224 px. At another size each verdict is "not decided", and the
    detail holds the verdict that it would be.
    """
    rows = []
    successes = evaluations.whole.members("success", "both")[0]
    for claim, (judge, threshold) in JUDGES.items():
        decidable = len(successes) or claim == "B8"  # B8 has its own attacked images
        finding = judge(evaluations) if decidable else nothing("no flipped test image")
        images = evaluations.whole.weights.shape[1]
        finding = finding.with_images_needed(images, threshold)
        if evaluations.size != PAPERS_SIZE and finding.verdict not in (UNDECIDED, NOT_RUN):
            place = f"at {in_words(evaluations.size)}, not the paper's {PAPERS_SIZE}"
            detail = f"{place}: would be '{finding.verdict}'; {finding.detail}"
            finding = replace(finding, verdict=UNDECIDED, detail=detail)
        rows.append(row(claim, finding, images))
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)

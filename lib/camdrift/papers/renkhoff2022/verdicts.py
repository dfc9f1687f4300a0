"""The judges of renkhoff2022's claims: findings from a cell's evidence under one protocol."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict

import numpy as np
from scipy.stats import rankdata

from camdrift.analysis import statistics
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.statistics import Resampler
from camdrift.analysis.tables import as_text
from camdrift.papers import differences
from camdrift.papers.findings import (
    HOLDS,
    MARGIN,
    NO_EFFECT,
    NOT,
    NOT_RUN,
    PARTLY,
    UNDECIDED,
    Finding,
    margin,
    nothing,
    verdict_of_all,
    verdict_of_interval,
    verdict_of_parts,
    verdict_of_range,
)
from camdrift.pipeline import randomness
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE

EXACT = "exact-none-matched"  # the recipe under which coverage is compared
IMAGENET_CLASSES = 1000


class Curves(TypedDict):
    """Strengths whose curves are compared, and the limit of their differences."""

    strengths: list[float]
    limit: float


def excess(
    evidence: Evidence,
    strength: float,
    *,
    success: bool = True,
    least: int | None = None,
    than: str = NOISE,
) -> Finding:
    """Judges "mean e > 0", layer by layer, at a strength; e is over noise, or `than` a control."""
    arms = [evidence.similarity(v, success=success) for v in (than, ADVERSARIAL)]
    values = (arms[0] - arms[1])[:, evidence.rung(strength)]
    if not len(values):
        return nothing("no such images")
    resampler = evidence.resamplers[success]
    decided = evidence.decided(values)
    estimate = resampler.estimate(values, confidence=evidence.settings.confidence)
    p = statistics.holm(np.where(decided, estimate.p, np.nan))
    parts = []
    for i, known in enumerate(decided):
        if not known or np.isnan(estimate.low[i]):
            parts.append(UNDECIDED)
        elif margin(estimate.low[i], estimate.high[i]) <= MARGIN:
            parts.append(NO_EFFECT)
        elif estimate.low[i] > 0 and p[i] < 1 - evidence.settings.confidence:
            parts.append(HOLDS)
        else:
            parts.append(NOT if estimate.high[i] < 0 else UNDECIDED)
    overall = resampler.estimate(
        statistics.row_means(values[:, decided])
        if decided.any() else np.full((len(values), 1), np.nan),
        confidence=evidence.settings.confidence,
    )  # fmt: skip
    size = margin(overall.low[0], overall.high[0])
    rung = evidence.rung(strength)
    filled = [np.nan_to_num(arm[:, rung]) for arm in arms]
    above = (estimate.low > 0) & (p < 1 - evidence.settings.confidence)
    detail = (
        f"{int(above.sum())} of {len(parts)} layers above 0 after Holm, of all "
        f"{parts.count(NO_EFFECT)} within {MARGIN}, {int((~decided).sum())} with too "
        "many empty maps"
        + ("" if np.isnan(size) else f"; mean within {size}")
        + f"; all layers, cosine of empty maps as 0: {(filled[0] - filled[1]).mean():.3f}"
    )
    if not above.any():
        detail = _with_reach(detail, int(decided.sum()), evidence)
    verdict = verdict_of_parts(parts, least=least)
    return Finding(overall.mean[0], overall.low[0], overall.high[0], verdict, detail)


def moments(evidence: Evidence) -> Finding:
    """Judges A2: a lower mean and a greater variance under attack, in every layer."""
    mean = excess(evidence, 1.0)
    rung = evidence.rung(1.0)
    arms = [evidence.attack[:, rung], evidence.noise[:, rung]]
    both = np.isnan(arms[0]) | np.isnan(arms[1])
    arms = [np.where(both, np.nan, arm) for arm in arms]
    variances = []
    for arm in arms:
        first, squares = (evidence.resamplers[True].means(power) for power in (arm, arm**2))
        variances.append(squares - first**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = variances[0] / variances[1]
    low, high = statistics.interval(
        ratios,
        confidence=evidence.settings.confidence,
        clusters=evidence.resamplers[True].clusters,
    )
    decided = evidence.decided(arms[0])
    parts = [
        verdict_of_interval(low[i], high[i], above=1) if decided[i] else UNDECIDED
        for i in range(len(low))
    ]
    spread = verdict_of_parts(parts)
    verdict = verdict_of_all([mean.verdict, spread])
    known = ratios[:, decided & ~np.isnan(low)]
    ratio = np.nanmedian(known) if known.size else np.nan
    detail = f"mean: {mean.verdict}; variance ratio {ratio:.1f} (median), above 1 in " \
             f"{parts.count(HOLDS)} of {len(parts)} layers: {spread}"  # fmt: skip
    return Finding(mean.value, mean.low, mean.high, verdict, detail)


def named_layers(evidence: Evidence) -> Finding:
    """Judges A3: whether 4-1 and 5-1 are among the three most vulnerable layers."""
    named = ["4-1", "5-1"]
    if not set(named) <= set(evidence.layers):
        return nothing("the model has no layers 4-1 and 5-1", NOT_RUN)
    rung = evidence.rung(1.0)
    values = evidence.noise[:, rung] - evidence.attack[:, rung]
    _, draws = evidence.means(values)
    _, floors = evidence.means(evidence.unrelated)
    normalised = draws / (1 - floors)
    if np.isnan(normalised).all():
        return nothing("one source: no floor, no interval")
    ranks = rankdata(-normalised, axis=1, nan_policy="omit")  # 1: the most vulnerable
    inside = [ranks[:, evidence.layers.index(name)] <= 3 for name in named]
    shares = [float(np.mean(part)) for part in inside]
    both = float(np.mean(inside[0] & inside[1]))
    empty = [n for n, ok in zip(evidence.layers, evidence.decided(values), strict=True) if not ok]
    verdict = HOLDS if both >= 0.9 else PARTLY if max(shares) >= 0.9 else UNDECIDED
    verdict = NOT if both <= 0.1 and verdict == UNDECIDED else verdict
    detail = f"in the top 3: 4-1 in {shares[0]:.0%}, 5-1 in {shares[1]:.0%} of resamples"
    if set(named) & set(empty):
        detail = f"{detail}; too many empty maps in {', '.join(empty)}"
        # The claim names both layers, so that one which is decided can refute it alone.
        known = [s for name, s in zip(named, shares, strict=True) if name not in empty]
        verdict = NOT if known and min(known) <= 0.1 else UNDECIDED
    return Finding(both, np.nan, np.nan, verdict, detail)


def depth(evidence: Evidence) -> Finding:
    """Judges A4: whether deeper layers are less similar, above the layers' own floors.

    The floor is of the same images, and resampled with them. It rises with depth, and 1 minus the
    floor, the divisor, may be small; a residual network's maps inside a branch and after its sum
    drift differently. So the similarity as it is, and each kind of place by itself, must agree with
    the claim's statistic, or the claim is not decided. The detail has them all.
    """
    values = evidence.attack[:, evidence.rung(1.0)]
    mean, draws = evidence.means(values)
    floor, floors = evidence.means(evidence.unrelated)
    mask = evidence.decided(values) & ~np.isnan(floor)
    scales = {
        "above the floor": ((mean - floor) / (1 - floor), (draws - floors) / (1 - floors)),
        "as it is": (mean, draws),
    }
    order, parts = np.arange(len(mask)), {}
    for kind, place in {"all layers": mask, **_kinds(evidence, mask)}.items():
        if place.sum() < 3:
            continue
        for scale, (value, resampled) in scales.items():
            correlation = _spearman(order[place], value[None, place])[0]
            low, high = evidence.interval(_spearman(order[place], resampled[:, place]))
            verdict = HOLDS if correlation < -0.5 and high < 0 else NOT if low > -0.5 else UNDECIDED
            parts[f"{kind}, {scale}"] = Finding(correlation, low, high, verdict)
    if not parts:
        return nothing("fewer than three layers are decided")
    first, *others = parts.values()
    agree = all(other.verdict == first.verdict for other in others)
    texts = [f"{name}: {as_text(f.value, f.low, f.high)} {f.verdict}" for name, f in parts.items()]
    detail = f"{int(mask.sum())} layers; {'; '.join(texts[1:])}"
    return replace(first, verdict=first.verdict if agree else UNDECIDED, detail=detail)


def _kinds(evidence: Evidence, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the layers inside branches and those after a sum, if there are both."""
    layers = evidence.results.record.layers
    if "summed" not in layers or layers["summed"].nunique() < 2:
        return {}
    summed = layers["summed"].to_numpy(dtype=bool)
    return {"inside branches": mask & ~summed, "after sums": mask & summed}


def same_curves(
    evidence: Evidence, strengths: list[float], *, limit: float, by_tests: bool = False
) -> Finding:
    """Judges "the largest difference in a layer, between these strengths' curves, is below".

    By intervals, with the verdict by two one-sided tests in the detail; or `by_tests`, whose
    interval is that of 1 minus twice their level.
    """
    absent = [f"{s:g}" for s in strengths if s not in evidence.strengths]
    if absent:
        return nothing(f"no strength {', '.join(absent)}", NOT_RUN)
    rungs = [evidence.rung(strength) for strength in strengths]
    values = evidence.attack[:, rungs]
    mean, draws = evidence.means(values)
    mask = np.all([evidence.decided(values[:, i]) for i in range(len(rungs))], axis=0)
    if not mask.any():
        return nothing("no layer is decided")
    pairs = [(i, j) for i in range(len(rungs)) for j in range(i)]
    judged = differences.judge(
        np.concatenate([mean[i, mask] - mean[j, mask] for i, j in pairs]),
        np.concatenate([draws[:, i, mask] - draws[:, j, mask] for i, j in pairs], axis=1),
        limit=limit,
        confidence=evidence.settings.confidence,
        clusters=evidence.resamplers[True].clusters,
    )
    names = [name for name, k in zip(evidence.layers, mask, strict=True) if k]
    most, count = judged.most, len(judged.values)
    i, j = pairs[most // len(names)]
    place = f"{strengths[j]:g} and {strengths[i]:g} in layer {names[most % len(names)]}"
    detail = f"largest: {place}; {judged.beyond} of {count} differences beyond {limit}"
    low, high, verdict = judged.low, judged.high, judged.verdict
    if by_tests:
        low, high, verdict = judged.tests.low, judged.tests.high, judged.verdict_by_tests
        detail = f"{detail}; largest p {judged.tests.p.max():.2g}"
    elif not np.isnan(draws).all():
        detail = f"{detail}; {judged.text}"
    if verdict == UNDECIDED:
        detail = _with_reach(detail, count, evidence)
    return Finding(float(judged.values[most]), float(low[most]), float(high[most]), verdict, detail)


def _with_reach(detail: str, comparisons: int, evidence: Evidence) -> str:
    """Returns a detail, with a note if no data could have decided."""
    note = statistics.out_of_reach(
        comparisons, resamples=evidence.resamples, confidence=evidence.settings.confidence
    )
    return f"{detail}; {note}" if note else detail


def every_strength(evidence: Evidence) -> Finding:
    """Judges A8: mean e over layers at each strength; the value is the least."""
    findings = {s: excess(evidence, s) for s in evidence.strengths}
    parts = []
    for finding in findings.values():
        if margin(finding.low, finding.high) <= MARGIN:
            parts.append(NO_EFFECT)
        else:
            parts.append(verdict_of_interval(finding.low, finding.high, above=0))
    least = min(findings.values(), key=lambda finding: finding.value)
    detail = ", ".join(f"{s:g}: {f.value:.3f}" for s, f in findings.items())
    return Finding(least.value, least.low, least.high, verdict_of_parts(parts), detail)


def coverage_growth(evidence: Evidence) -> Finding:
    """Judges A13: the area between the coverage curves of attack and noise.

    The public code counts the attack's image only where the class changed, the noise's always, and
    its list of noise curves makes that of the first strength stand for all
    (`statistics.shared_list`). These have no switch of their own: they come with a protocol whose
    strengths and noise are both the public code's.
    """
    if evidence.results.first.recipe != EXACT:
        return nothing(f"coverage was not counted under {EXACT}", NOT_RUN)
    bits, confidence = evidence.bits, evidence.settings.confidence
    strengths = sorted(strength for variant, strength in bits if variant == NOISE)
    arms = {s: bits[CLEAN, 0.0] | bits[NOISE, s] for s in strengths}
    curves = {s: statistics.coverage_curve(arm) for s, arm in arms.items()}
    attack_bits, strength = bits[ADVERSARIAL, 1.0], 1.0
    protocol = evidence.protocol
    if protocol.strengths == "accumulating" and protocol.noise == "with_negated_attack":
        curves, strength = statistics.shared_list(curves), strengths[0]
        attack_bits = attack_bits & evidence.results.images["success"].to_numpy()[:, None]
    attack = bits[CLEAN, 0.0] | attack_bits
    count = len(attack)
    area = float(statistics.coverage_curve(attack).mean() - curves[1.0][:count].mean())
    left_out = [
        statistics.coverage_curve(attack[rest]).mean()
        - statistics.coverage_curve(arms[strength][rest]).mean()
        for rest in evidence.without_each_source()
    ]
    low, high = statistics.jackknife(np.array(left_out), area, confidence=confidence)
    detail = f"attack at 1 against noise at {strength:g}; all orders of {count} seeds"
    return Finding(area, low, high, verdict_of_interval(low, high, above=0), detail)


def coverage_by_strength(evidence: Evidence) -> Finding:
    """Judges A14: whether final coverage rises with strength, and how far it ranges.

    Over random halves of the source pictures, without replacement: a bootstrap resample would hold
    pictures twice, which cover nothing new, and ranks have no jackknife.
    """
    if evidence.results.first.recipe != EXACT:
        return nothing(f"coverage was not counted under {EXACT}", NOT_RUN)
    if len(evidence.strengths) < 3:
        return nothing("fewer than three strengths", NOT_RUN)
    bits = evidence.bits
    both = [bits[CLEAN, 0.0] | bits[ADVERSARIAL, s] for s in evidence.strengths]
    sources = evidence.results.images["source"].to_numpy()
    names = np.unique(sources)
    if len(names) < 2:
        return nothing("one source: no halves")
    rng = randomness.generator(evidence.seed, "coverage claims", evidence.results.name)
    order = rng.permuted(np.tile(np.arange(len(names)), (evidence.settings.resamples, 1)), axis=1)
    halves = (order < len(names) // 2).astype(np.float32)  # each row: which pictures are in
    by_source = [np.stack([arm[sources == name].any(0) for name in names]) for arm in both]
    final = np.stack([((halves @ arm.astype(np.float32)) > 0).mean(1) for arm in by_source], axis=1)
    rises = _spearman(np.arange(len(both)), final)
    low, high = evidence.interval(rises, clusters=np.inf)  # halves are no bootstrap draws
    ranges = np.ptp(final, axis=1)
    widths = evidence.interval(ranges, clusters=np.inf)
    parts = [
        verdict_of_interval(low, high, above=0.5),
        verdict_of_range(*widths, least=0.0, most=0.05),
    ]
    whole = [arm.any(0).sum() for arm in both]
    detail = (
        f"range {ranges.mean():.4f} [{widths[0]:.4f}, {widths[1]:.4f}]; all pictures cover "
        f"{', '.join(str(count) for count in whole)} neurons"
    )
    return Finding(float(np.nanmean(rises)), low, high, verdict_of_all(parts), detail)


def attackable(evidence: Evidence) -> Finding:
    """Judges A15: the share of seeds with an adversarial, for classifiers of ImageNet's classes."""
    images = evidence.results.images
    rng = randomness.generator(evidence.seed, "claims", evidence.results.name)
    draws = Resampler.draw(
        images["source"].to_numpy(), resamples=evidence.settings.resamples, rng=rng
    )
    success = images["success"].to_numpy(dtype=float)[:, None]
    estimate = draws.estimate(success, confidence=evidence.settings.confidence)
    value, low, high = (float(part[0]) for part in (estimate.mean, estimate.low, estimate.high))
    if evidence.results.record.facts.get("classes") != IMAGENET_CLASSES:
        return Finding(value, low, high, UNDECIDED, "the claim speaks of ImageNet; reported only")
    verdict = verdict_of_range(low, high, least=0.38, most=0.58)
    return Finding(value, low, high, verdict, f"{int(success.sum())} of {len(success)} images")


def _spearman(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of each row of `values` (n, k) with `order` (k,)."""
    ranks = rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    steps = rankdata(order) - rankdata(order).mean()
    norms = np.sqrt((ranks**2).sum(1) * (steps**2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isnan(values).any(1), np.nan, ranks @ steps / norms)


def _lowest(evidence: Evidence) -> Finding:
    if 0.25 not in evidence.strengths:
        return nothing("no strength 0.25", NOT_RUN)
    return excess(evidence, 0.25, least=10)


# Of the claims that some curves are alike: their strengths, and the limit of their differences.
CURVES: dict[str, Curves] = {
    "A5": {"strengths": [0.5, 1.0], "limit": 0.01},
    "A6": {"strengths": [0.25, 2.0, 4.0], "limit": 0.03},
}

JUDGES: dict[str, Callable[[Evidence], Finding]] = {
    "A1": lambda evidence: excess(evidence, 1.0),
    "A1f": lambda evidence: excess(evidence, 1.0, success=False),
    "A2": moments,
    "A3": named_layers,
    "A4": depth,
    "A5": lambda evidence: same_curves(evidence, **CURVES["A5"]),
    "A6": lambda evidence: same_curves(evidence, **CURVES["A6"]),
    "A7": _lowest,
    "A8": every_strength,
    "A13": coverage_growth,
    "A14": coverage_by_strength,
    "A15": attackable,
}

"""Judges of chakraborty2022's claims: what attacks did to networks becomes a verdict.

Maps are those of the last conv layer at the input's size, attacks the transferred one but where
another is named, and eps the largest. A verdict speaks of the networks that were tried.

A claim on several eps is judged on the paper's, see `Comparison.judged`. One on maps is judged in
several ways, see `reading`: on maps of the class that the settings name, pairs with an empty map
left out; with an empty map compared as it is, blank; on maps of the other class; and more. The
first decides, unless too many of its maps are empty. One on classes is judged at each eps.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.tables import as_text, rounded
from camdrift.papers import claims, family
from camdrift.papers.chakraborty2022.claims import CLAIMS, ON_CLASSES, ON_MAPS
from camdrift.papers.chakraborty2022.comparison import (
    PREPROCESSED,
    Comparison,
    outcomes,
    paired,
)
from camdrift.papers.chakraborty2022.equivalence import shift_is_that_of_noise
from camdrift.papers.chakraborty2022.flags import FEW, ONE_TRAINING, empty_shares, flags
from camdrift.papers.chakraborty2022.floor import off_the_floor
from camdrift.papers.chakraborty2022.parts import NO_MAPS, Part, finding_of_parts
from camdrift.papers.chakraborty2022.reading import CLASSES, Reading, map_readings
from camdrift.papers.findings import (
    FINDING_COLUMNS,
    NOT_RUN,
    UNDECIDED,
    Finding,
    nothing,
    verdict_of_all,
    verdict_of_parts,
)
from camdrift.scores import vid
from camdrift.settings import FlagSettings
from camdrift.settings.section import in_words
from camdrift.storage import TRANSFERRED, TRANSFERRED_NOISE

STABLE = "VGG16"  # the network that the paper calls the most stable
FROM = 0.05  # the least eps at which preprocessing is to help
BEYOND = "attack minus noise"


def _shift(comparison: Comparison, reading: Reading) -> np.ndarray:
    """Returns NISSIM at the eps that claims are judged on: (n, networks, eps)."""
    return comparison.shift(reading.explains, blank=reading.blank)[..., comparison.judged]


def _floors(comparison: Comparison, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Returns the divisors of shifts: (networks,), and in each resample (resamples, networks).

    MOD of unrelated pairs where the reading is relative to it, else 1.
    """
    if not reading.relative:
        count = len(comparison.networks())
        return np.ones(count), np.ones((comparison.settings.resamples, count))
    floor = comparison.unrelated(reading.explains, blank=reading.blank)
    return comparison.means(floor, comparison.images)


NO_FAMILIES = "wanted deep and wide networks beside that on which the attack was made"


def mod_rises(comparison: Comparison, reading: Reading) -> Finding:
    """Judges D1: MOD rises from each eps to the next, network by network.

    Each step of a network must be above 0; its part is that step which decides.
    """
    value, resamples = comparison.means(_shift(comparison, reading), comparison.images)
    if np.isnan(value).any():
        return nothing(NO_MAPS)
    every = [comparison.plan.eps[i] for i in comparison.judged]
    parts, steps = [], list(pairwise(every))
    for i, name in enumerate(comparison.networks()):
        mine = [
            Part(f"{name} from eps {low:g} to {high:g}", float(value[i, k + 1] - value[i, k]),
                 *comparison.interval(resamples[:, i, k + 1] - resamples[:, i, k]), above=0)
            for k, (low, high) in enumerate(steps)
        ]  # fmt: skip
        worst = verdict_of_all([step.verdict for step in mine])
        parts.append(min((s for s in mine if s.verdict == worst), key=lambda step: step.value))
    detail = "MOD " + ", ".join(
        f"{name} {mods[0]:.3f} to {mods[-1]:.3f} ({part.verdict})"
        for name, mods, part in zip(comparison.networks(), value, parts, strict=True)
    )
    verdict = verdict_of_parts([part.verdict for part in parts])
    return finding_of_parts(parts, verdict, detail, len(comparison.images))


def wide_lose_more(comparison: Comparison, place: int = -1) -> Finding:
    """Judges D2: accuracy lost, mean of wide networks minus that of deep ones.

    `place` is that of the eps, the largest unless given. The second reading, in the detail, is of
    networks with inputs of one size.
    """
    families = comparison.families()
    if families is None:
        return nothing(NO_FAMILIES)
    wide, deep = families
    value, resamples = comparison.means(comparison.loss()[:, :, place], comparison.images)

    def gap(wide: np.ndarray, deep: np.ndarray) -> tuple[float, float, float]:
        ends = comparison.interval(resamples[:, wide].mean(1) - resamples[:, deep].mean(1))
        return (float(value[wide].mean() - value[deep].mean()), *ends)

    names = list(comparison.networks())
    texts = ", ".join(f"{names[i]} {value[i]:.3f}" for i in (*deep, *wide))
    parts = [tried.parts[0] for tried in comparison.networks().values()]
    sizes = np.array([in_words(part.facts["size"]) for part in parts])
    detail = f"lost at eps {comparison.plan.eps[place]:g}: {texts}"
    common = max(set(sizes.tolist()), key=sizes.tolist().count)
    same = [places[sizes[places] == common] for places in (wide, deep)]
    if (sizes == common).all():
        detail += f"; inputs of all are {common}"
    elif all(len(places) for places in same):
        detail += f"; of those at {common} alone {as_text(*gap(*same))}"
    detail += f"; {off_the_floor(comparison, TRANSFERRED, [*deep, *wide])}"
    part = Part("wide minus deep", *gap(wide, deep), above=0.1)
    return finding_of_parts([part], part.verdict, detail, len(comparison.images))


def wide_lose_more_at_equal_shift(comparison: Comparison, reading: Reading) -> Finding:
    """Judges D3: accuracy lost at the same MOD, wide minus deep.

    Lost accuracy against MOD is a line from (0, 0) through the eps of a network; where MOD falls,
    the largest so far stands. The mean over ten MOD up to the largest that all reach.
    """
    families = comparison.families()
    if families is None:
        return nothing(NO_FAMILIES)
    wide, deep = families
    order = [*wide, *deep]
    lost = comparison.loss()[..., comparison.judged]
    both = np.stack([_shift(comparison, reading), lost], axis=3)[:, order]
    value, resamples = comparison.means(both, comparison.images)
    floor, floors = (part[..., order] for part in _floors(comparison, reading))
    value[..., 0] /= floor[:, None]
    resamples[..., 0] /= floors[..., None]
    if np.isnan(value).any():
        return nothing(NO_MAPS)

    def gap(curves: np.ndarray) -> float:
        mods, lost = np.maximum.accumulate(curves[..., 0], axis=1), curves[..., 1]
        grid = np.linspace(0, mods[:, -1].min(), 11)[1:]
        at = [
            np.interp(grid, [0, *mod], [0, *loss]).mean()
            for mod, loss in zip(mods, lost, strict=True)
        ]
        return float(np.mean(at[: len(wide)]) - np.mean(at[len(wide) :]))

    ends = comparison.interval(np.array([gap(curves) for curves in resamples]))
    shared = value[..., 0].max(1).min()
    unit = " times that of unrelated pairs" * reading.relative
    detail = f"mean over MOD up to {shared:.3f}{unit}, the largest that all reach"
    part = Part("wide minus deep", gap(value), *ends, above=0)
    return finding_of_parts([part], part.verdict, detail, len(comparison.images))


def one_is_most_stable(comparison: Comparison, reading: Reading) -> Finding:
    """Judges D4: VGG16 has the lowest MOD and the lowest mean VID.

    Both of each other network minus its own must be above 0.
    """
    names = list(comparison.networks())
    if STABLE not in names or len(names) < 2:
        return nothing(f"wanted {STABLE} beside other networks, got {', '.join(names)}")
    shift = _shift(comparison, reading)
    each = np.stack([vid.spread(shift[:, i]) for i in range(len(names))], axis=1)
    both = np.stack([shift[:, :, -1], each], axis=2)
    value, resamples = comparison.means(both, comparison.images)
    floor, floors = _floors(comparison, reading)
    value, resamples = value / floor[:, None], resamples / floors[..., None]
    if np.isnan(value).any():
        return nothing(NO_MAPS)
    mine = names.index(STABLE)
    parts = [
        Part(f"{name} minus {STABLE} by {measure}", float(value[i, k] - value[mine, k]),
             *comparison.interval(resamples[:, i, k] - resamples[:, mine, k]), above=0)
        for i, name in enumerate(names) if i != mine
        for k, measure in enumerate(("MOD", "VID"))
    ]  # fmt: skip
    ranks = [int((value[:, k] < value[mine, k]).sum()) + 1 for k in (0, 1)]
    detail = f"rank {ranks[0]} by MOD and {ranks[1]} by VID of {len(names)}: " + ", ".join(
        f"{name} {row[0]:.3f} and {row[1]:.3f}" for name, row in zip(names, value, strict=True)
    )
    verdict = verdict_of_all([part.verdict for part in parts])
    return finding_of_parts(parts, verdict, detail, len(comparison.images))


def carries_over(comparison: Comparison, place: int = -1) -> Finding:
    """Judges D5: accuracy lost by the transferred attack minus that by noise of its size.

    Of each network but that on which the attack was made; `place` is that of the eps, the largest
    unless given.
    """
    names = list(comparison.networks())
    others = [i for i, name in enumerate(names) if name != comparison.plan.transferred]
    if not others:
        return nothing("wanted other networks than that on which the attack was made")
    eps = comparison.plan.eps[place]
    beyond = comparison.right(TRANSFERRED_NOISE, eps) - comparison.right(TRANSFERRED, eps)
    value, resamples = comparison.means(beyond, comparison.images)
    parts = [
        Part(names[i], float(value[i]), *comparison.interval(resamples[:, i]), above=0.05)
        for i in others
    ]
    detail = ", ".join(f"{part.name} {as_text(part.value, part.low, part.high)}" for part in parts)
    detail += f"; under noise {off_the_floor(comparison, TRANSFERRED_NOISE, others)}"
    verdict = verdict_of_parts([part.verdict for part in parts])
    return finding_of_parts(parts, verdict, detail, len(comparison.images))


def shift_explains_failure(comparison: Comparison, reading: Reading) -> Finding:
    """Judges D6: MOD goes with accuracy lost, and with failing at a fixed eps.

    The rank correlation over networks and eps; and the mean difference of NISSIM between images
    that a network gets wrong under the attack and those that it still gets right, of those that it
    gets right clean, over networks and eps.
    """
    shift, lost = _shift(comparison, reading), comparison.loss()[..., comparison.judged]
    groups = np.stack(outcomes(comparison, reading.explains, blank=reading.blank))
    counts = np.isfinite(groups).sum(1).min(0)  # of the smaller group: (networks, eps)
    groups = np.where(counts >= reading.least, groups, np.nan)
    every = np.stack([shift, lost, *groups], axis=3)
    value, resamples = comparison.means(every, comparison.images)

    def ranked(table: np.ndarray) -> float:
        flat = table[..., :2].reshape(-1, 2)
        flat = flat[np.isfinite(flat).all(1)]
        return float(statistics.spearman(*flat.T, weights=np.ones((1, len(flat))))[0])

    def apart(table: np.ndarray) -> float:
        differences = (table[..., 2] - table[..., 3]).ravel()
        known = differences[np.isfinite(differences)]
        return float(known.mean()) if len(known) else float("nan")

    named = {"the rank correlation": (ranked, 0.6), "failed minus not": (apart, 0.0)}
    parts = [
        Part(name, of(value), *comparison.interval(np.array([of(t) for t in resamples])), above)
        for name, (of, above) in named.items()
    ]
    if any(np.isnan(part.value) for part in parts):
        return nothing(
            "nowhere are there enough images that fail and that do not, or maps are all empty"
        )
    points = int(np.isfinite(value[..., 0]).sum())
    texts = ", ".join(f"{part.name} {as_text(part.value, part.low, part.high)}" for part in parts)
    few = int(((counts >= reading.least) & (counts < FEW)).sum())
    detail = f"{texts}, over {points} networks and eps"
    if few:
        detail += f", {few} of them with fewer than {FEW} images that fail or that do not"
    verdict = verdict_of_all([part.verdict for part in parts])
    used = counts[counts >= reading.least]
    finding = finding_of_parts(parts, verdict, detail, len(comparison.images))
    return replace(finding, images=int(used.min()))


def preprocessing_helps(comparison: Comparison, under: str = TRANSFERRED) -> Finding:
    """Judges D7: accuracy with preprocessing minus without, on the same images.

    Mean over the networks that were tried both ways, at each eps from 0.05 on; each must be above
    0. Under the transferred attack, under noise of its size, or the difference of both, `BEYOND`.
    """
    networks = list(comparison.networks(PREPROCESSED))
    if not networks:
        return nothing("no set with preprocessing beside one without", NOT_RUN)
    steps = [eps for eps in comparison.plan.eps if eps >= FROM]
    if not steps:
        return nothing(f"no eps from {FROM:g} on", NOT_RUN)

    def change(network: str, eps: float, kind: str) -> np.ndarray:
        plain, other = paired(comparison, network, eps, kind=kind)
        return other.astype(float) - plain

    attack, noise = (
        np.stack([[change(n, eps, kind) for eps in steps] for n in networks]).transpose(2, 0, 1)
        for kind in (TRANSFERRED, TRANSFERRED_NOISE)
    )
    each = {TRANSFERRED: attack, TRANSFERRED_NOISE: noise, BEYOND: attack - noise}
    means = {kind: comparison.means(part, comparison.images) for kind, part in each.items()}

    def parts(kind: str) -> list[Part]:
        value, resamples = means[kind]
        return [
            Part(f"eps {eps:g}", float(value[:, k].mean()),
                 *comparison.interval(resamples[..., k].mean(1)), above=0)
            for k, eps in enumerate(steps)
        ]  # fmt: skip

    def texts(kind: str) -> str:
        every = parts(kind)
        return ", ".join(f"{p.name} {as_text(p.value, p.low, p.high)}" for p in every)

    by_network = ", ".join(
        f"{name} {row.mean():.3f}" for name, row in zip(networks, means[under][0], strict=True)
    )
    detail = f"{texts(under)}; mean by network {by_network}"
    if under == TRANSFERRED:
        detail += f"; under noise of its size {texts(TRANSFERRED_NOISE)}; {BEYOND} {texts(BEYOND)}"
    if all(len(tried.parts) == 1 for tried in comparison.tried.values()):
        detail += f"; {ONE_TRAINING}"
    verdict = verdict_of_all([part.verdict for part in parts(under)])
    return finding_of_parts(parts(under), verdict, detail, len(comparison.images))


# Each claim's judge, by what it is judged on.
BY_CLASSES: dict[str, Callable[..., Finding]] = {
    "D2": wide_lose_more, "D5": carries_over, "D7": preprocessing_helps
}  # fmt: skip
BY_MAPS: dict[str, Callable[[Comparison, Reading], Finding]] = {
    "D1": mod_rises, "D3": wide_lose_more_at_equal_shift, "D4": one_is_most_stable,
    "D6": shift_explains_failure, "D8": shift_is_that_of_noise,
}  # fmt: skip


def judged(comparison: Comparison, claim: str, limits: FlagSettings) -> Finding:
    """Returns what was found on a claim; one on maps also as two of its other readings have it."""
    first = first_finding(comparison, claim, limits)
    if claim in ON_CLASSES:
        return first
    every = map_readings(claim, comparison.plan.explains, least=FEW)
    blank, other = (on_maps(comparison, claim, reading, limits) for reading in every[1:3])
    further = {
        "empty maps taken as blank": blank,
        f"maps of the {CLASSES[every[2].explains]}": other,
    }
    texts = [
        f"{name}: {as_text(f.value, f.low, f.high)} {f.verdict}".replace("  ", " ")
        for name, f in further.items()
    ]
    return replace(first, detail="; ".join([first.detail, *texts]))


def first_finding(comparison: Comparison, claim: str, limits: FlagSettings) -> Finding:
    """Returns the finding on a claim by the reading that decides."""
    if claim in ON_CLASSES:
        return BY_CLASSES[claim](comparison)
    first, *_ = map_readings(claim, comparison.plan.explains, least=FEW)
    return on_maps(comparison, claim, first, limits)


def after_holm(comparison: Comparison, limits: FlagSettings) -> dict[str, str]:
    """Returns the verdicts after Holm's correction over all claims, see `family.after_holm`."""

    def verdicts(confidence: float) -> dict[str, str]:
        settings = comparison.settings.model_copy(update={"confidence": confidence})
        at_level = replace(comparison, settings=settings)
        every = (*ON_CLASSES, *ON_MAPS)
        return {claim: first_finding(at_level, claim, limits).verdict for claim in every}

    return family.after_holm(verdicts, confidence=comparison.settings.confidence)


def on_maps(comparison: Comparison, claim: str, reading: Reading, limits: FlagSettings) -> Finding:
    """Returns what a reading says of a claim: nothing is decided with too many empty maps."""
    finding = BY_MAPS[claim](comparison, reading)
    share = max(empty_shares(comparison, reading.explains).values())
    if reading.blank or share <= limits.empty_share:
        return finding
    reason = f"not decided since up to {share:.0%} of the pairs of maps have an empty one"
    plain = finding.detail.partition("; about ")[0]
    return replace(finding, verdict=UNDECIDED, detail=f"{plain}; {reason}")


def claims_table(comparison: Comparison, limits: FlagSettings) -> pd.DataFrame:
    """Returns the claims table of a study, see `claims.table`."""
    everyone = len(comparison.images)
    rows = []
    for claim in sorted([*ON_CLASSES, *ON_MAPS]):
        finding = judged(comparison, claim, limits)
        images = 0 if finding.verdict == NOT_RUN else everyone
        rows.append(("corrected", claim, finding.value, finding.low, finding.high,
                     finding.verdict, images, finding.detail))  # fmt: skip
    networks = comparison.networks()
    size = in_words(next(iter(networks.values())).parts[0].pictures.shape[2:4])
    rests_on = (
        f"{everyone} test images of {size}, {comparison.images['source'].nunique()} source "
        f"pictures; {', '.join(networks)}; attack made on {comparison.plan.transferred}, "
        f"eps of pixels in {'[0, 1]' if comparison.range == 'unit' else '[-1, 1]'}"
    )
    findings, doubts = pd.DataFrame(rows, columns=FINDING_COLUMNS), flags(comparison, limits)
    return rounded(
        claims.table(
            CLAIMS,
            findings,
            rests_on=lambda claim: rests_on,
            flags=doubts,
            after_holm=after_holm(comparison, limits),
        )
    )

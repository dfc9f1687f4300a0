"""Judges of claims on controls: the perturbation rearranged, the class held, noise alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from camdrift.analysis import focus, statistics
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.statistics import Resampler
from camdrift.analysis.tables import as_text
from camdrift.papers.findings import (
    NOT_RUN,
    Finding,
    nothing,
    verdict_of_interval,
    verdict_of_parts,
    verdict_of_range,
)
from camdrift.papers.renkhoff2022.verdicts import excess
from camdrift.pipeline import randomness
from camdrift.scores import movement
from camdrift.storage import ADVERSARIAL, NOISE, OWN, SEED

FLOOR = "floor"


def beyond(evidence: Evidence, control: str) -> Finding:
    """Judges A1n and A1p: an attack moves the maps further than a control of it, layer by layer.

    The detail has the control's share of the attack's excess over noise, mean over layers.
    """
    if control not in set(evidence.values["variant"]):
        return nothing(f"no maps under the control '{control}'", NOT_RUN)
    finding = excess(evidence, 1.0, than=control)
    rung = evidence.rung(1.0)
    noise, attack, own = (
        evidence.similarity(variant)[:, rung] for variant in (NOISE, ADVERSARIAL, control)
    )
    decided = evidence.decided(noise - attack) & evidence.decided(own)
    if not decided.any():
        return finding
    whole = np.nanmean((noise - attack)[:, decided])
    share = np.nanmean((noise - own)[:, decided]) / whole
    detail = f"{finding.detail}; {control} has {share:.0%} of the excess over noise"
    return replace(finding, detail=detail)


def flip_is_most(evidence: Evidence) -> Finding:
    """Judges A1s: the change of class is more than half of the excess drift.

    1 minus the excess of maps of the clean image's class over that of maps of each image's own, of
    images that the attack flips, over the layers that are decided for both.
    """
    rung = evidence.rung(1.0)
    by_class = {}
    for target in (SEED, OWN):
        protocol = evidence.protocol.model_copy(update={"target": target})
        held = replace(evidence, protocol=protocol)
        if not len(held.values):
            return nothing("maps of one of the classes were not compared", NOT_RUN)
        by_class[target] = (held.noise - held.attack)[:, rung]
    decided = np.all([evidence.decided(values) for values in by_class.values()], axis=0)
    if not decided.any():
        return nothing("no layer is decided for both classes")
    both = np.stack([values[:, decided] for values in by_class.values()], axis=1)
    mean, draws = evidence.means(both)
    value = 1 - mean[0].mean() / mean[1].mean()
    low, high = evidence.interval(1 - draws[:, 0].mean(1) / draws[:, 1].mean(1))
    detail = (
        f"excess {mean[0].mean():.3f} of the clean class, {mean[1].mean():.3f} of each own; "
        f"{len(both)} images, {int(decided.sum())} layers"
    )
    verdict = verdict_of_interval(low, high, above=0.5)
    return Finding(float(value), low, high, verdict, detail, len(both))


def weak_deviates_more(evidence: Evidence) -> Finding:
    """Judges A16: at 0.25 maps are less similar than at 2 and at 4; the value is the least."""
    absent = [f"{s:g}" for s in (0.25, 2.0, 4.0) if s not in evidence.strengths]
    if absent:
        return nothing(f"no strength {', '.join(absent)}", NOT_RUN)
    weak, *strong = (evidence.attack[:, evidence.rung(s)] for s in (0.25, 2.0, 4.0))
    decided = np.all([evidence.decided(arm) for arm in (weak, *strong)], axis=0)
    if not decided.any():
        return nothing("no layer is decided at all three strengths")
    parts, texts, estimates = [], [], []
    for strength, arm in zip((2, 4), strong, strict=True):
        mean, draws = evidence.means((arm - weak)[:, decided])
        low, high = evidence.interval(draws.mean(1))
        parts.append(verdict_of_interval(low, high, above=0))
        estimates.append((float(mean.mean()), low, high))
        texts.append(f"{strength}: {mean.mean():.3f}")
    return Finding(*min(estimates), verdict_of_parts(parts), ", ".join(texts))


def noise_rarely_flips(evidence: Evidence) -> Finding:
    """Judges A17: the share of all attacked images whose class noise of the attack's size flips."""
    images, results = evidence.results.images, evidence.results
    keys = (evidence.protocol.recipe, NOISE, 1.0, 0)
    if keys not in results.flipped.index.droplevel("image"):
        return nothing("no noise under this protocol", NOT_RUN)
    flips = results.flipped.loc[keys].reindex(images["image"]).to_numpy(dtype=float)
    rng = randomness.generator(evidence.seed, "claims", results.name)
    draws = Resampler.draw(
        images["source"].to_numpy(), resamples=evidence.settings.resamples, rng=rng
    )
    estimate = draws.estimate(flips[:, None], confidence=evidence.settings.confidence)
    value, low, high = (float(part[0]) for part in (estimate.mean, estimate.low, estimate.high))
    verdict = verdict_of_range(low, high, least=-np.inf, most=0.05)
    detail = f"{int(flips.sum())} of {len(flips)} images"
    return Finding(value, low, high, verdict, detail, len(flips))


def focus_moves(evidence: Evidence) -> Finding:
    """Judges A18: maps move to where the attack is, more than to where noise is under noise.

    Mean over layers of the correlation of the map's difference and the perturbation's energy,
    attack minus noise. The detail has that beyond the attacks on other images, whose energy shares
    with this one what is common to all images, and the correlation of the difference's size.
    """
    flipped = evidence.results.images["success"].to_numpy()
    member = np.ones(flipped.sum(), bool) if evidence.of is None else evidence.of[flipped]
    parts: dict[str, tuple[float, float, float]] = {}
    layers, means = {}, []
    for kind, by_arm in focus.correlations(evidence.results, evidence.protocol).items():
        attack, noise, floor = (a[member] for a in (by_arm.attack, by_arm.noise, by_arm.floor))
        for name, other in ((NOISE, noise), (FLOOR, floor)):
            difference = attack - other
            decided = evidence.decided(difference)
            if not decided.any():
                continue
            rows = difference[:, decided]
            mean, draws = evidence.means(statistics.row_means(rows))
            parts[f"{kind} {name}"] = (float(mean[0]), *evidence.interval(draws))
            if kind == movement.MOVE:
                layers[name] = rows
                means += [float(np.nanmean(arm[:, decided])) for arm in (attack, other)]
    first, beside = (f"{movement.MOVE} {name}" for name in (NOISE, FLOOR))
    if first not in parts:
        return nothing("no layer where enough maps and perturbations vary; a sign's do not")
    verdict = verdict_of_interval(*parts[first][1:], above=0.1)
    _, draws = evidence.means(layers[NOISE])
    low, _ = statistics.interval(
        draws,
        confidence=evidence.settings.confidence,
        clusters=evidence.resamplers[True].clusters,
    )
    detail = (
        f"attack {means[0]:.3f}, noise {means[1]:.3f}; {int((low > 0.1).sum())} of {len(low)} "
        "layers above 0.1"
    )
    if beside in parts:
        over = parts[beside]
        other = verdict_of_interval(*over[1:], above=0.1)
        detail += (
            f"; with the attacks on other images {means[3]:.3f}, beyond them {as_text(*over)}: "
            f"would be '{other}'"
        )
    size = parts.get(f"{movement.SIZE} {NOISE}")
    detail += f"; size of the difference, attack minus noise {as_text(*size)}" if size else ""
    return Finding(*parts[first], verdict, detail, int(member.sum()))


JUDGES: dict[str, Callable[[Evidence], Finding]] = {
    "A1n": lambda evidence: beyond(evidence, "negated"),
    "A1p": lambda evidence: beyond(evidence, "phase_randomised"),
    "A1s": flip_is_most,
    "A16": weak_deviates_more,
    "A17": noise_rarely_flips,
    "A18": focus_moves,
}

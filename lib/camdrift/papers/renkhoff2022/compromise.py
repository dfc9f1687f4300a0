"""The judges of renkhoff2022's claims on compromised layers, A9 to A12.

The paper calls a layer compromised where its map is less similar than the layer's median under
noise (III-C, IV-E). By construction that calls half of the maps under noise compromised, so each
finding has, beside it, what a rule with few false alarms finds: a low quantile under noise, over
images of other pictures.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from camdrift.analysis.evidence import Evidence
from camdrift.analysis.tables import as_text
from camdrift.papers.findings import (
    HOLDS,
    NOT,
    NOT_RUN,
    UNDECIDED,
    Finding,
    nothing,
    verdict_of_all,
    verdict_of_interval,
    verdict_of_parts,
    verdict_of_range,
)

HELD_OUT = "held_out_quantile"

Judge = Callable[[Evidence], Finding]


def by_both_rules(judge: Judge) -> Judge:
    """Returns a judge by the protocol's rule, whose detail names it and has the other beside."""

    def judged(evidence: Evidence) -> Finding:
        finding, rule = judge(evidence), evidence.protocol.threshold
        detail = f"rule {rule}: {finding.detail}"
        if rule != HELD_OUT:
            protocol = evidence.protocol.model_copy(update={"threshold": HELD_OUT})
            other = judge(replace(evidence, protocol=protocol))
            value = as_text(other.value, other.low, other.high) or other.detail
            detail += f"; rule {HELD_OUT}: {value} {other.verdict}"
        return replace(finding, detail=detail)

    return judged


def _shares(evidence: Evidence, arm: str, strength: float) -> tuple[float, np.ndarray]:
    values = evidence.compromised[arm][:, evidence.rung(strength)]
    values = values[:, evidence.decided(values)]
    if not values.size:
        return float("nan"), np.full(evidence.resamples, np.nan)
    mean, draws = evidence.means(values)
    return float(mean.mean()), draws.mean(axis=1)


def compromised_at_lowest(evidence: Evidence) -> Finding:
    """Judges A9: the compromised share at the lowest strength."""
    strength = evidence.strengths[0]
    value, draws = _shares(evidence, "attack", strength)
    null, _ = _shares(evidence, "noise", strength)
    low, high = evidence.interval(draws)
    verdict = verdict_of_range(low, high, least=0.3, most=0.5)
    detail = f"strength {strength:g}; held-out noise: {null:.0%}"
    return Finding(value, low, high, verdict, detail)


def compromised_at_extremes(evidence: Evidence) -> Finding:
    """Judges A10: the compromised share from strength 2 and to 0.25; the value is the least."""
    strengths = [s for s in evidence.strengths if s >= 2 or s <= 0.25]
    if not strengths:
        return nothing("no strength from 2 or to 0.25", NOT_RUN)
    parts, texts, estimates = [], [], []
    for strength in strengths:
        value, draws = _shares(evidence, "attack", strength)
        null, _ = _shares(evidence, "noise", strength)
        low, high = evidence.interval(draws)
        parts.append(verdict_of_interval(low, high, above=0.7))
        estimates.append((value, low, high))
        texts.append(f"{strength:g}: {value:.0%} (noise {null:.0%})")
    return Finding(*min(estimates), verdict_of_parts(parts), ", ".join(texts))


def _whole(evidence: Evidence, condition: Callable[[np.ndarray], np.ndarray]
           ) -> dict[str, np.ndarray]:  # fmt: skip
    """Returns by arm whether an image's number of compromised layers fits: (images, strengths).

    NaN where one of the image's maps is empty: its layer is neither compromised nor not.
    """
    counts = {arm: values.sum(2) for arm, values in evidence.compromised.items()}
    return {a: np.where(np.isnan(c), np.nan, condition(c)) for a, c in counts.items()}


def few_layers(evidence: Evidence) -> Finding:
    """Judges A11: images of few compromised layers, attack against held-out noise."""
    rung = evidence.rung(1.0)
    few = _whole(evidence, lambda counts: counts <= 3)
    attack, noise = (few[arm][:, rung] for arm in ("attack", "noise"))
    both = ~np.isnan(attack) & ~np.isnan(noise)
    if not both.any():
        return nothing("every image has an empty map")
    difference = np.where(both, attack - noise, np.nan)
    mean, draws = evidence.means(difference[:, None])
    low, high = evidence.interval(draws)
    verdict = HOLDS if mean[0] > 0.05 and low > 0 else NOT if high < 0.05 else UNDECIDED
    detail = (
        f"attack {attack[both].mean():.0%}, noise {noise[both].mean():.0%}, "
        f"{int(both.sum())} images without an empty map"
    )
    return Finding(float(mean[0]), low, high, verdict, detail)


def all_layers(evidence: Evidence) -> Finding:
    """Judges A12: images all of whose layers are compromised, and their slope in strength."""
    layers = len(evidence.layers)
    every = _whole(evidence, lambda counts: counts == layers)["attack"]
    rung = evidence.rung(1.0)
    known = int((~np.isnan(every[:, rung])).sum())
    if not known:
        return nothing("every image has an empty map")
    mean, draws = evidence.means(every)
    value = float(mean[rung])
    low, high = evidence.interval(draws[:, rung])
    if len(evidence.strengths) < 2:
        return Finding(value, low, high, NOT_RUN, "one strength: no slope")
    x = np.log2(evidence.strengths)
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slope_low, slope_high = evidence.interval(draws @ x)
    parts = [
        verdict_of_interval(low, high, above=0.01),
        verdict_of_interval(slope_low, slope_high, above=0),
    ]
    detail = (
        f"slope {float(mean @ x):.3f} [{slope_low:.3f}, {slope_high:.3f}] a doubling, "
        f"{known} images without an empty map"
    )
    return Finding(value, low, high, verdict_of_all(parts), detail)


JUDGES: dict[str, Judge] = {
    "A9": by_both_rules(compromised_at_lowest),
    "A10": by_both_rules(compromised_at_extremes),
    "A11": by_both_rules(few_layers),
    "A12": by_both_rules(all_layers),
}

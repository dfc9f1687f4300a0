"""Equivalence of MOD under the attack to MOD under noise of its size."""

import numpy as np

from camdrift.analysis.equivalence import equivalence
from camdrift.papers.chakraborty2022.comparison import Comparison
from camdrift.papers.chakraborty2022.parts import NO_MAPS
from camdrift.papers.chakraborty2022.reading import Reading
from camdrift.papers.findings import Finding, nothing, verdict_of_parts, verdict_of_range
from camdrift.storage import TRANSFERRED, TRANSFERRED_NOISE

EQUIVALENT = 0.1  # of MOD: the margin within which two are called equal


def equivalences(comparison: Comparison, reading: Reading) -> dict[str, Finding]:
    """Returns how MOD under the attack differs from that under noise of its size, by network.

    Relative to the first, on pairs with a map under both. By two one-sided tests, at 5 % where
    intervals are of 95 %: the 90 % interval is within 10 %. The network that the attack was made on
    is left out.
    """
    findings, eps = {}, comparison.plan.eps[-1]
    for name, tried in comparison.networks().items():
        if name == comparison.plan.transferred:
            continue
        both = [
            tried.shift(kind, eps, reading.explains, blank=reading.blank)
            for kind in (TRANSFERRED, TRANSFERRED_NOISE)
        ]
        known = ~np.isnan(both[0]) & ~np.isnan(both[1])
        pair = np.where(known[:, None], np.stack(both, axis=1), np.nan)
        if not known.any():
            findings[name] = nothing(NO_MAPS)
            continue
        mean, resamples = comparison.means(pair, tried.images)
        value = (mean[0] - mean[1]) / mean[0]
        relative = (resamples[:, 0] - resamples[:, 1]) / resamples[:, 0]
        tests = equivalence(
            relative[:, None],
            margin=EQUIVALENT,
            confidence=comparison.settings.confidence,
            clusters=comparison.images["source"].nunique(),
        )
        low, high = float(tests.low[0]), float(tests.high[0])
        verdict = verdict_of_range(low, high, least=-EQUIVALENT, most=EQUIVALENT)
        detail = f"{mean[0]:.3f} and {mean[1]:.3f}"
        findings[name] = Finding(value, low, high, verdict, detail, int(known.sum()))
    return findings


def shift_is_that_of_noise(comparison: Comparison, reading: Reading) -> Finding:
    """Judges D8: MOD under the attack is equivalent to that under noise of its size.

    In every network but that on which the attack was made, see `equivalences`.
    """
    parts = equivalences(comparison, reading)
    if not parts:
        return nothing("wanted networks beside that on which the attack was made")
    if any(np.isnan(part.value) for part in parts.values()):
        return nothing(NO_MAPS)
    verdict = verdict_of_parts([part.verdict for part in parts.values()])
    deciding = [part for part in parts.values() if part.verdict == verdict] or [*parts.values()]
    part = max(deciding, key=lambda part: abs(part.value))
    texts = ", ".join(f"{name} {p.detail} ({p.verdict})" for name, p in parts.items())
    detail = f"attack and noise: {texts}; the value is that of the largest difference"
    images = min(part.images or 0 for part in parts.values())
    return Finding(part.value, part.low, part.high, verdict, detail, images)

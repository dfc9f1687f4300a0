"""Readings: the statistics of klawikowska2020's claims, as stated and beside it.

A claim's verdict is that of its stated readings. The others, written when results were known, apply
its rule to a control or to another reading of the same numbers.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.tables import rounded
from camdrift.papers.findings import (
    CLASS_SWAP,
    UNDECIDED,
    verdict_of_interval,
)
from camdrift.papers.klawikowska2020.accuracy import anew, falls, restores, survivors
from camdrift.papers.klawikowska2020.reading import IN_8BIT, STATED, Reading, Rule, above
from camdrift.papers.klawikowska2020.tables import (
    DISPLACED,
    Inspection,
    correlations,
    counting,
    growth,
    halved,
    shrinkage,
    tripled,
)
from camdrift.settings import EXTENDING
from camdrift.storage import BASELINE, CLEAN

STATED_SPACE = f"{STATED}, "
SAME_CLASS, SWAP, BEYOND_SWAP = "same class", CLASS_SWAP, f"beyond the {CLASS_SWAP}"
DISPLACED_PIXEL, BEYOND_DISPLACED = "displaced pixel", "beyond the displaced pixel"
DISPLACED_LEFT = "displaced pixel, no flip"
RETRAINED, BEYOND_RETRAINED = "retrained without attacks", "beyond retraining without attacks"
RANKS, ALL_RANKS = "rank correlation with the gain", "rank correlation, others last"
# Spaces of signatures by the end of their columns' names.
SPACES = {"": "whole space", "_last": "last layer"}
PLANES = {"": "plane", "_last": "plane of the last layer"}


def readings(inspection: Inspection) -> pd.DataFrame:
    """Returns all readings of all claims, those of a claim together.

    Columns: `claim, reading, attack, images, value, low, high, verdict`; `basis`, 'stated' before
    any result or 'seen', written when results were known; `detail`, a few words, or ''; `few`, see
    `tables.counting`.
    """
    parts = [
        *(one for in_8bit in (False, True) for one in falls(inspection, in_8bit=in_8bit)),
        *(
            one
            for two_sided in (True, False)
            for in_8bit in (False, True)
            for one in restores(inspection, in_8bit=in_8bit, two_sided=two_sided)
        ),
        *(one for in_8bit in (False, True) for one in anew(inspection, in_8bit=in_8bit)),
        *survivors(inspection),
        *reverses(inspection),
        *draws_relevance(inspection),
        *resembles(inspection),
        *nearness(inspection),
        *identified(inspection),
        *ignores(inspection),
    ]
    rows = [
        (part.claim, part.name, part.attack, part.images, *part.estimate, part.verdict,
         "stated" if part.name.startswith(STATED) else "seen", part.text)
        for part in parts
    ]  # fmt: skip
    columns = ["claim", "reading", "attack", "images", "value", "low", "high", "verdict", "basis",
               "detail"]  # fmt: skip
    return rounded(counting(pd.DataFrame(rows, columns=columns)))


def below_0(inspection: Inspection) -> Rule:
    """Returns the rule that an interval lies below 0; maps of one sign decide nothing."""
    if inspection.signatures.facts["numbers"]["negative relevance"] == 0:
        return lambda low, high: UNDECIDED
    return lambda low, high: verdict_of_interval(-high, -low, above=0)


def _of_images(
    inspection: Inspection, claim: str, attack: str, values: dict[str, tuple[np.ndarray, Rule]]
) -> list[Reading]:
    """Returns readings that are means over test images, NaN left out."""
    columns = [each for each, _ in values.values()]
    estimates = inspection.means(columns, inspection.retrained.tests["source"])
    return [
        Reading(claim, name, attack, estimate, rule(*estimate[1:]), int((~np.isnan(each)).sum()))
        for (name, (each, rule)), estimate in zip(values.items(), estimates, strict=True)
    ]


def _surviving(inspection: Inspection, attack: str, values: np.ndarray) -> np.ndarray:
    """Returns values of images that are still changed after rounding to 256 levels, NaN others."""
    return np.where(inspection.succeeded(attack, in_8bit=True), values, np.nan)


def reverses(inspection: Inspection) -> list[Reading]:
    """Returns the readings of C3: correlation of maps before and after FGSM.

    Class swap: of the clean image's map with its own of the class that FGSM leads to; beyond it:
    that correlation less the stated one.
    """
    own, same, swap = (
        correlations(inspection, BASELINE, "fgsm", of=of) for of in ("", "_same_class", "_swapped")
    )
    rule = below_0(inspection)
    values = {
        STATED: (own, rule), IN_8BIT: (_surviving(inspection, "fgsm", own), rule),
        SAME_CLASS: (same, rule), SWAP: (swap, rule), BEYOND_SWAP: (swap - own, above(0)),
    }  # fmt: skip
    return _of_images(inspection, "C3", "fgsm", values)


def draws_relevance(inspection: Inspection) -> list[Reading]:
    """Returns the readings of C4: the share of images whose window's share more than tripled.

    Class swap: in the clean image's map of the class that the attack leads to. Displaced pixel: in
    the window around one of the same colour at a random place, of the same images, or of all that
    it leaves in their class.
    """
    own, same, swap = (tripled(growth(inspection, of=of)) for of in ("", "_same_class", "_swapped"))
    values = {
        STATED: (own, above(0.5)), IN_8BIT: (_surviving(inspection, "one_pixel", own), above(0.5)),
        SAME_CLASS: (same, above(0.5)), SWAP: (swap, above(0.5)),
        BEYOND_SWAP: (own - swap, above(0)),
        "no flip": (tripled(growth(inspection, flips=False)), above(0.5)),
    }  # fmt: skip
    if has_displaced(inspection):
        there = tripled(growth(inspection, DISPLACED))
        survivors = tripled(growth(inspection, DISPLACED, flips=False))
        values |= {
            DISPLACED_PIXEL: (there, above(0.5)),
            DISPLACED_LEFT: (survivors, above(0.5)),
            BEYOND_DISPLACED: (own - there, above(0)),
        }
    return _of_images(inspection, "C4", "one_pixel", values)


def has_displaced(inspection: Inspection) -> bool:
    """Returns whether maps were made under the control of a pixel at a random place."""
    return [BASELINE, DISPLACED] in inspection.signatures.facts["shown"]


def resembles(inspection: Inspection) -> list[Reading]:
    """Returns the readings of C5: the retrained model's gain of correlation with the clean map.

    Class swap: the baseline model's own gain, when its map of the attacked image explains the clean
    image's class. Retrained without attacks: the gain of that model.
    """
    immune, base, control = (
        correlations(inspection, model, "one_pixel")
        for model in ("one_pixel", BASELINE, "retrained")
    )
    immune_same, base_same = (
        correlations(inspection, model, "one_pixel", of="_same_class")
        for model in ("one_pixel", BASELINE)
    )
    gain = immune - base
    values = {
        STATED: gain, IN_8BIT: _surviving(inspection, "one_pixel", gain),
        SAME_CLASS: immune_same - base_same, SWAP: base_same - base,
        BEYOND_SWAP: immune - base_same, RETRAINED: control - base,
        BEYOND_RETRAINED: immune - control,
    }  # fmt: skip
    rules = {name: (each, above(0)) for name, each in values.items()}
    return _of_images(inspection, "C5", "one_pixel", rules)


def ignores(inspection: Inspection) -> list[Reading]:
    """Returns the readings of C8: the share of images whose window has less than half.

    Class swap: in the baseline model's map of the attacked image for the clean image's class.
    Retrained without attacks: in that model's. Displaced pixel: in the window around one of the
    same colour at a random place, of the same images, or of all that it leaves in their class.
    """
    mine = halved(shrinkage(inspection, "one_pixel"))
    swap = halved(shrinkage(inspection, BASELINE, of="_swapped"))
    control = halved(shrinkage(inspection, "retrained"))
    values = {
        STATED: (mine, above(0.5)),
        IN_8BIT: (_surviving(inspection, "one_pixel", mine), above(0.5)),
        SAME_CLASS: (halved(shrinkage(inspection, "one_pixel", of="_same_class")), above(0.5)),
        SWAP: (swap, above(0.5)), BEYOND_SWAP: (mine - swap, above(0)),
        RETRAINED: (control, above(0.5)), BEYOND_RETRAINED: (mine - control, above(0)),
    }  # fmt: skip
    if has_displaced(inspection):
        there, survivors = (
            halved(shrinkage(inspection, "one_pixel", DISPLACED, flips=flips))
            for flips in (True, False)
        )
        values |= {DISPLACED_PIXEL: (there, above(0.5)), DISPLACED_LEFT: (survivors, above(0.5))}
    return _of_images(inspection, "C8", "one_pixel", values)


def nearness(inspection: Inspection) -> list[Reading]:
    """Returns the readings of C6: whether images near the other class are the attackable ones.

    Stated is the AUROC of that distance for success, by attack, in the plane and in the whole space
    of maps. Beside it stand those of relevance at the last layer, and the rank correlation with the
    gain at which FGSM flips an image, which is to be above 0: of the images that it flips, and of
    all, with the others ranked last. Images are those that were right. No reading where there is no
    distance to another class.
    """
    points = inspection.signatures.points
    points = points[(points["on"] == CLEAN) & points["right"]].reset_index(drop=True)
    gains = inspection.attacked(BASELINE, "fgsm").set_index("image")["gain"]
    gain = gains.loc[points["image"]].to_numpy(float)
    resampled = inspection.draws(points["source"])
    weights = np.concatenate([np.ones((1, len(points))), resampled.weights[:, resampled.place]])
    parts = []
    for end in SPACES:
        for column, space in (
            (f"distance_plane{end}", PLANES[end]),
            (f"distance{end}", SPACES[end]),
        ):
            distance = points[column].to_numpy(float)
            if not len(points) or np.isnan(distance).any():
                continue
            for attack in EXTENDING:
                success = points[f"success_{attack}"].to_numpy(bool)
                areas = statistics.auroc(-distance, success, weights=weights)
                name = f"{STATED_SPACE}{space}" if not end else f"AUROC, {space}"
                part = _resampled(inspection, "C6", name, attack, areas, above(0.65), len(points))
                parts.append(part)
            flips = ~np.isnan(gain)
            for ranking, mask in ((RANKS, flips), (ALL_RANKS, flips | flips.any())):
                ranks = np.full(len(weights), np.nan)
                if mask.any():
                    late = np.where(flips, gain, np.inf)[mask]
                    ranks = statistics.spearman(distance[mask], late, weights=weights[:, mask])
                name, images = f"{ranking}, {space}", int(mask.sum())
                parts.append(_resampled(inspection, "C6", name, "fgsm", ranks, above(0), images))
    return parts


def _resampled(
    inspection: Inspection,
    claim: str,
    name: str,
    attack: str,
    values: np.ndarray,
    rule: Rule,
    images: int,
) -> Reading:
    """Returns a reading from its value and those of resamples (1 + resamples,)."""
    estimate = inspection.interval(values[0], values[1:])
    verdict = UNDECIDED if np.isnan(values[0]) else rule(*estimate[1:])
    return Reading(claim, name, attack, estimate, verdict, images)


def identified(inspection: Inspection) -> Iterator[Reading]:
    """Yields the readings of C7: how often a linear classifier of signatures names the attack.

    Kinds weigh the same. Beside the maps stand those of the clean image's class, also after an
    attack; relevance at the last layer; and the maps' values without their places. No reading where
    an attack has no signatures.
    """
    for end, name in (
        ("", STATED), ("_same_class", SAME_CLASS), ("_last", "last layer"),
        ("_sorted", "values without places"),
    ):  # fmt: skip
        points = inspection.signatures.points.dropna(subset=f"identified{end}")
        kinds = sorted(points["on"].unique())
        if len(kinds) < 3:
            continue
        hits = points[f"identified{end}"]
        columns = [np.where(points["on"] == kind, hits, np.nan) for kind in kinds]
        values = np.stack(columns, axis=1).astype(float)
        resamples = inspection.draws(points["source"]).means(values)
        shares = np.nanmean(values, axis=0)
        estimate = inspection.interval(shares.mean(), resamples.mean(1))
        counts = (~np.isnan(values)).sum(0)
        text = ", ".join(
            f"{kind} {share:.0%} of {count}"
            for kind, share, count in zip(kinds, shares, counts, strict=True)
        )
        verdict = verdict_of_interval(*estimate[1:], above=0.6)
        yield Reading("C7", name, "both", estimate, verdict, len(points), text)

"""Judges of klawikowska2020's claims: a hardening's numbers become a verdict."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from camdrift import statistics
from camdrift.artifacts import CLEAR
from camdrift.claims import (
    FOUND,
    KLAWIKOWSKA,
    NOT,
    Finding,
    nothing,
    verdict_of_all,
    verdict_of_interval,
    verdict_of_range,
)
from camdrift.hardening_tables import Inspection, correlations, growth
from camdrift.settings import EXTENDING, Hardening
from camdrift.tables import rounded
from camdrift.verdicts import of_claims


def accuracy_falls(inspection: Inspection) -> Finding:
    """Judges C1: both attacks change more than 30 % of the images that were right."""
    found = []
    for attack in EXTENDING:
        rows = inspection.attacked(CLEAR, attack).query("right")
        found.append(inspection.mean(rows["success"].to_numpy(float), rows["source"]))
    texts = []
    for attack, (value, _, _) in zip(EXTENDING, found, strict=True):
        whole = inspection.extended(CLEAR, attack)
        texts.append(f"{attack} {value:.0%}: {whole['right'].sum():g} of {len(whole)} right")
    return _least(found, above=0.3, detail=", ".join(texts))


def _least(found: list[tuple[float, float, float]], *, above: float, detail: str) -> Finding:
    parts = [verdict_of_interval(low, high, above=above) for _, low, high in found]
    verdict = NOT if NOT in parts else verdict_of_all(parts)
    return Finding(*min(found), verdict, detail)


def retraining_restores(inspection: Inspection) -> Finding:
    """Judges C2: hardened models on the extended sets, against the clear one on the clean set.

    The value is the larger of the two differences.
    """
    base = inspection.extended(CLEAR, None)
    found, texts = [], []
    for attack in EXTENDING:
        mine = inspection.extended(attack, attack)
        both = pd.concat([mine.assign(side=0), base.assign(side=1)], ignore_index=True)
        sides = [np.where(both["side"] == side, both["right"], np.nan) for side in (0, 1)]
        drawn = inspection.draws(both["source"]).means(np.stack(sides, axis=1))
        value = mine["right"].mean() - base["right"].mean()
        found.append(inspection.interval(value, drawn[:, 0] - drawn[:, 1]))
        texts.append(f"{attack} {mine['right'].mean():.1%} of {len(mine)}")
    parts = [verdict_of_range(low, high, least=-0.03, most=0.03) for _, low, high in found]
    verdict = NOT if NOT in parts else verdict_of_all(parts)
    detail = f"clear {base['right'].mean():.1%} of {len(base)}; {', '.join(texts)}"
    return Finding(*max(found, key=lambda one: abs(one[0])), verdict, detail)


def attacked_anew(inspection: Inspection) -> Finding:
    """Judges C2b: attacks made anew succeed at most half as often; the value is the worse ratio."""
    found, texts = [], []
    for attack in EXTENDING:
        rows = [inspection.attacked(model, attack) for model in (attack, CLEAR)]
        values = np.stack(
            [np.where(part["right"], part["success"].astype(float), np.nan) for part in rows],
            axis=1,
        )
        rates = np.nanmean(values, axis=0) if len(values) else np.full(2, np.nan)
        if not rates[1] > 0:
            return nothing(f"{attack} finds nothing on the clear model")
        drawn = inspection.draws(rows[0]["source"]).means(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(inspection.interval(rates[0] / rates[1], drawn[:, 0] / drawn[:, 1]))
        texts.append(f"{attack}: {rates[1]:.0%} on the clear model, {rates[0]:.0%} on the hardened")
    parts = [verdict_of_range(low, high, least=-np.inf, most=0.5) for _, low, high in found]
    verdict = NOT if NOT in parts else verdict_of_all(parts)
    return Finding(*max(found), verdict, "; ".join(texts))


def reverses(inspection: Inspection) -> Finding:
    """Judges C3: the mean correlation of maps before and after FGSM is below 0."""
    values = correlations(inspection, CLEAR, "fgsm")
    if np.isnan(values).all():
        return nothing("fgsm finds nothing on the clear model")
    value, low, high = inspection.mean(values, inspection.hardened.tests["source"])
    verdict = verdict_of_interval(-high, -low, above=0)
    detail = f"{int((values < 0).sum())} of {int((~np.isnan(values)).sum())} images below 0"
    return Finding(value, low, high, verdict, detail)


def draws_relevance(inspection: Inspection) -> Finding:
    """Judges C4: the share of images whose window holds more than 3 times its relevance."""
    success = inspection.succeeded("one_pixel")
    times = np.where(success, growth(inspection), np.nan)
    if np.isnan(times).all():
        return nothing("one_pixel finds nothing on the clear model")
    above = np.where(np.isnan(times), np.nan, (times > 3).astype(float))
    value, low, high = inspection.mean(above, inspection.hardened.tests["source"])
    detail = f"median growth {np.nanmedian(times):.1f} times"
    return Finding(value, low, high, verdict_of_interval(low, high, above=0.5), detail)


def looks_as_before(inspection: Inspection) -> Finding:
    """Judges C5: the hardened model's map is nearer to the clean one than the clear model's."""
    pair = [correlations(inspection, model, "one_pixel") for model in ("one_pixel", CLEAR)]
    gain = pair[0] - pair[1]
    if np.isnan(gain).all():
        return nothing("one_pixel finds nothing on the clear model")
    value, low, high = inspection.mean(gain, inspection.hardened.tests["source"])
    detail = f"hardened {np.nanmean(pair[0]):.2f}, clear {np.nanmean(pair[1]):.2f}"
    return Finding(value, low, high, verdict_of_interval(low, high, above=0), detail)


def near_are_attackable(inspection: Inspection) -> Finding:
    """Judges C6: closeness to the other class tells the attackable, in the plane and out of it."""
    points = inspection.signatures.points.query("on == @CLEAR and right").reset_index(drop=True)
    draws = inspection.draws(points["source"])
    weights = np.concatenate([np.ones((1, len(points))), draws.weights[:, draws.place]])
    found, texts = [], []
    for attack in EXTENDING:
        for space, column in (("plane", "distance_plane"), ("whole", "distance")):
            near = -points[column].to_numpy(float)
            if np.isnan(near).all():
                return nothing("one class, or too few points: no distance to another class")
            success = points[f"success_{attack}"].to_numpy(bool)
            drawn = statistics.auroc(near, success, weights=weights)
            if np.isnan(drawn[0]):
                return nothing(f"{attack} changes all images or none")
            found.append(inspection.interval(drawn[0], drawn[1:]))
            texts.append(f"{attack}, {space} {drawn[0]:.2f}")
    return _least(found, above=0.65, detail="; ".join(texts))


def identifiable(inspection: Inspection) -> Finding:
    """Judges C7: a linear classifier of signatures names the attack; kinds weigh the same."""
    points = inspection.signatures.points.dropna(subset="identified")
    kinds = sorted(points["on"].unique())
    if len(kinds) < 3:
        return nothing("an attack finds too little on the clear model to tell it by")
    columns = [np.where(points["on"] == kind, points["identified"], np.nan) for kind in kinds]
    values = np.stack(columns, axis=1).astype(float)
    drawn = inspection.draws(points["source"]).means(values)
    value, low, high = inspection.interval(np.nanmean(values, axis=0).mean(), drawn.mean(1))
    shares = zip(kinds, np.nanmean(values, axis=0), strict=True)
    detail = ", ".join(f"{kind} {share:.0%}" for kind, share in shares)
    return Finding(value, low, high, verdict_of_interval(low, high, above=0.6), detail)


# Each claim's judge, and the threshold that its value is held against.
JUDGES: dict[str, tuple[Callable[[Inspection], Finding], float]] = {
    "C1": (accuracy_falls, 0.3),
    "C2": (retraining_restores, 0.03),
    "C2b": (attacked_anew, 0.5),
    "C3": (reverses, 0),
    "C4": (draws_relevance, 0.5),
    "C5": (looks_as_before, 0),
    "C6": (near_are_attackable, 0.65),
    "C7": (identifiable, 0.6),
}


def of_inspection(inspection: Inspection) -> pd.DataFrame:
    """Returns what a hardening says of each claim: as `verdicts.of_cell`, one protocol."""
    images = len(inspection.hardened.tests)
    rows = []
    for claim, (judge, threshold) in JUDGES.items():
        found = judge(inspection).wanting(images, threshold)
        rows.append(("corrected", claim, found.value, found.low, found.high, found.verdict, images,
                     found.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=FOUND)


def claims(inspection: Inspection, plan: Hardening) -> pd.DataFrame:
    """Returns the claims table of a hardening: the paper's claims, as `verdicts.of_claims`."""
    found = of_inspection(inspection)
    size = inspection.hardened.changed.shape[-1]
    rests_on = (
        f"{len(inspection.hardened.tests)} test images of '{plan.set}', {size} px; model "
        f"'{plan.model}', hardening '{inspection.name}'"
    )
    empty = pd.DataFrame(columns=["protocols", "touches", "flag"])
    whole = of_claims(found, rests_on=lambda claim: rests_on, flags=empty)
    return rounded(whole[whole["paper"] == KLAWIKOWSKA])

"""Judges of klawikowska2020's claims: from numbers to a verdict.

Where a claim speaks of both attacks, both must bear it out, and the number shown is that of the one
that decides.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.flags import AT_CHANCE
from camdrift.analysis.tables import rounded
from camdrift.datasets import chance
from camdrift.papers import claims
from camdrift.papers.findings import (
    FINDING_COLUMNS,
    NOT,
    UNDECIDED,
    Finding,
    nothing,
    verdict_of_interval,
    verdict_of_range,
    worst,
)
from camdrift.papers.klawikowska2020.claims import CLAIMS
from camdrift.papers.klawikowska2020.tables import (
    Inspection,
    Interval,
    correlations,
    growth,
    shrinkage,
    tripled,
)
from camdrift.settings import EXTENDING, FlagSettings, Retraining
from camdrift.settings.section import in_words
from camdrift.storage import BASELINE, CLEAN, attack_of, control_of

NO_NUMBER = (np.nan, np.nan, np.nan)
# klawikowska2020's: gain up to 4 of 255 grey levels; 400 individuals, 75 generations and a first.
PAPERS_EPS, PAPERS_QUERIES = 4 / 255, 400 * 76


def accuracy_falls(inspection: Inspection) -> Finding:
    """Judges C1: both attacks change more than 30 % of the images that were right.

    An attack that finds less with less than the paper's budget decides nothing.
    """
    settings = inspection.retrained.facts["settings"]
    queries = settings["one_pixel"]["population"] * (settings["one_pixel"]["generations"] + 1)
    short = {
        "fgsm": settings["fgsm"]["eps"] < PAPERS_EPS,
        "one_pixel": queries < PAPERS_QUERIES,
    }
    estimates, parts, texts = [], [], []
    for attack in EXTENDING:
        rows = inspection.attacked(BASELINE, attack).query("right")
        estimates.append(inspection.mean(rows["success"].to_numpy(float), rows["source"]))
        part = verdict_of_interval(*estimates[-1][1:], above=0.3)
        whole = inspection.extended(BASELINE, attack)
        text = f"{attack} {estimates[-1][0]:.0%}: {whole['right'].sum():g} of {len(whole)} right"
        if part == NOT and short[attack]:
            part = UNDECIDED
            text += ", with less than the paper's budget"
        parts.append(part)
        texts.append(text)
    return worst(estimates, parts, ", ".join(texts))


def retraining_restores(inspection: Inspection) -> Finding:
    """Judges C2: retrained models on the extended sets, against the baseline on the clean set."""
    base = inspection.extended(BASELINE, None)
    estimates, texts = [], []
    for attack in EXTENDING:
        mine = inspection.extended(attack, attack)
        both = pd.concat([mine.assign(side=0), base.assign(side=1)], ignore_index=True)
        sides = [np.where(both["side"] == side, both["right"], np.nan) for side in (0, 1)]
        resamples = inspection.draws(both["source"]).means(np.stack(sides, axis=1))
        value = mine["right"].mean() - base["right"].mean()
        estimates.append(inspection.interval(value, resamples[:, 0] - resamples[:, 1]))
        texts.append(f"{attack} {mine['right'].mean():.1%} of {len(mine)}")
    parts = [verdict_of_range(low, high, least=-0.03, most=0.03) for _, low, high in estimates]
    detail = f"baseline {base['right'].mean():.1%} of {len(base)}; {', '.join(texts)}"
    return worst(estimates, parts, detail)


def attacked_anew(inspection: Inspection) -> Finding:
    """Judges C2b: attacks made anew succeed at most half as often.

    The rates' difference, immune minus half of clean, is at most 0: a ratio would have no interval
    where an attack finds almost nothing.
    """
    estimates, parts, texts = [], [], []
    for attack in EXTENDING:
        rows = [inspection.attacked(model, attack) for model in (attack, BASELINE)]
        values = np.stack(
            [np.where(part["right"], part["success"].astype(float), np.nan) for part in rows],
            axis=1,
        )
        resamples = inspection.draws(rows[0]["source"]).means(values)
        rates = np.array([part.loc[part["right"], "success"].mean() for part in rows])
        if not rates[1] > 0:
            estimates.append(NO_NUMBER)
            parts.append(UNDECIDED)
            texts.append(f"{attack} finds nothing on the baseline model")
            continue
        estimates.append(
            inspection.interval(rates[0] - rates[1] / 2, resamples[:, 0] - resamples[:, 1] / 2)
        )
        parts.append(verdict_of_range(*estimates[-1][1:], least=-np.inf, most=0))
        texts.append(
            f"{attack}: {rates[1]:.0%} on the baseline model, {rates[0]:.0%} on the retrained"
        )
    return worst(estimates, parts, "; ".join(texts))


def reverses(inspection: Inspection) -> Finding:
    """Judges C3: the mean correlation of maps before and after FGSM is below 0.

    Maps of one sign everywhere cannot show it.
    """
    values = correlations(inspection, BASELINE, "fgsm")
    if np.isnan(values).all():
        return nothing("fgsm finds nothing on the baseline model")
    value, low, high = inspection.mean(values, inspection.retrained.tests["source"])
    count = int((~np.isnan(values)).sum())
    verdict = verdict_of_interval(-high, -low, above=0)
    detail = f"{int((values < 0).sum())} of {count} images below 0; {_of_controls(inspection)}"
    if inspection.signatures.facts["numbers"]["negative relevance"] == 0:
        verdict = UNDECIDED
        detail += "; no map of this network has relevance below 0, so none can be reversed"
    return Finding(value, low, high, verdict, detail, count)


def controls_of(inspection: Inspection, attack: str) -> list[str]:
    """Returns the names of the controls of an attack whose maps there are."""
    shown = [on for _, on in inspection.signatures.facts["shown"]]
    return [on for on in shown if on != attack and attack_of(on) == attack]


def _of_controls(inspection: Inspection) -> str:
    """Returns the mean correlation under FGSM with the class held, and under its controls."""
    same = correlations(inspection, BASELINE, "fgsm", same_class=True)
    texts = [f"mean {np.nanmean(same):.2f} where both maps explain the clean image's class"]
    for on in controls_of(inspection, "fgsm"):
        values = correlations(inspection, BASELINE, on)
        if not np.isnan(values).all():
            texts.append(f"{control_of(on)} {np.nanmean(values):.2f}")
    return ", ".join(texts)


def draws_relevance(inspection: Inspection) -> Finding:
    """Judges C4: the share of images whose window holds more than 3 times its relevance."""
    times = growth(inspection)
    if np.isnan(times).all():
        return nothing("one_pixel finds nothing on the baseline model")
    value, low, high = inspection.mean(tripled(times), inspection.retrained.tests["source"])
    shares = [
        f"{control_of(on)} {np.nanmean(tripled(growth(inspection, on))):.2f}"
        for on in controls_of(inspection, "one_pixel")
        if not np.isnan(growth(inspection, on)).all()
    ]
    detail = f"median growth {np.nanmedian(times):.1f} times"
    detail += f"; share under its controls: {', '.join(shares)}" if shares else ""
    verdict = verdict_of_interval(low, high, above=0.5)
    return Finding(value, low, high, verdict, detail, int((~np.isnan(times)).sum()))


def looks_as_before(inspection: Inspection) -> Finding:
    """Judges C5: the retrained model's map is nearer to the clean one than the baseline model's.

    The control beside it was trained on as long, without attacked images.
    """
    models = ("one_pixel", BASELINE, "retrained")
    pair = [correlations(inspection, model, "one_pixel") for model in models]
    gain = pair[0] - pair[1]
    if np.isnan(gain).all():
        return nothing("one_pixel finds nothing on the baseline model")
    value, low, high = inspection.mean(gain, inspection.retrained.tests["source"])
    names = ("retrained on one-pixel", "baseline", "retrained without")
    detail = ", ".join(
        f"{model} {np.nanmean(values):.2f}" for model, values in zip(names, pair, strict=True)
    )
    verdict = verdict_of_interval(low, high, above=0)
    return Finding(value, low, high, verdict, detail, int((~np.isnan(gain)).sum()))


def near_are_attackable(inspection: Inspection) -> Finding:
    """Judges C6: closeness to the other class tells the attackable, in the plane and out of it."""
    points = inspection.signatures.points
    points = points[(points["on"] == CLEAN) & points["right"]].reset_index(drop=True)
    draws = inspection.draws(points["source"])
    weights = np.concatenate([np.ones((1, len(points))), draws.weights[:, draws.place]])
    estimates: list[Interval] = []
    parts, texts = [], []
    for attack in EXTENDING:
        success = points[f"success_{attack}"].to_numpy(bool)
        for space, column in (("plane", "distance_plane"), ("whole", "distance")):
            near = -points[column].to_numpy(float)
            if np.isnan(near).any():
                return nothing("one class, or too few points: no distance to another class")
            areas = statistics.auroc(near, success, weights=weights)
            estimates.append(inspection.interval(areas[0], areas[1:]))
            if np.isnan(areas[0]):
                parts.append(UNDECIDED)
                texts.append(f"{attack} changes all images or none")
                break
            parts.append(verdict_of_interval(*estimates[-1][1:], above=0.65))
            texts.append(f"{attack}, {space} {areas[0]:.2f}")
    return replace(worst(estimates, parts, "; ".join(texts)), images=len(points))


def identifiable(inspection: Inspection) -> Finding:
    """Judges C7: a linear classifier of signatures names the attack; kinds weigh the same."""
    points = inspection.signatures.points.dropna(subset="identified")
    kinds = sorted(points["on"].unique())
    if len(kinds) < 3:
        return nothing("an attack finds too little on the baseline model to tell it by")
    columns = [np.where(points["on"] == kind, points["identified"], np.nan) for kind in kinds]
    values = np.stack(columns, axis=1).astype(float)
    resamples = inspection.draws(points["source"]).means(values)
    value, low, high = inspection.interval(np.nanmean(values, axis=0).mean(), resamples.mean(1))
    shares = zip(kinds, np.nanmean(values, axis=0), (~np.isnan(values)).sum(0), strict=True)
    detail = ", ".join(f"{kind} {share:.0%} of {count}" for kind, share, count in shares)
    verdict = verdict_of_interval(low, high, above=0.6)
    return Finding(value, low, high, verdict, detail, len(points))


def ignores_the_pixel(inspection: Inspection) -> Finding:
    """Judges C8: the share of images whose window holds less than half of the baseline's share.

    Both models explain the image that the attack changed on the baseline. The control beside it was
    trained on as long, without attacked images.
    """
    ratios = {model: shrinkage(inspection, model) for model in ("one_pixel", "retrained")}
    mine = ratios["one_pixel"]
    if np.isnan(mine).all():
        return nothing("one_pixel finds nothing on the baseline model")
    halved = {
        model: np.where(np.isnan(each), np.nan, (each < 0.5).astype(float))
        for model, each in ratios.items()
    }
    value, low, high = inspection.mean(halved["one_pixel"], inspection.retrained.tests["source"])
    detail = (
        f"median {np.nanmedian(mine):.2f} times the baseline's share; retrained without attacked "
        f"images: share of images {np.nanmean(halved['retrained']):.2f}"
    )
    verdict = verdict_of_interval(low, high, above=0.5)
    return Finding(value, low, high, verdict, detail, int((~np.isnan(mine)).sum()))


# Each claim's judge, and the thresholds that its value is held against.
JUDGES: dict[str, tuple[Callable[[Inspection], Finding], tuple[float, ...]]] = {
    "C1": (accuracy_falls, (0.3,)),
    "C2": (retraining_restores, (-0.03, 0.03)),
    "C2b": (attacked_anew, (0,)),
    "C3": (reverses, (0,)),
    "C4": (draws_relevance, (0.5,)),
    "C5": (looks_as_before, (0,)),
    "C6": (near_are_attackable, (0.65,)),
    "C7": (identifiable, (0.6,)),
    "C8": (ignores_the_pixel, (0.5,)),
}
RESTING_ON = {
    "fgsm": ("C3", "C6", "C7"),
    "one_pixel": ("C4", "C5", "C6", "C7", "C8"),
}  # its successes


def findings(inspection: Inspection) -> pd.DataFrame:
    """Returns the finding on each claim, under one protocol, with `FINDING_COLUMNS`."""
    everyone = len(inspection.retrained.tests)
    rows = []
    for claim, (judge, thresholds) in JUDGES.items():
        finding = judge(inspection).with_images_needed(everyone, *thresholds)
        images = everyone if finding.images is None else finding.images
        rows.append(("corrected", claim, finding.value, finding.low, finding.high,
                     finding.verdict, images, finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def flags(inspection: Inspection, limits: FlagSettings) -> pd.DataFrame:
    """Returns what must be known before a verdict is believed, with the columns of `cell_flags`.

    The baseline model classifies no better than chance, or an attack has few successes.
    """
    rows: list[tuple] = []
    clean = inspection.extended(BASELINE, None)
    labels = clean["label"].to_numpy()
    text = chance.warning(int(clean["right"].sum()), labels)
    if text:
        every = " ".join(JUDGES)
        accuracy = clean["right"].mean()
        rows.append((AT_CHANCE, accuracy, chance.level(labels), every, "", text))
    for attack, claims_ in RESTING_ON.items():
        count = int(inspection.succeeded(attack).sum())
        if count < limits.minimum_successes:
            text = f"only {count} images changed by {attack}, wanted {limits.minimum_successes}"
            rows.append(("few successes", count, limits.minimum_successes, " ".join(claims_), "",
                         text))  # fmt: skip
    return pd.DataFrame(rows, columns=["flag", "value", "limit", "touches", "protocols", "text"])


def claims_table(inspection: Inspection, plan: Retraining, limits: FlagSettings) -> pd.DataFrame:
    """Returns the claims table of a study, see `claims.table`."""
    size = in_words(inspection.retrained.changed.shape[-2:])
    rests_on = (
        f"{len(inspection.retrained.tests)} test images of '{plan.set}', {size}; model "
        f"'{plan.model}', retraining '{inspection.name}'"
    )
    every, doubts = findings(inspection), flags(inspection, limits)
    return rounded(claims.table(CLAIMS, every, rests_on=lambda claim: rests_on, flags=doubts))

"""Judges of klawikowska2020's claims: from numbers to a verdict.

Where a claim speaks of both attacks, both must bear it out, and the number shown is that of the one
that decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from camdrift.analysis.flags import AT_CHANCE
from camdrift.analysis.tables import as_text, rounded
from camdrift.datasets import chance
from camdrift.papers import claims, family
from camdrift.papers.findings import FINDING_COLUMNS, HOLDS, NOT_RUN, PARTLY, Finding, nothing
from camdrift.papers.klawikowska2020 import accuracy, readings
from camdrift.papers.klawikowska2020.claims import CLAIMS
from camdrift.papers.klawikowska2020.reading import Reading, together
from camdrift.papers.klawikowska2020.tables import (
    FEWEST,
    Inspection,
    correlations,
    growth,
    shrinkage,
    tripled,
)
from camdrift.settings import EXTENDING, FlagSettings, Retraining
from camdrift.settings.section import in_words
from camdrift.storage import BASELINE, CLEAN, attack_of, control_of

BEYOND = {
    readings.BEYOND_SWAP: "the class swap alone does as much",
    readings.BEYOND_DISPLACED: "a displaced pixel does as much",
    readings.BEYOND_RETRAINED: "retraining without attacks does as much",
}


def accuracy_falls(inspection: Inspection) -> Finding:
    """Judges C1: both attacks change more than 30 % of the images that were right."""
    finding, rounded = (
        together(accuracy.falls(inspection, in_8bit=in_8bit)) for in_8bit in (False, True)
    )
    return _beside(finding, f"rounded to 8 bit, {rounded.verdict}: {rounded.detail}")


def retraining_restores(inspection: Inspection) -> Finding:
    """Judges C2: retrained models on the extended sets, against the baseline on the clean set."""
    base = inspection.extended(BASELINE, None)
    finding, rounded, one_sided, one_sided_rounded = (
        together(accuracy.restores(inspection, in_8bit=in_8bit, two_sided=two_sided))
        for two_sided in (True, False)
        for in_8bit in (False, True)
    )
    detail = (
        f"baseline {base['right'].mean():.1%} of {len(base)}; {finding.detail}; better counts, too "
        f"(seen): {one_sided.verdict}; rounded to 8 bit: {rounded.detail}, {rounded.verdict}, "
        f"better counts, too: {one_sided_rounded.verdict}{_survivors(inspection, 'C2')}"
    )
    return replace(finding, detail=detail)


def attacked_anew(inspection: Inspection) -> Finding:
    """Judges C2b: attacks made anew succeed at most half as often.

    The rates' difference, immune minus half of clean, is at most 0: a ratio would have no interval
    where an attack finds almost nothing.
    """
    finding, rounded = (
        together(accuracy.anew(inspection, in_8bit=in_8bit)) for in_8bit in (False, True)
    )
    detail = f"rounded to 8 bit, {rounded.verdict}: {rounded.detail}"
    return _beside(finding, f"{detail}{_survivors(inspection, 'C2b')}")


def _survivors(inspection: Inspection, claim: str) -> str:
    """Returns a claim's readings on models retrained on survivors of rounding, in words, or ''."""
    texts = [
        part.text if part.verdict == NOT_RUN else f"{part.text}, {part.verdict}"
        for part in accuracy.survivors(inspection)
        if (part.claim, part.name) == (claim, accuracy.SURVIVORS)
    ]
    return f"; {accuracy.SURVIVORS} (seen): {'; '.join(texts)}" if texts else ""


def _beside(finding: Finding, text: str) -> Finding:
    return replace(finding, detail=f"{finding.detail}; {text}")


def _of_images(parts: list[Reading], texts: Sequence[str]) -> Finding:
    """Returns the finding on a claim whose stated reading is a mean over images.

    Its detail has the texts, and the other readings with their intervals and numbers of images, but
    for the displaced pixel's, which is among the texts, and 8 bit where it leaves out no image.
    """
    (stated,) = (part for part in parts if part.name == readings.STATED)
    elsewhere = {readings.STATED, readings.DISPLACED_PIXEL}
    beside = [
        f"{part.name} {as_text(*part.estimate)} of {part.images}"
        for part in parts
        if part.images and part.name not in elsewhere
        and not (part.name == readings.IN_8BIT and part.images == stated.images)
    ]  # fmt: skip
    detail = "; ".join([*filter(None, texts), *beside])
    return Finding(*stated.estimate, stated.verdict, detail, stated.images)


def reverses(inspection: Inspection) -> Finding:
    """Judges C3: the mean correlation of maps before and after FGSM is below 0.

    Maps of one sign everywhere cannot show it.
    """
    values = correlations(inspection, BASELINE, "fgsm")
    if np.isnan(values).all():
        return nothing(f"fgsm finds nothing on the baseline model, so no {readings.SWAP}")
    texts = [
        f"{int((values < 0).sum())} of {int((~np.isnan(values)).sum())} images below 0",
        ", ".join(
            f"{control_of(on)} {np.nanmean(each):.2f}"
            for on in controls_of(inspection, "fgsm")
            if not np.isnan(each := correlations(inspection, BASELINE, on)).all()
        ),
    ]
    if inspection.signatures.facts["numbers"]["negative relevance"] == 0:
        texts.append("no map of this network has relevance below 0, so none can be reversed")
    return _of_images(readings.reverses(inspection), texts)


def controls_of(inspection: Inspection, attack: str) -> list[str]:
    """Returns the names of the controls of an attack whose maps the baseline model has."""
    shown = inspection.signatures.facts["shown"]
    return [on for model, on in shown if model == BASELINE and control_of(on)
            and attack_of(on) == attack]  # fmt: skip


def draws_relevance(inspection: Inspection) -> Finding:
    """Judges C4: the share of images whose window holds more than 3 times its relevance."""
    times = growth(inspection)
    if np.isnan(times).all():
        return nothing("one_pixel finds nothing on the baseline model")
    shares = [
        f"{control_of(on)} {np.nanmean(tripled(growth(inspection, on))):.2f}"
        for on in controls_of(inspection, "one_pixel")
        if not np.isnan(growth(inspection, on)).all()
    ]
    texts = [f"median growth {np.nanmedian(times):.1f} times"]
    if shares:
        texts.append(f"share under its controls: {', '.join(shares)}")
    return _of_images(readings.draws_relevance(inspection), texts)


def looks_as_before(inspection: Inspection) -> Finding:
    """Judges C5: the retrained model's map is nearer to the clean one than the baseline model's.

    The control beside it was trained on as long, without attacked images.
    """
    models = ("one_pixel", BASELINE, "retrained")
    each = [correlations(inspection, model, "one_pixel") for model in models]
    if np.isnan(each[0] - each[1]).all():
        return nothing(f"one_pixel finds nothing on the baseline model, so no {readings.SWAP}")
    names = ("retrained on one-pixel", "baseline", "retrained without")
    text = ", ".join(
        f"{model} {np.nanmean(values):.2f}" for model, values in zip(names, each, strict=True)
    )
    return _of_images(readings.resembles(inspection), [text])


def near_are_attackable(inspection: Inspection) -> Finding:
    """Judges C6: closeness to the other class tells the attackable, in the plane and out of it."""
    points = inspection.signatures.points
    points = points[(points["on"] == CLEAN) & points["right"]]
    parts = readings.nearness(inspection)
    stated = [
        replace(part, text=f"{part.attack}, {part.name.removeprefix(readings.STATED_SPACE)} "
                f"{part.estimate[0]:.2f}")
        for attack in EXTENDING for part in parts
        if part.attack == attack and part.name.startswith(readings.STATED)
    ]  # fmt: skip
    if len(stated) < 2 * len(EXTENDING):
        return nothing("one class, or too few points: no distance to another class")
    judged = []
    for part in stated:
        if not np.isnan(part.estimate[0]):
            judged.append(part)
        elif f"{part.attack} changes all images or none" not in {one.text for one in judged}:
            judged.append(replace(part, text=f"{part.attack} changes all images or none"))
    beside = [
        f"{part.name} {as_text(*part.estimate)} of {part.images}"
        for part in parts
        if part.name.startswith(readings.RANKS) and not np.isnan(part.estimate[0])
    ]
    finding = together(judged)
    detail = "; ".join([finding.detail, *beside])
    return replace(finding, images=len(points), detail=detail)


def identifiable(inspection: Inspection) -> Finding:
    """Judges C7: a linear classifier of signatures names the attack; kinds weigh the same."""
    parts = list(readings.identified(inspection))
    if not parts:
        return nothing("an attack finds too little on the baseline model to tell it by")
    stated, *others = parts
    beside = [f"{part.name} {as_text(*part.estimate)}" for part in others]
    detail = "; ".join([stated.text, *beside])
    return Finding(*stated.estimate, stated.verdict, detail, stated.images)


def ignores_the_pixel(inspection: Inspection) -> Finding:
    """Judges C8: the share of images whose window holds less than half of the baseline's share.

    Both models explain the image that the attack changed on the baseline. The control beside it was
    trained on as long, without attacked images.
    """
    mine = shrinkage(inspection, "one_pixel")
    if np.isnan(mine).all():
        return nothing("one_pixel finds nothing on the baseline model")
    shares = ", ".join(
        f"{name} {np.nanmean(np.where(np.isnan(mine), np.nan, each)):.3f}"
        for name, each in (
            ("before", inspection.after(BASELINE, "one_pixel")["window_before"]),
            *((words, inspection.after(model, "one_pixel")["window"])
              for model, words in ((BASELINE, "baseline"), ("one_pixel", "retrained on one-pixel"),
                                   ("retrained", "retrained without"))),
        )
    )  # fmt: skip
    texts = [f"median {np.nanmedian(mine):.2f} times the baseline's share",
             f"mean share of relevance: {shares}"]  # fmt: skip
    return _of_images(readings.ignores(inspection), texts)


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


def after_holm(inspection: Inspection) -> dict[str, str]:
    """Returns the verdicts after Holm's correction over all claims, see `family.after_holm`."""

    def verdicts(confidence: float) -> dict[str, str]:
        settings = inspection.settings.model_copy(update={"confidence": confidence})
        at_level = replace(inspection, settings=settings)
        return {claim: judge(at_level).verdict for claim, (judge, _) in JUDGES.items()}

    return family.after_holm(verdicts, confidence=inspection.settings.confidence)


def flags(inspection: Inspection, every: pd.DataFrame, limits: FlagSettings) -> pd.DataFrame:
    """Returns what must be known before a verdict is believed, with the columns of `cell_flags`.

    The baseline model classifies no better than chance; an attack has few successes; a verdict
    rests on few images; a claim holds, but it is not shown that a control does less.

    Args:
        inspection: the study's.
        every: its findings, as `findings` returns them.
        limits: of flags.
    """
    rows: list[tuple] = []
    clean = inspection.extended(BASELINE, None)
    labels = clean["label"].to_numpy()
    text = chance.warning(int(clean["right"].sum()), labels)
    if text:
        accuracy = clean["right"].mean()
        rows.append((AT_CHANCE, accuracy, chance.level(labels), " ".join(JUDGES), "", text))
    for attack, claims_ in RESTING_ON.items():
        count = int(inspection.succeeded(attack).sum())
        if count < limits.minimum_successes:
            text = f"only {count} images changed by {attack}, wanted {limits.minimum_successes}"
            rows.append(("few successes", count, limits.minimum_successes, " ".join(claims_), "",
                         text))  # fmt: skip
    few = every[every["images"] < FEWEST]
    if len(few):
        text = f"a verdict rests on fewer than {FEWEST} images"
        touches = " ".join(few["claim"])
        rows.append((f"fewer than {FEWEST} images", few["images"].min(), FEWEST, touches, "", text))
    holding = set(every.loc[every["verdict"].isin([HOLDS, PARTLY]), "claim"])
    beyond = readings.readings(inspection)
    for name, flag in BEYOND.items():
        own = beyond[(beyond["reading"] == name) & (beyond["verdict"] != HOLDS)]
        for row in own[own["claim"].isin(holding)].itertuples():
            text = f"{flag}: {row.claim} {name} {as_text(row.value, row.low, row.high)}"
            rows.append((flag, row.value, 0.0, row.claim, "", text))
    return pd.DataFrame(rows, columns=["flag", "value", "limit", "touches", "protocols", "text"])


def claims_table(inspection: Inspection, plan: Retraining, limits: FlagSettings) -> pd.DataFrame:
    """Returns the claims table of a study, see `claims.table`."""
    size = in_words(inspection.retrained.changed.shape[-2:])
    rests_on = (
        f"{len(inspection.retrained.tests)} test images of '{plan.set}', {size}; model "
        f"'{plan.model}', retraining '{inspection.name}'"
    )
    every = findings(inspection)
    doubts = flags(inspection, every, limits)
    return rounded(
        claims.table(
            CLAIMS,
            every,
            rests_on=lambda claim: rests_on,
            flags=doubts,
            after_holm=after_holm(inspection),
        )
    )

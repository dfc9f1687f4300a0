"""Readings of the claims on accuracy: how far it falls, and what retraining restores."""

from dataclasses import replace

import numpy as np
import pandas as pd

from camdrift.papers.findings import (
    NOT,
    NOT_RUN,
    UNDECIDED,
    verdict_of_interval,
    verdict_of_range,
)
from camdrift.papers.klawikowska2020.additions import reason_8bit
from camdrift.papers.klawikowska2020.reading import IN_8BIT, NO_NUMBER, STATED, Reading
from camdrift.papers.klawikowska2020.tables import Inspection
from camdrift.settings import EXTENDING, RETRAINED_8BIT
from camdrift.storage import BASELINE

ONE_SIDED = "one-sided"
# On models that are retrained on images which survive rounding, and meet images rounded so.
SURVIVORS = "retrained on survivors of 8 bit"
# klawikowska2020's: gain up to 4 of 255 grey levels; 400 individuals, 75 generations and a first.
PAPERS_EPS, PAPERS_QUERIES = 4 / 255, 400 * 76


def falls(inspection: Inspection, *, in_8bit: bool = False) -> list[Reading]:
    """Returns the readings of C1: the share of images that each attack changes, of those right.

    An attack that finds less with less than the paper's budget decides nothing. `in_8bit`: after
    rounding to 256 levels.
    """
    settings = inspection.retrained.facts["settings"]
    queries = settings["one_pixel"]["population"] * (settings["one_pixel"]["generations"] + 1)
    short = {
        "fgsm": settings["fgsm"]["eps"] < PAPERS_EPS,
        "one_pixel": queries < PAPERS_QUERIES,
    }
    parts = []
    for attack in EXTENDING:
        rows = inspection.attacked(BASELINE, attack).query("right").reset_index(drop=True)
        success = rows["success_8bit" if in_8bit else "success"].to_numpy(float)
        estimate = inspection.mean(success, rows["source"])
        verdict = verdict_of_interval(*estimate[1:], above=0.3)
        whole = inspection.extended(BASELINE, attack, in_8bit=in_8bit)
        text = f"{attack} {estimate[0]:.0%}: {whole['right'].sum():g} of {len(whole)} right"
        if verdict == NOT and short[attack]:
            verdict = UNDECIDED
            text += ", with less than the paper's budget"
        name = IN_8BIT if in_8bit else STATED
        parts.append(Reading("C1", name, attack, estimate, verdict, len(rows), text))
    return parts


def restores(
    inspection: Inspection, *, in_8bit: bool = False, two_sided: bool = True
) -> list[Reading]:
    """Returns the readings of C2: accuracy of retrained models less that of the baseline model.

    The former on the extended sets, the latter on the clean set. Stated is the range of 3 points
    either side; one-sided, a model that is better restores accuracy, too. `in_8bit`: with the added
    images rounded to 256 levels.
    """
    names = [*([] if two_sided else [ONE_SIDED]), *([IN_8BIT] if in_8bit else [])]
    name = ", ".join(names) or STATED
    return [
        _restoration(inspection, attack, attack, name, in_8bit=in_8bit, two_sided=two_sided)
        for attack in EXTENDING
    ]


def _restoration(
    inspection: Inspection, model: str, attack: str, name: str, *, in_8bit: bool, two_sided: bool
) -> Reading:
    """Returns the reading of C2 on a retrained model and an attack's extended set."""
    base = inspection.extended(BASELINE, None)
    mine = inspection.extended(model, attack, in_8bit=in_8bit)
    both = pd.concat([mine.assign(side=0), base.assign(side=1)], ignore_index=True)
    sides = [np.where(both["side"] == side, both["right"], np.nan) for side in (0, 1)]
    resamples = inspection.draws(both["source"]).means(np.stack(sides, axis=1))
    value = mine["right"].mean() - base["right"].mean()
    estimate = inspection.interval(value, resamples[:, 0] - resamples[:, 1])
    most = 0.03 if two_sided else np.inf
    verdict = verdict_of_range(*estimate[1:], least=-0.03, most=most)
    text = f"{attack} {mine['right'].mean():.1%} of {len(mine)}"
    return Reading("C2", name, attack, estimate, verdict, len(mine), text)


def anew(inspection: Inspection, *, in_8bit: bool = False) -> list[Reading]:
    """Returns the readings of C2b: success on the retrained model less half of that on the other.

    The rates' difference: a ratio would have no interval where an attack finds almost nothing.
    `in_8bit`: after rounding to 256 levels.
    """
    name = IN_8BIT if in_8bit else STATED
    return [_success(inspection, attack, attack, name, in_8bit=in_8bit) for attack in EXTENDING]


def _success(
    inspection: Inspection, model: str, attack: str, name: str, *, in_8bit: bool
) -> Reading:
    """Returns the reading of C2b on a retrained model and an attack."""
    column = "success_8bit" if in_8bit else "success"
    rows = [inspection.attacked(of, attack) for of in (model, BASELINE)]
    values = np.stack(
        [np.where(part["right"], part[column].astype(float), np.nan) for part in rows], axis=1
    )
    resamples = inspection.draws(rows[0]["source"]).means(values)
    rates = np.array([part.loc[part["right"], column].mean() for part in rows])
    images = int(rows[1]["right"].sum())
    if not rates[1] > 0:
        text = f"{attack} finds nothing on the baseline model"
        return Reading("C2b", name, attack, NO_NUMBER, UNDECIDED, images, text)
    estimate = inspection.interval(rates[0] - rates[1] / 2, resamples[:, 0] - resamples[:, 1] / 2)
    verdict = verdict_of_range(*estimate[1:], least=-np.inf, most=0)
    text = f"{attack}: {rates[1]:.0%} on the baseline model, {rates[0]:.0%} on the retrained"
    return Reading("C2b", name, attack, estimate, verdict, images, text)


def survivors(inspection: Inspection) -> list[Reading]:
    """Returns the readings of C2 and C2b on models retrained on survivors of rounding.

    Their sets and the successes of attacks on them are of 256 levels. Where too few images survive,
    there is no such model, and the reading says how many do.
    """
    parts, models = [], set(inspection.retrained.attacks["model"])
    one_sided = f"{ONE_SIDED}, {SURVIVORS}"
    for attack, model in RETRAINED_8BIT.items():
        reason = reason_8bit(inspection.retrained, attack)
        if model in models:
            own = [
                _restoration(inspection, model, attack, SURVIVORS, in_8bit=True, two_sided=True),
                _restoration(inspection, model, attack, one_sided, in_8bit=True, two_sided=False),
                _success(inspection, model, attack, SURVIVORS, in_8bit=True),
            ]
            parts += [replace(part, text=f"{part.text} ({reason})") for part in own]
        elif reason:
            parts += [
                Reading(claim, name, attack, NO_NUMBER, NOT_RUN, 0, f"{attack}: {reason}")
                for claim, name in (("C2", SURVIVORS), ("C2", one_sided), ("C2b", SURVIVORS))
            ]
    return sorted(parts, key=lambda part: part.claim)

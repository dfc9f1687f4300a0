"""A study of attacks on maps as a whole: its tables, its claims, its summary, its README."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from camdrift import storage
from camdrift.analysis import flags, flips, results
from camdrift.analysis import tables as analysis
from camdrift.analysis.drawing import Figure
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.results import Results, Tables
from camdrift.analysis.tables import TARGETS, join_cells, rounded
from camdrift.papers import claims, family
from camdrift.papers.findings import FINDING_COLUMNS
from camdrift.papers.interface import Artefacts
from camdrift.papers.readme import Content, texts
from camdrift.papers.zhang2020 import figures as drawings
from camdrift.papers.zhang2020 import report
from camdrift.papers.zhang2020 import tables as own
from camdrift.papers.zhang2020.claims import CLAIMS
from camdrift.papers.zhang2020.report import page as page
from camdrift.papers.zhang2020.verdicts import TRIALS, Trial
from camdrift.settings import ManipulationStudy, Settings, protocols
from camdrift.storage import OWN, SEED, Record

READS = ("seed", "cells", "protocols", "statistics", "flags")


def artefacts(name: str, settings: Settings) -> Artefacts:
    """Returns kind and folder of the artefacts that hold a study's results, by name."""
    return {key: (Record, storage.cell_folder(name, key, "record")) for key in settings.cells}


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, rounded; all but `claims` have a column `cell`.

    They are `drift` and `by_layer` (see `zhang2020.tables`); `attacks`, `noise`, `similarity`,
    `excess`, `controls` and `flags` as of a layer study; and the findings: `switches`, `readings`
    and `claims`, each of the headline cell or of the first cell whose attack decides it.
    """
    known, seed = protocols(settings.protocols), settings.seed
    statistics, limits = settings.statistics, settings.flags
    every = {
        key: results.read(name, key, cell, known, statistics, seed=seed)
        for key, cell in settings.cells.items()
    }
    parts: list[tuple[str, Tables]] = []
    for key, of in tqdm(every.items(), desc="tables", unit="cell"):
        evidence, other = _evidence(of, every, settings)
        part = {
            "attacks": analysis.attacks(of),
            "noise": analysis.noise_fit(of),
            "similarity": analysis.similarity(of),
            "excess": analysis.excess(of, of.main(), statistics, limits, seed=seed),
            "controls": flips.controls(of, statistics, limits, seed=seed),
            "by_layer": own.by_layer(evidence, other),
            "switches": switch_table(of, evidence, other),
            "readings": reading_table(evidence, other),
        }
        part["flags"] = _flags(of, part, _touched(key, every), settings)
        parts.append((key, part))
    whole = {"drift": rounded(own.drift(every, statistics, limits, seed=seed))} | join_cells(parts)
    headline = settings.study(name, ManipulationStudy).headline
    deciding = set(claims.deciding(whole["switches"], headline).values())
    judged = whole["switches"][whole["switches"]["cell"].isin(deciding)]
    behind = deciding | {settings.cells[key].limiting for key in deciding}
    whole["claims"] = claims.table(
        CLAIMS,
        judged,
        rests_on=_rests_on(whole, judged),
        flags=whole["flags"][whole["flags"]["cell"].isin(behind)],
        after_holm=corrected_verdicts(
            {key: of for key, of in every.items() if key in deciding}, every, settings
        ),
    )
    return whole


def _evidence(
    of: Results, every: Mapping[str, Results], settings: Settings
) -> tuple[Evidence, Evidence | None]:
    """Returns the evidence of a cell, and of the cell within whose size its attack is, if any."""

    def evidence(results: Results) -> Evidence:
        facts = settings.statistics, settings.flags, settings.seed
        return Evidence(results, results.first, *facts)

    other = every.get(of.cell.limiting or "")
    return evidence(of), None if other is None else evidence(other)


def switch_table(of: Results, evidence: Evidence, other: Evidence | None) -> pd.DataFrame:
    """Returns the finding of each protocol of a cell on the claim that its attack decides."""
    by_protocol = {name: replace(evidence, protocol=p) for name, p in of.protocols.items()}
    if trial := TRIALS.get(of.cell.attack):
        by_protocol = {name: trial.read(own) for name, own in by_protocol.items()}
    return _judged(by_protocol, other, "protocol")


def reading_table(evidence: Evidence, other: Evidence | None) -> pd.DataFrame:
    """Returns the finding on the claim of a cell's attack, of some images or of either class.

    correct: images that the model classifies correctly when clean. survives 8 bit: images that are
    flipped, or not, also when they are rounded to 8 bit, as a file would store them. own class,
    clean class: every map for its image's own class, or for the clean image's, over the layers with
    few empty maps under both.
    """
    trial = TRIALS.get(evidence.results.cell.attack)
    if trial is None:
        return _judged({}, other, "reading")
    images, judged = evidence.images, trial.read(evidence)
    by_class = {
        name: replace(evidence, protocol=evidence.protocol.model_copy(update={"target": target}))
        for name, target in (("own class", OWN), ("clean class", SEED))
    }
    every = [trial.measure(one, other).decided for one in by_class.values()]
    common = np.logical_and.reduce(every)
    by_reading = {
        "correct": replace(judged, of=(images["clean"] == images["label"]).to_numpy()),
        "survives 8 bit": replace(
            judged, of=(images["success"] == images["success_8bit"]).to_numpy()
        ),
    } | {name: replace(one, common=common) for name, one in by_class.items()}
    return _judged(by_reading, other, "reading")


def _judged(evidences: Mapping[str, Evidence], other: Evidence | None, column: str) -> pd.DataFrame:
    """Returns the findings on evidences by name, which stands in a first column of that name."""
    rows = []
    for name, evidence in evidences.items():
        trial = TRIALS.get(evidence.results.cell.attack)
        if trial and len(evidence.images):
            finding = trial.judge(evidence, other)
            count = len(evidence.images) if finding.images is None else finding.images
            rows.append((name, trial.claim, finding.value, finding.low, finding.high,
                         finding.verdict, count, finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=[column, *FINDING_COLUMNS[1:]])


def _flags(of: Results, part: Tables, touched: Sequence[Trial], settings: Settings) -> pd.DataFrame:
    """Returns a cell's flags of drift and of flips; they touch the claims that rest on the cell.

    A flag that the claim of the cell's own attack ignores is left out.

    Args:
        of: the cell.
        part: its tables, `excess` and `noise` among them.
        touched: the trials that rest on the cell: that of its attack, and those of attacks that are
            compared with it.
        settings: of the study.
    """
    table = flags.cell_flags(of, part, settings.flags, settings.statistics)
    own = TRIALS.get(of.cell.attack)
    kept = [
        bool(set(flags.DRIFT) & set(touches.split())) and (own is None or flag not in own.ignores)
        for flag, touches in zip(table["flag"], table["touches"], strict=True)
    ]
    table = table[np.array(kept, dtype=bool)].reset_index(drop=True)
    touches = [
        " ".join(trial.claim for trial in touched if flag not in trial.ignores)
        for flag in table["flag"]
    ]
    return table.assign(touches=touches)


def _touched(key: str, cells: Mapping[str, Results]) -> list[Trial]:
    """Returns the trials that rest on a cell, see `_flags`."""
    pairs = [(name, of.cell, TRIALS.get(of.cell.attack)) for name, of in cells.items()]
    return [
        trial
        for name, cell, trial in pairs
        if trial and (name == key or (trial.compares and cell.limiting == key))
    ]


def _rests_on(tables: Tables, judged: pd.DataFrame) -> Callable[[str], str]:
    """Returns a function: a claim's id -> the images and the model behind its verdict."""
    attacks = tables["attacks"].set_index("cell")
    cells = judged.drop_duplicates("claim").set_index("claim")["cell"]

    def rests_on(claim: str) -> str:
        cell = cells[claim]
        facts = attacks.loc[cell]
        return (
            f"{facts['images']} test images of '{facts['set']}', of which the attack flips "
            f"{facts['successes']}; model '{facts['model']}', cell '{cell}'"
        )

    return rests_on


def corrected_verdicts(
    cells: Mapping[str, Results], every: Mapping[str, Results], settings: Settings
) -> dict[str, str] | None:
    """Returns the verdicts under the corrected protocol after Holm over the claims of some cells.

    None if one of the cells does not have that protocol.
    """
    if not all("corrected" in of.protocols for of in cells.values()):
        return None

    def verdicts(confidence: float) -> dict[str, str]:
        statistics = settings.statistics.model_copy(update={"confidence": confidence})
        at_level = settings.model_copy(update={"statistics": statistics})
        findings = {}
        for of in cells.values():
            evidence, other = _evidence(of, every, at_level)
            trial = TRIALS[of.cell.attack]
            corrected = trial.read(replace(evidence, protocol=of.protocols["corrected"]))
            findings[trial.claim] = trial.judge(corrected, other).verdict
        return findings

    return family.after_holm(verdicts, confidence=settings.statistics.confidence)


def metrics(tables: Tables) -> dict[str, dict[str, float]]:
    """Returns a study's summary, by cell: rates, drift by class explained, number of flags."""
    summary = {}
    for row in tables["attacks"].to_dict("records"):
        cell = row["cell"]
        keys = ("images", "accuracy", "successes", "success_rate", "success_rate_8bit")
        facts: dict = {key: row[key] for key in keys}
        for target in TARGETS:
            drift = report.mean_drift(tables, cell, target=target)
            if not np.isnan(drift["drift"]):
                facts[f"drift_{target}"] = drift["drift"]
        facts["flags"] = int((tables["flags"]["cell"] == cell).sum())
        summary[str(cell)] = facts
    return summary


def by_name(plan: ManipulationStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables)


def panels(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figure of the maps of one image, of the headline cell."""
    headline = settings.study(name, ManipulationStudy).headline
    return [drawings.maps_of_one_image(results.example(name, headline))]


def content(name: str, settings: Settings, tables: Tables) -> Content:
    """Returns the content of a study's README."""
    plan = settings.study(name, ManipulationStudy)
    cells = tables["attacks"]
    networks = ", ".join(f"[{name}](../models/{name}.json)" for name in cells["model"].unique())
    images = ", ".join(
        f"{row.images} test images of [{row.set}](../sets/{row.set}.json)"
        for row in cells.drop_duplicates(["set", "images"]).itertuples()
    )
    attacks = ", ".join(f"`{name}`" for name in cells["cell"])
    deciding = set(claims.deciding(tables["switches"], plan.headline).values())
    return Content(
        title=plan.title,
        papers="Zhang et al. 2020 (ADV2), Dombrowski et al. 2019 and Ghorbani et al. 2019",
        compared=f"Maps of every conv layer of {networks} on {images}, under attacks on the class "
        f"and on the maps ({attacks}), under noise of their size and under controls. "
        f"Pictures are of the headline cell, `{plan.headline}`.",
        headline=[(report.HEADLINE, report.headline(tables))],
        claims=CLAIMS,
        flags=[f"`{cell}`: {text}" for cell in cells["cell"] for text in flags.texts(tables, cell)],
        figures=texts([draw() for draw in by_name(plan, tables).values()], drawings.PICTURES),
        about=own.ABOUT,
        readings=tables["readings"][tables["readings"]["cell"].isin(deciding)],
    )

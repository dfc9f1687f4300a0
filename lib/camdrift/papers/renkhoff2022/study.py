"""A layer study as a whole: the tables of all its cells, its claims, its summary, its README."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from tqdm import tqdm

from camdrift import storage
from camdrift.analysis import flags, flips, focus, results
from camdrift.analysis.compromise import PAPERS_RULE
from camdrift.analysis.drawing import Figure
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.results import Results, Tables
from camdrift.analysis.tables import ABOUT, DIGITS, TARGETS, cell_tables, join_cells
from camdrift.papers import claims, family
from camdrift.papers.findings import FINDING_COLUMNS, nothing
from camdrift.papers.interface import Artefacts
from camdrift.papers.readme import Content, texts
from camdrift.papers.renkhoff2022 import (
    compromise,
    controls,
    readings,
    report,
    transformers,
    verdicts,
)
from camdrift.papers.renkhoff2022 import figures as drawings
from camdrift.papers.renkhoff2022.claims import CLAIMS
from camdrift.papers.renkhoff2022.report import page as page
from camdrift.settings import (
    FlagSettings,
    LayerStudy,
    Settings,
    StatisticsSettings,
    protocols,
)
from camdrift.storage import Record

_JUDGES = verdicts.JUDGES | compromise.JUDGES | controls.JUDGES | transformers.JUDGES
JUDGES = {claim.id: _JUDGES[claim.id] for claim in CLAIMS}
READS = ("seed", "cells", "protocols", "statistics", "flags")


def artefacts(name: str, settings: Settings) -> Artefacts:
    """Returns kind and folder of the artefacts that hold a study's results, by name."""
    return {key: (Record, storage.cell_folder(name, key, "record")) for key in settings.cells}


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, rounded; all but `claims` have a column `cell`.

    Beside those of `cell_tables`: `groups`, `factorial`, `boundary`, `controls` and `shares` (see
    `flips`), `focus` (see `focus.table`), `flags`, `switches` (each protocol's finding on each
    claim), `readings` (each claim on other images or classes, or by another rule) and `claims`, of
    the headline cell.
    """
    known = protocols(settings.protocols)
    seed, statistics, limits = settings.seed, settings.statistics, settings.flags
    headline = settings.study(name, LayerStudy).headline
    parts: list[tuple[str, Tables]] = []
    for key, cell in tqdm(settings.cells.items(), desc="tables", unit="cell"):
        outputs = results.read(name, key, cell, known, statistics, seed=seed)
        part = cell_tables(outputs, statistics, limits, seed=seed)
        part["groups"] = flips.groups(outputs, statistics, limits, seed=seed)
        part["factorial"] = flips.factorial(outputs, statistics, limits, seed=seed)
        part["boundary"] = flips.boundary(outputs, statistics, limits, seed=seed)
        part["controls"] = flips.controls(outputs, statistics, limits, seed=seed)
        part["focus"] = focus.table(outputs, statistics, limits, seed=seed)
        part["shares"] = flips.shares(outputs, statistics, limits, seed=seed)
        part["flags"] = flags.cell_flags(outputs, part, limits, statistics)
        part["switches"] = switch_table(outputs, statistics, limits, seed=seed)
        part["readings"] = readings.table(
            Evidence(outputs, outputs.first, statistics, limits, seed), JUDGES
        )
        parts.append((key, part))
        if key == headline:
            after_holm = corrected_verdicts(outputs, statistics, limits, seed=seed)
    whole = join_cells(parts)
    cell = settings.cells[headline]
    attack = whole["attacks"].set_index("cell").loc[headline]
    rests_on = (
        f"{attack['images']} test images of '{cell.set}', of which the attack flips "
        f"{attack['successes']}; model '{cell.model}', cell '{headline}'"
    )
    own = {key: rows[rows["cell"] == headline] for key, rows in whole.items()}
    whole["claims"] = claims.table(
        CLAIMS,
        own["switches"],
        rests_on=lambda claim: rests_on,
        flags=own["flags"],
        after_holm=after_holm,
    )
    return whole


def corrected_verdicts(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> dict[str, str] | None:
    """Returns the verdicts under the corrected protocol after Holm over all claims of a cell.

    None if the cell does not have that protocol, or no successful adversarial.
    """
    protocol = results.protocols.get("corrected")
    if protocol is None or not results.images["success"].any():
        return None

    def verdicts(confidence: float) -> dict[str, str]:
        at_level = settings.model_copy(update={"confidence": confidence})
        evidence = Evidence(results, protocol, at_level, flags, seed)
        return {claim: judge(evidence).verdict for claim, judge in JUDGES.items()}

    return family.after_holm(verdicts, confidence=settings.confidence)


def switch_table(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the one-switch table: the finding of each protocol of a cell on each claim.

    Columns: `protocol, claim, value, low, high, verdict, images, detail`.
    """
    rows = []
    images = results.images
    successes = int(images["success"].sum())
    numbers = {"A1f": len(images) - successes} | dict.fromkeys(
        ("A13", "A14", "A15", "A17"), len(images)
    )
    none = nothing("no successful adversarial")
    for name, protocol in results.protocols.items():
        evidence = Evidence(results, protocol, settings, flags, seed)
        for claim, judge in JUDGES.items():
            finding = judge(evidence) if successes else none
            number = numbers.get(claim, successes)
            rows.append((name, claim, finding.value, finding.low, finding.high, finding.verdict,
                         number, finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def metrics(tables: Tables) -> dict:
    """Returns a study's summary, by cell: rates, excess drift at strength 1, number of flags."""
    summary = {}
    for name, row in tables["attacks"].set_index("cell").iterrows():
        facts: dict = {key: row[key] for key in ("images", "accuracy", "successes", "success_rate")}
        facts["success_rate_8bit"] = row["success_rate_8bit"]
        excesses = tables["excess"].query("cell == @name and strength == 1 and layer == 'mean'")
        for group in ("success", "failure"):
            for target in TARGETS:
                part = excesses.query("group == @group and target == @target")
                if len(part) and not np.isnan(part["mean"].iloc[0]):
                    facts[f"excess_{group}_{target}"] = part["mean"].iloc[0]
        for arm in ("attack", "noise"):
            part = tables["compromised"].query(
                "cell == @name and arm == @arm and strength == 1 and group == 'success' "
                f"and target == 'own_top1' and rule == '{PAPERS_RULE}'"
            )
            if len(part):
                facts[f"compromised_{arm}"] = round(part["share"].mean(), DIGITS)
        facts["flags"] = int((tables["flags"]["cell"] == name).sum())
        summary[str(name)] = {
            key: value.item() if hasattr(value, "item") else value for key, value in facts.items()
        }
    return summary


def by_name(plan: LayerStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables, plan.headline)


def panels(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figure of the maps of one image, of the headline cell."""
    headline = settings.study(name, LayerStudy).headline
    return [drawings.figure_3(results.example(name, headline))]


def content(name: str, settings: Settings, tables: Tables) -> Content:
    """Returns the content of a study's README."""
    plan = settings.study(name, LayerStudy)
    cells, headline = tables["attacks"], plan.headline
    networks = ", ".join(f"[{name}](../models/{name}.json)" for name in cells["model"].unique())
    images = ", ".join(
        f"{row.images} test images of [{row.set}](../sets/{row.set}.json)"
        for row in cells.drop_duplicates(["set", "images"]).itertuples()
    )
    attacks = ", ".join(f"`{name}`" for name in cells["cell"])
    compared = (
        f"Maps of every conv layer of {networks} on {images}: clean, under each attack ({attacks}) "
        "and under noise of its size. Claims, and figures of one cell, are of the headline cell, "
        f"`{headline}`. Maps are Grad-CAM's, as the public code computes them; equation 4, as "
        "printed, takes the sign of a gradient, which neither does."
    )
    text = (
        "*Excess*: cosine similarity to the clean map under noise minus that under attack, at "
        "strength 100 %, mean over layers with few empty maps, with an interval resampled by "
        "source picture; 0 means no further than noise. *Layers compromised*: the share that is "
        "less similar than the median under noise, on flipped images, for attack and a second "
        "draw of noise."
    )
    cell_figures = [draw() for draw in by_name(plan, tables).values()]
    return Content(
        title=plan.title,
        papers="Renkhoff et al. 2022",
        compared=compared,
        headline=[(text, report.headline(tables).drop(columns=["flags"]))],
        claims=CLAIMS,
        flags=[f"`{cell}`: {text}" for cell in cells["cell"] for text in flags.texts(tables, cell)],
        figures=[
            (name, title.removesuffix(f" ({headline})"), caption)
            for name, title, caption in texts(cell_figures, drawings.PICTURES)
        ],
        about=ABOUT,
        readings=tables["readings"].query("cell == @headline") if "readings" in tables else None,
    )

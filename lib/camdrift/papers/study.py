"""A study as a whole: the tables of all its cells, its claims, its summary, its README."""

import numpy as np
import pandas as pd
from tqdm import tqdm

from camdrift import storage
from camdrift.analysis import flags, flips, results
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import ABOUT, DIGITS, PAPERS_RULE, TARGETS, cell_tables, rounded
from camdrift.papers import report, verdicts
from camdrift.papers.claims import CLAIMS
from camdrift.papers.readme import Content, texts
from camdrift.papers.renkhoff2022 import figures
from camdrift.papers.renkhoff2022.claims import CLAIMS as OF_RENKHOFF
from camdrift.papers.tan2023 import figures as detection_figures
from camdrift.papers.tan2023 import tables as detection_tables
from camdrift.papers.tan2023.claims import CLAIMS as OF_TAN
from camdrift.papers.tan2023.verdicts import JUDGES, Evaluations, judge_evaluations
from camdrift.settings import (
    Cell,
    DetectionSettings,
    FlagSettings,
    Protocol,
    StatisticsSettings,
    Study,
)
from camdrift.storage import Detected


def tables(
    name: str,
    plan: Study,
    cells: dict[str, Cell],
    protocols: dict[str, Protocol],
    settings: StatisticsSettings,
    limits: FlagSettings,
    detecting: DetectionSettings,
    *,
    seed: int,
) -> Tables:
    """Returns the tables of a study by name, rounded; all but `claims` have a column `cell`.

    Beside those of `cell_tables`: `groups`, `factorial`, `controls` and `shares` (see `flips`),
    `flags`, `switches` (each protocol's finding on each claim) and `claims`, of the headline cell;
    and those of `detection_tables.study_tables`.
    """
    parts: list[tuple[str, Tables]] = []
    for key, cell in tqdm(cells.items(), desc="tables", unit="cell"):
        outputs = results.read(name, key, cell, protocols, settings, seed=seed)
        part = cell_tables(outputs, settings, limits, seed=seed)
        part["groups"] = flips.groups(outputs, settings, limits, seed=seed)
        part["factorial"] = flips.factorial(outputs, settings, limits, seed=seed)
        part["controls"] = flips.controls(outputs, settings, limits, seed=seed)
        part["shares"] = flips.shares(outputs, settings, limits, seed=seed)
        part["flags"] = flags.cell_flags(outputs, part, limits, settings)
        part["switches"] = verdicts.switch_table(outputs, settings, limits, seed=seed)
        parts.append((key, part))
    whole = join_cells(parts)
    headline, cell = plan.headline, cells[plan.headline]
    attack = whole["attacks"].set_index("cell").loc[headline]
    place = f"model '{cell.model}', cell '{headline}'"
    layer_basis = (
        f"{attack['images']} test images of '{cell.set}', of which the attack flips "
        f"{attack['successes']}; {place}"
    )
    detected = {
        key: (cell, storage.read(Detected, storage.cell_folder(name, key, "detect")))
        for key, cell in cells.items()
        if cell.detect
    }
    detection, evaluations = detection_tables.study_tables(detected, detecting, settings, seed=seed)
    headline_tables = {key: rows[rows["cell"] == headline] for key, rows in whole.items()}
    switches, evaluation_basis = headline_tables["switches"], ""
    if 1.0 in evaluations.get(headline, {}):
        size = detected[headline][1].pictures.shape[2]
        alike = [key for key, (other, _) in detected.items() if other.model == cell.model]
        adaptive = detection["adaptive"][detection["adaptive"]["cell"].isin(alike)]
        judged = Evaluations(evaluations[headline], adaptive, size)
        switches = pd.concat([switches, rounded(judge_evaluations(judged))], ignore_index=True)
        count = judged.whole.weights.shape[1]
        evaluation_basis = f"{count} test images of '{cell.set}', {size} px; {place}"
    whole |= {key: rounded(table) for key, table in detection.items()}
    whole["claims"] = verdicts.claims_table(
        CLAIMS,
        switches,
        rests_on=lambda claim: evaluation_basis if claim in JUDGES else layer_basis,
        flags=headline_tables["flags"],
    )
    return whole


def join_cells(parts: list[tuple[str, Tables]]) -> Tables:
    """Returns the tables of several cells as one each, rounded, with a first column `cell`."""
    tables_by_name: dict[str, list[pd.DataFrame]] = {}
    for cell, cell_parts in parts:
        for name, table in cell_parts.items():
            table.insert(0, "cell", cell)
            tables_by_name.setdefault(name, []).append(table)
    # A table without rows would change the types of the others' columns to object.
    whole = {
        name: pd.concat([t for t in same if len(t)] or same[:1], ignore_index=True)
        for name, same in tables_by_name.items()
    }
    return {name: rounded(table) for name, table in whole.items()}


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


def readme_content(plan: Study, tables: Tables, *, blur: float) -> Content:
    """Returns the content of a study's README.

    Args:
        plan: its settings.
        tables: its tables.
        blur: standard deviation of the blur in tan2023's figure 1, in px.
    """
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
        f"`{headline}`."
    )
    text = (
        "*Excess*: cosine similarity to the clean map under noise minus that under attack, at "
        "strength 100 %, mean over layers with few empty maps, with an interval resampled by "
        "source picture; 0 means no further than noise. *Layers compromised*: the share that is "
        "less similar than the median under noise, on flipped images, for attack and a second "
        "draw of noise."
    )
    evaluated = headline in set(tables["detectors"]["cell"])
    cell_figures = [
        draw() for draw in figures.by_name(tables, headline).values()
    ] + detection_figures.study_figures(tables, headline)
    pictures = figures.PICTURES | detection_figures.pictures(blur=blur)
    return Content(
        title=plan.title,
        papers="Renkhoff et al. 2022" + (" and Tan et al. 2023 (NoiseCAM)" if evaluated else ""),
        compared=compared,
        headline=[(text, report.headline(tables).drop(columns=["flags"]))],
        claims=[*OF_RENKHOFF, *OF_TAN],
        flags=[f"`{cell}`: {text}" for cell in cells["cell"] for text in flags.texts(tables, cell)],
        figures=[
            (name, title.removesuffix(f" ({headline})"), caption)
            for name, title, caption in texts(cell_figures, pictures)
        ],
        about=ABOUT | detection_tables.ABOUT,
    )

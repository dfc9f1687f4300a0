"""A study of detectors as a whole: its tables, its claims, its summary, its README."""

from collections.abc import Callable, Mapping

import pandas as pd

from camdrift import storage
from camdrift.analysis.drawing import Figure
from camdrift.analysis.flags import texts as flag_texts
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import rounded
from camdrift.evaluation.evaluation import Evaluation
from camdrift.papers import claims, family
from camdrift.papers.interface import Artefacts
from camdrift.papers.readme import Content, texts
from camdrift.papers.tan2023 import figures as drawings
from camdrift.papers.tan2023 import matrix, report, sensitivity
from camdrift.papers.tan2023 import tables as evaluation
from camdrift.papers.tan2023.claims import CLAIMS
from camdrift.papers.tan2023.keeping import (
    KEEPING,
    judge_keeping,
    keeping_cell,
    keeping_doubts,
)
from camdrift.papers.tan2023.levels import at_level
from camdrift.papers.tan2023.report import page as page
from camdrift.papers.tan2023.verdicts import (
    DOUBTS,
    RIVAL_COLUMNS,
    Evaluations,
    doubts,
    judge_evaluations,
    rivals,
)
from camdrift.settings import Cell, DetectorStudy, Settings, protocols
from camdrift.settings.section import in_words
from camdrift.storage import Artefact, Detected, Similarities

READS = ("seed", "cells", "protocols", "statistics", "detection", "flags")
KINDS: dict[type, str] = {Detected: "detect", Similarities: "similarity"}  # and their folders


def artefacts(name: str, settings: Settings) -> Artefacts:
    """Returns kind and folder of the artefacts that hold a study's results, by name."""
    every: Artefacts = {}
    for key, cell in settings.cells.items():
        kinds = KINDS if cell.detect else {Similarities: KINDS[Similarities]}
        for kind, stage in kinds.items():
            every[f"{key}/{stage}"] = kind, storage.cell_folder(name, key, stage)
    return every


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, rounded; all but `claims` have a column `cell`.

    They are those of `tables.study_tables`, `layers` (see `evaluation.sensitivity`), `rivals` (see
    `verdicts.rivals`), `matrix`, `switches` (each protocol's finding on the claim on layers), and
    `flags` and `claims`, of the headline cell and, for E3, of the one whose attack keeps the maps.
    """
    statistics, seed, known = settings.statistics, settings.seed, protocols(settings.protocols)
    detected = {
        key: (cell, _record(Detected, name, key))
        for key, cell in settings.cells.items()
        if cell.detect
    }
    unrounded, evaluations = evaluation.study_tables(
        detected, settings.detection, statistics, seed=seed
    )
    findings = []
    for key, cell in settings.cells.items():
        own = {protocol: known[protocol] for protocol in cell.protocols}
        table = sensitivity.switch_table(
            key, _record(Similarities, name, key), own, statistics, settings.flags,
            seed=seed,
        )  # fmt: skip
        findings.append(table.assign(cell=key)[["cell", *table]])
    whole = {key: rounded(table) for key, table in unrounded.items()}
    whole["matrix"] = rounded(matrix.table(detected, unrounded, settings.detection))
    whole["switches"] = rounded(pd.concat(findings, ignore_index=True))
    layers = [detection.layers.assign(cell=key) for key, (_, detection) in detected.items()]
    whole["layers"] = rounded(
        pd.concat(layers, ignore_index=True)[["cell", *layers[0].columns[:-1]]]
    )
    by_cell = {
        key: _evaluations(key, cell, detected, unrounded, evaluations)
        for key, (cell, _) in detected.items()
    }
    compared = [rivals(mine).assign(cell=key) for key, mine in by_cell.items()]
    whole["rivals"] = rounded(pd.concat(compared, ignore_index=True)[["cell", *RIVAL_COLUMNS]])
    headline = settings.study(name, DetectorStudy).headline
    cell, of_headline = detected[headline]
    judged, size = by_cell[headline], of_headline.facts["size"]
    keeping = keeping_cell(detected)
    flags = doubts(judged).assign(cell=headline)
    if keeping is not None:
        few = keeping_doubts(by_cell[keeping]).assign(cell=keeping)
        flags = pd.concat([flags, few], ignore_index=True) if len(few) else flags
    whole["flags"] = rounded(flags[["cell", *DOUBTS]])
    similarities = _record(Similarities, name, headline)
    images = similarities.images
    where = f"model '{cell.model}', cell '{headline}'"
    rests_on = {
        sensitivity.CLAIM: f"{len(images)} test images of '{cell.set}', of which the attack flips "
        f"{images['success'].sum()}; {where}"
    }
    others = f"{_tested(judged)} test images of '{cell.set}', {in_words(size)}; {where}"
    judged_here = [whole["switches"][whole["switches"]["cell"] == headline]]
    if keeping is not None:
        judged_here.append(rounded(judge_keeping(by_cell[keeping])))
        other, of_keeping = detected[keeping]
        count, where = _tested(by_cell[keeping]), f"model '{other.model}', cell '{keeping}'"
        sides = in_words(of_keeping.facts["size"])
        rests_on[KEEPING] = f"{count} test images of '{other.set}', {sides}; {where}"
    whole["claims"] = claims.table(
        CLAIMS,
        pd.concat([*judged_here, rounded(judge_evaluations(judged))], ignore_index=True),
        rests_on=lambda claim: rests_on.get(claim, others),
        flags=flags,
        after_holm=corrected_verdicts(headline, settings, similarities, detected, by_cell),
    )
    return whole


def corrected_verdicts(
    headline: str,
    settings: Settings,
    similarities: Similarities,
    detected: Mapping[str, tuple[Cell, Detected]],
    evaluations: Mapping[str, Evaluations],
) -> dict[str, str] | None:
    """Returns the verdicts after Holm's correction over all claims, E3 among them.

    None if the headline cell does not have the corrected protocol.

    Args:
        headline: the cell that decides.
        settings: of the study.
        similarities: of its maps.
        detected: cells with detectors, and their features.
        evaluations: of these cells.
    """
    protocol = "corrected"
    if protocol not in settings.cells[headline].protocols:
        return None
    known = {protocol: protocols(settings.protocols)[protocol]}
    features = {key: part for key, (_, part) in detected.items()}
    keeping = keeping_cell(detected)

    def verdicts(confidence: float) -> dict[str, str]:
        of_detectors = judge_evaluations(
            at_level(evaluations, features, headline, confidence=confidence)
        )
        of_layers = sensitivity.switch_table(
            headline,
            similarities,
            known,
            settings.statistics.model_copy(update={"confidence": confidence}),
            settings.flags,
            seed=settings.seed,
        )
        rows = pd.concat([of_detectors, of_layers])
        if keeping is not None:
            own = at_level(evaluations, features, keeping, confidence=confidence)
            rows = pd.concat([rows, judge_keeping(own)])
        return dict(zip(rows["claim"], rows["verdict"], strict=True))

    return family.after_holm(verdicts, confidence=settings.statistics.confidence)


def _evaluations(
    key: str,
    cell: Cell,
    detected: Mapping[str, tuple[Cell, Detected]],
    unrounded: Tables,
    evaluations: Mapping[str, dict[float, Evaluation]],
) -> Evaluations:
    """Returns the evaluations of a cell, with what other cells of its model say of it."""
    alike = [name for name, (other, _) in detected.items() if other.model == cell.model]
    adaptive = unrounded["adaptive"][unrounded["adaptive"]["cell"].isin(alike)]
    elsewhere = unrounded["transfer"].query(
        "cell == @key and strength == 1 and fitted_strength == 1 and fitted_cell != @key"
    )
    size = detected[key][1].facts["size"]
    return Evaluations(evaluations[key], adaptive, size, elsewhere)


def _tested(evaluations: Evaluations) -> int:
    return evaluations.whole.weights.shape[1]


def _record(kind: type[Artefact], study: str, cell: str) -> Artefact:
    return storage.read(kind, storage.results(study, f"records/{cell}/{KINDS[kind]}"))


def by_name(plan: DetectorStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables, plan.headline)


def panels(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figures of images and their maps, of the headline cell."""
    headline = settings.study(name, DetectorStudy).headline
    detected = storage.read(Detected, storage.cell_folder(name, headline, KINDS[Detected]))
    return drawings.panels(detected, blur=settings.detection.blur)


def metrics(tables: Tables) -> dict[str, dict[str, float]]:
    """Returns a study's summary, by cell: AUROC of each detector at strength 1, and adaptive."""
    rows = tables["detectors"].query(
        "strength == 1 and positives == 'success' and negatives == 'both'"
    )
    summary: dict[str, dict[str, float]] = {str(cell): {} for cell in rows["cell"].unique()}
    for row in rows.drop_duplicates(["cell", "detector"]).dropna(subset="auroc").itertuples():
        summary[row.cell][f"AUROC {row.detector}"] = row.auroc
    for row in tables["adaptive"].query("arm == 'adaptive'").dropna(subset="auroc").itertuples():
        summary[row.cell][f"AUROC {row.detector}, adaptive"] = row.auroc
    return summary


def content(name: str, settings: Settings, tables: Tables) -> Content:
    """Returns the content of a study's README."""
    plan = settings.study(name, DetectorStudy)
    headline, cells = plan.headline, settings.cells
    images = ", ".join(
        f"[{key}](../sets/{key}.json)" for key in dict.fromkeys(c.set for c in cells.values())
    )
    networks = ", ".join(
        f"[{key}](../models/{key}.json)" for key in dict.fromkeys(c.model for c in cells.values())
    )
    attacks = ", ".join(f"`{key}`" for key, cell in cells.items() if cell.detect)
    rates = report.evaluation(tables, headline).drop_duplicates("detector")
    keeps = (k for k, cell in cells.items() if cell.attack == "map_keeping" and cell.detect)
    keeping = next(keeps, None)
    of_keeping = f" E3 is of `{keeping}`, whose attack keeps the maps." if keeping else ""
    # Results of an earlier revision have no such table.
    flagged = tables["flags"]["cell"].unique() if "flags" in tables else ()
    return Content(
        title=plan.title,
        papers="Tan et al. 2023 (NoiseCAM)",
        compared=f"Detectors of single images on {networks}, for images of {images}: clean, under "
        f"each attack ({attacks}) and under noise of its size. Claims, and figures of one cell, "
        f"are of the headline cell, `{headline}`.{of_keeping} "
        f"{report.probe(tables, headline)}".rstrip(),
        headline=[
            (
                "Attacked images whose class flips, at strength 100 %, against clean and noisy "
                "ones, test images, with the numbers of images behind a value, those below "
                f"{report.FEW} marked *few*; 0.5 is chance. Those with a rule of their own decide "
                "by it. A detector that is trained on an attack knows what it is tested on: the "
                "last column has its AUROC on this attack when it is trained on another.",
                report.with_counts(rates)[
                    [
                        "detector",
                        "decides",
                        "trained on",
                        "AUROC",
                        "TPR",
                        "TNR",
                        "balanced accuracy",
                        "AUROC, trained on another attack",
                    ]
                ],
            )
        ],
        claims=CLAIMS,
        flags=[f"`{cell}`: {text}" for cell in flagged for text in flag_texts(tables, cell)],
        figures=[
            (figure, title.removesuffix(f" ({headline})"), caption)
            for figure, title, caption in texts(
                drawings.study_figures(tables, headline),
                drawings.pictures(blur=settings.detection.blur),
            )
        ],
        about=evaluation.ABOUT,
    )

"""A study of retrained models and of signatures as a whole: its tables, figures and texts."""

from collections.abc import Callable

from camdrift import storage
from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.papers.klawikowska2020 import figures as drawings
from camdrift.papers.klawikowska2020 import readings, verdicts
from camdrift.papers.klawikowska2020 import tables as numbers
from camdrift.papers.klawikowska2020.claims import CLAIMS as CLAIMS
from camdrift.papers.klawikowska2020.report import content as content
from camdrift.papers.klawikowska2020.report import page as page
from camdrift.papers.klawikowska2020.tables import metrics as metrics
from camdrift.settings import Settings, SignatureStudy
from camdrift.storage import Retrained, Signatures

READS = ("seed", "retrainings", "statistics", "flags")


def _inspection(name: str, settings: Settings) -> numbers.Inspection:
    """Returns the results of the stages of a study's retraining."""
    key = settings.study(name, SignatureStudy).retraining
    return numbers.Inspection(
        key,
        storage.read(Retrained, storage.cell_folder(name, key, "retrain")),
        storage.read(Signatures, storage.cell_folder(name, key, "signatures")),
        settings.statistics,
        settings.seed,
    )


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, see `tables.tables`, and its claims."""
    inspection = _inspection(name, settings)
    retraining = settings.retrainings[inspection.name]
    claims = verdicts.claims_table(inspection, retraining, settings.flags)
    return numbers.tables(inspection) | {
        "readings": readings.readings(inspection), "claims": claims
    }  # fmt: skip


def by_name(plan: SignatureStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables)


def figures(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figures of a study: of its tables, and of images and their relevance."""
    inspection = _inspection(name, settings)
    return drawings.study_figures(tables) + drawings.panels(
        tables, inspection.retrained, inspection.signatures
    )

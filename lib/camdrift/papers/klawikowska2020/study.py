"""A study of retrained models and of signatures as a whole: its tables, figures and texts."""

from collections.abc import Callable

from camdrift import storage
from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.papers.interface import Artefacts
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


def artefacts(name: str, settings: Settings) -> Artefacts:
    """Returns kind and folder of the artefacts that hold a study's results, by name."""
    key = settings.study(name, SignatureStudy).retraining
    kinds = {"retrain": Retrained, "signatures": Signatures}
    return {stage: (kind, storage.cell_folder(name, key, stage)) for stage, kind in kinds.items()}


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, see `tables.tables`, and its claims."""
    inspection = numbers.Inspection(
        settings.study(name, SignatureStudy).retraining,
        storage.read(Retrained, storage.results(name, "records/retrain")),
        storage.read(Signatures, storage.results(name, "records/signatures")),
        settings.statistics,
        settings.seed,
    )
    retraining = settings.retrainings[inspection.name]
    claims = verdicts.claims_table(inspection, retraining, settings.flags)
    return numbers.tables(inspection) | {
        "readings": readings.readings(inspection), "claims": claims
    }  # fmt: skip


def by_name(plan: SignatureStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables)


def panels(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figures of images and their relevance."""
    known = artefacts(name, settings)
    retrained = storage.read(Retrained, known["retrain"][1])
    signatures = storage.read(Signatures, known["signatures"][1])
    return drawings.panels(tables, retrained, signatures)

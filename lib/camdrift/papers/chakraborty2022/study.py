"""A study of networks under transferred attacks as a whole: its tables, figures and texts."""

from collections.abc import Callable
from pathlib import Path

from camdrift import storage
from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.papers.chakraborty2022 import comparison, readings, verdicts
from camdrift.papers.chakraborty2022 import figures as drawings
from camdrift.papers.chakraborty2022 import panels as pictures
from camdrift.papers.chakraborty2022 import tables as numbers
from camdrift.papers.chakraborty2022.claims import CLAIMS as CLAIMS
from camdrift.papers.chakraborty2022.report import content as content
from camdrift.papers.chakraborty2022.report import page as page
from camdrift.papers.chakraborty2022.tables import metrics as metrics
from camdrift.papers.interface import Artefacts
from camdrift.settings import Settings, TransferStudy
from camdrift.storage import Transferred

READS = ("seed", "sets", "targets", "statistics", "flags")


def artefacts(name: str, settings: Settings) -> Artefacts:
    """Returns kind and folder of the artefacts that hold a study's results, by name."""
    folders = {end: storage.end_folder(name, "transferred", end) for end in settings.targets}
    return {end: (Transferred, folder) for end, folder in folders.items()}


def _comparison(
    name: str, settings: Settings, folder: Callable[[str], Path]
) -> comparison.Comparison:
    """Returns the results of a study, network by network; `folder` is that of a target."""
    return comparison.read(
        name,
        folder,
        settings.study(name, TransferStudy),
        settings.targets,
        {key for key, value in settings.sets.items() if value.preprocessing is not None},
        settings.statistics,
        seed=settings.seed,
    )


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, see `tables.tables`, its claims and their readings."""
    networks = _comparison(name, settings, lambda end: storage.results(name, f"records/{end}"))
    return numbers.tables(networks) | {
        "claims": verdicts.claims_table(networks, settings.flags),
        "readings": readings.table(networks, settings.flags),
    }


def by_name(plan: TransferStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables, explains=plan.explains)


def panels(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figures of images and their maps."""
    known = artefacts(name, settings)
    return pictures.panels(_comparison(name, settings, lambda end: known[end][1]))

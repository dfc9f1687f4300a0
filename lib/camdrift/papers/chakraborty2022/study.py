"""A study of networks under transferred attacks as a whole: its tables, figures and texts."""

from collections.abc import Callable

from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.papers.chakraborty2022 import comparison, panels, readings, verdicts
from camdrift.papers.chakraborty2022 import figures as drawings
from camdrift.papers.chakraborty2022 import tables as numbers
from camdrift.papers.chakraborty2022.claims import CLAIMS as CLAIMS
from camdrift.papers.chakraborty2022.report import content as content
from camdrift.papers.chakraborty2022.report import page as page
from camdrift.papers.chakraborty2022.tables import metrics as metrics
from camdrift.settings import Settings, TransferStudy

READS = ("seed", "sets", "targets", "statistics", "flags")


def _comparison(name: str, settings: Settings) -> comparison.Comparison:
    """Returns the results of the stages of a study, network by network."""
    return comparison.read(
        name,
        settings.study(name, TransferStudy),
        settings.targets,
        {key for key, value in settings.sets.items() if value.preprocessing is not None},
        settings.statistics,
        seed=settings.seed,
    )


def tables(name: str, settings: Settings) -> Tables:
    """Returns the tables of a study by name, see `tables.tables`, its claims and their readings."""
    networks = _comparison(name, settings)
    return numbers.tables(networks) | {
        "claims": verdicts.claims_table(networks, settings.flags),
        "readings": readings.table(networks, settings.flags),
    }


def by_name(plan: TransferStudy, tables: Tables) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the figures which need tables alone, by figure name."""
    return drawings.by_name(tables, explains=plan.explains)


def figures(name: str, settings: Settings, tables: Tables) -> list[Figure]:
    """Returns the figures of a study: of its tables, and of images and their maps."""
    explains = settings.study(name, TransferStudy).explains
    pictures = panels.panels(_comparison(name, settings))
    return drawings.study_figures(tables, explains=explains) + pictures

"""The outputs of a study: records, tables, figures, metrics, report, README and settings."""

from typing import Any

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.papers import interface, readme
from camdrift.settings import Settings
from camdrift.storage import files


def record(study: str, settings: Settings) -> None:
    """Writes the records of a study: its results image by image, without pixels and maps."""
    paper = interface.paper(settings.studies[study].paper)
    for name, (kind, folder) in paper.artefacts(study, settings).items():
        whole: Any = storage.read(kind, folder)
        storage.write(storage.results(study, f"records/{name}"), storage.without_pictures(whole))


def write(study: str, settings: Settings, *, panels: bool = True) -> str:
    """Writes all else, from the records, and returns the results of a study as a text.

    `panels`: whether to draw the figures that show images or maps, which no record has.
    """
    plan = settings.studies[study]
    paper = interface.paper(plan.paper)
    for name, table in paper.tables(study, settings).items():
        files.write_csv(storage.results(study, "tables") / f"{name}.csv", table)
    tables = results.load(study, storage.results)  # all else rests on these tables alone
    drawn = [draw() for draw in paper.by_name(plan, tables).values()]
    drawn += paper.panels(study, settings, tables) if panels else []
    folder = storage.results(study, "figures")
    figures = drawing.write(drawn, folder)
    files.write_json(storage.results(study, "metrics.json"), paper.metrics(tables))
    files.write_text(storage.report(study), paper.page(study, settings, tables, figures))
    content = paper.content(study, settings, tables)
    text = readme.readme(study, tables, content, figures=folder)
    files.write_text(storage.results(study, "README.md"), text)
    results.write_settings(study, settings)  # last: with it, the results count as whole
    return readme.terminal(study, tables, content)

"""Writes a study's tables, settings, figures, metrics, report and README; prints its results."""

import sys

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.papers import interface, readme
from camdrift.pipeline import run
from camdrift.storage import files


def main(stage: run.Stage) -> None:
    key = stage.key
    paper = interface.paper(stage.settings.studies[key].paper)
    settings = results.study_settings(key, stage.settings, paper.READS)
    for name, table in paper.tables(key, settings).items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    tables = results.load(key, storage.results)  # all else rests on these tables alone
    folder = storage.results(key, "figures")
    figures = drawing.write(paper.figures(key, settings, tables), folder)
    files.write_json(storage.results(key, "metrics.json"), paper.metrics(tables))
    files.write_text(storage.report(key), paper.page(key, settings, tables, figures))
    content = paper.content(key, settings, tables)
    text = readme.readme(key, tables, content, figures=folder)
    files.write_text(storage.results(key, "README.md"), text)
    results.write_settings(key, settings)  # last: with it, the results count as whole
    sys.stdout.write(readme.terminal(key, tables, content))


if __name__ == "__main__":
    run.stage(main)

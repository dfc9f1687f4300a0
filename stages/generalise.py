"""Writes a generalisation's tables, figures, metrics, report and README."""

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.papers import readme
from camdrift.papers.chakraborty2022 import (
    comparison,
    figures,
    report,
    tables,
    verdicts,
)
from camdrift.pipeline import run
from camdrift.storage import files


def main(stage: run.Stage) -> None:
    key, settings = stage.key, stage.settings
    plan = settings.generalisations[key]
    targets = {name: of for name, of in settings.targets.items() if of.generalisation == key}
    preprocessed = {name for name, of in settings.sets.items() if of.preprocessing is not None}
    statistics = settings.statistics
    comparisons = comparison.read(key, plan, targets, preprocessed, statistics, seed=settings.seed)
    study_tables = tables.tables(comparisons)
    study_tables["claims"] = verdicts.claims(comparisons, settings.flags)
    for name, table in study_tables.items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    study_tables = results.load(key)  # figures and texts rest on the tables in git alone
    drawings = figures.of_generalisation(study_tables, explains=plan.explains)
    drawings += figures.panels(comparisons)
    drawings = drawing.write(drawings, storage.results(key, "figures"))
    metrics = tables.metrics(study_tables)
    results.write_settings(key, settings)
    files.write_json(storage.results(key, "metrics.json"), metrics)
    page = report.page(key, plan, study_tables, drawings)
    files.write_text(storage.report(key), page)
    content = report.readme_content(plan, study_tables)
    files.write_text(storage.results(key, "README.md"), readme.readme(key, study_tables, content))


if __name__ == "__main__":
    run.stage(main)

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
    key, chosen = stage.key, stage.settings
    plan = chosen.generalisations[key]
    targets = {name: of for name, of in chosen.targets.items() if of.generalisation == key}
    preprocessed = {name for name, of in chosen.sets.items() if of.preprocessing is not None}
    statistics = chosen.statistics
    found = comparison.read(key, plan, targets, preprocessed, statistics, seed=chosen.seed)
    made = tables.tables(found)
    made["claims"] = verdicts.claims(found, chosen.flags)
    for name, table in made.items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    made = results.load(key)  # figures and texts rest on what can be read in git, no more
    drawn = figures.of_generalisation(made, explains=plan.explains)
    drawn += figures.panels(found)
    drawn = drawing.write(drawn, storage.results(key, "figures"))
    metrics = tables.metrics(made)
    results.write_settings(key, chosen)
    files.write_json(storage.results(key, "metrics.json"), metrics)
    page = report.page(key, plan, made, drawn)
    files.write_text(storage.report(key), page)
    content = report.readme_content(plan, made)
    files.write_text(storage.results(key, "README.md"), readme.readme(key, made, content))


if __name__ == "__main__":
    run.stage(main)

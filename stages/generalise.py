"""Writes a generalisation's tables, figures, metrics and report."""

from camdrift import (
    artifacts,
    comparison,
    drawing,
    files,
    generalisation_figures,
    generalisation_report,
    generalisation_tables,
    generalisation_verdicts,
    results,
    run,
    settings,
)


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    plan = settings.Generalisation.model_validate(params["generalisations"][key])
    targets = {
        name: settings.Target.model_validate(target)
        for name, target in params["targets"].items()
        if target["generalisation"] == key
    }
    preprocessed = {name for name, of in params["sets"].items() if of["preprocessing"] is not None}
    chosen = settings.StatisticsSettings.model_validate(params["statistics"])
    found = comparison.read(key, plan, targets, preprocessed, chosen, seed=params["seed"])
    limits = settings.FlagSettings.model_validate(params["flags"])
    made = generalisation_tables.tables(found)
    made["claims"] = generalisation_verdicts.claims(found, limits)
    for name, table in made.items():
        files.write_csv(artifacts.results(key, "tables") / f"{name}.csv", table)
    made = results.load(key)  # figures and texts rest on what can be read in git, no more
    drawn = generalisation_figures.of_generalisation(made, explains=plan.explains)
    drawn += generalisation_figures.panels(found)
    drawn = drawing.write(drawn, artifacts.results(key, "figures"))
    metrics = generalisation_tables.metrics(made)
    files.write_json(artifacts.results(key, "metrics.json"), metrics)
    page = generalisation_report.page(key, plan, made, drawn)
    files.write_text(artifacts.report(key), page)


if __name__ == "__main__":
    run.stage(main)

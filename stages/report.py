"""Writes a study's tables, figures, metrics and report."""

from camdrift import (
    artifacts,
    detection_figures,
    drawing,
    figures,
    files,
    report,
    results,
    run,
    settings,
    study,
)


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    plan = settings.Study.model_validate(params["studies"][key])
    cells = {
        name: settings.Cell.model_validate(cell)
        for name, cell in params["cells"].items()
        if cell["study"] == key
    }
    chosen = settings.StatisticsSettings.model_validate(params["statistics"])
    detecting = settings.DetectionSettings.model_validate(params["detection"])
    limits = settings.FlagSettings.model_validate(params["flags"])
    protocols, seed = settings.protocols(params["protocols"]), params["seed"]
    made = study.tables(key, plan, cells, protocols, chosen, limits, detecting, seed=seed)
    for name, table in made.items():
        files.write_csv(artifacts.results(key, "tables") / f"{name}.csv", table)
    made = results.load(key)  # figures and texts rest on what can be read in git, no more
    drawn = figures.of_study(made, results.example(key, plan.headline), plan.headline)
    drawn += detection_figures.of_study(made, plan.headline)
    if cells[plan.headline].detect:
        seen, names = results.seen(key, plan.headline)
        drawn += detection_figures.panels(seen, names, blur=detecting.blur)
    drawn = drawing.write(drawn, artifacts.results(key, "figures"))
    files.write_json(artifacts.results(key, "metrics.json"), study.metrics(made))
    files.write_text(artifacts.report(key), report.page(key, plan, made, drawn, chosen))


if __name__ == "__main__":
    run.stage(main)

"""Writes a study's tables, figures, metrics and report."""

from tqdm import tqdm

from camdrift import artifacts, figures, report, run, settings, tables


def main(stage: run.Stage) -> None:
    study = settings.Study.model_validate(stage.params["studies"][stage.key])
    cells = {
        name: settings.Cell.model_validate(cell)
        for name, cell in stage.params["cells"].items()
        if cell["study"] == stage.key
    }
    chosen = settings.StatisticsSettings.model_validate(stage.params["statistics"])
    orders = stage.params["coverage"]["orders"]
    made = tables.of_study(
        stage.key, cells, statistics=chosen, orders=orders, seed=stage.params["seed"]
    )
    for name, table in made.items():
        artifacts.write_csv(artifacts.results(stage.key, "tables") / f"{name}.csv", table)
    made = tables.load(stage.key)  # figures and texts rest on what can be read in git, no more
    drawn = figures.of_study(made, tables.example(stage.key, study.headline), study.headline)
    metrics = tables.metrics(made, chosen)
    for figure in tqdm(drawn, desc="figures", unit="figure"):
        figures.png(figure, artifacts.results(stage.key, "figures") / f"{figure.name}.png")
    artifacts.write_json(artifacts.results(stage.key, "metrics.json"), metrics)
    page = report.page(stage.key, study, made, drawn, chosen)
    artifacts.write_text(artifacts.report(stage.key), page)


if __name__ == "__main__":
    run.stage(main)

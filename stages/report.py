"""Writes a study's tables, figures, metrics, report and README."""

from camdrift import settings, storage
from camdrift.analysis import drawing, results
from camdrift.papers import readme, report, study
from camdrift.papers.claims import CLAIMS
from camdrift.papers.renkhoff2022 import figures
from camdrift.papers.tan2023 import figures as detection_figures
from camdrift.pipeline import run
from camdrift.storage import files


def main(stage: run.Stage) -> None:
    key, chosen = stage.key, stage.settings
    plan = chosen.studies[key]
    cells = {name: cell for name, cell in chosen.cells.items() if cell.study == key}
    made = study.tables(
        key, plan, cells, settings.protocols(chosen.protocols), chosen.statistics, chosen.flags,
        chosen.detection, seed=chosen.seed,
    )  # fmt: skip
    for name, table in made.items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    made = results.load(key)  # figures and texts rest on what can be read in git, no more
    drawn = figures.of_study(made, results.example(key, plan.headline), plan.headline)
    drawn += detection_figures.study_figures(made, plan.headline)
    if cells[plan.headline].detect:
        seen, names = results.seen(key, plan.headline)
        drawn += detection_figures.panels(seen, names, blur=chosen.detection.blur)
    drawn = drawing.write(drawn, storage.results(key, "figures"))
    results.write_settings(key, chosen)
    files.write_json(storage.results(key, "metrics.json"), study.metrics(made))
    page = report.page(key, plan, made, drawn, chosen.statistics, CLAIMS)
    files.write_text(storage.report(key), page)
    content = study.readme_content(plan, made, blur=chosen.detection.blur)
    files.write_text(storage.results(key, "README.md"), readme.readme(key, made, content))


if __name__ == "__main__":
    run.stage(main)

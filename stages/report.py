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
    key, params = stage.key, stage.settings
    plan = params.studies[key]
    cells = {name: cell for name, cell in params.cells.items() if cell.study == key}
    tables = study.tables(
        key, plan, cells, settings.protocols(params.protocols), params.statistics, params.flags,
        params.detection, seed=params.seed,
    )  # fmt: skip
    for name, table in tables.items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    tables = results.load(key)  # figures and texts rest on the tables in git alone
    drawings = figures.study_figures(tables, results.example(key, plan.headline), plan.headline)
    drawings += detection_figures.study_figures(tables, plan.headline)
    if cells[plan.headline].detect:
        detected, names = results.detections(key, plan.headline)
        drawings += detection_figures.panels(detected, names, blur=params.detection.blur)
    drawings = drawing.write(drawings, storage.results(key, "figures"))
    results.write_settings(key, params)
    files.write_json(storage.results(key, "metrics.json"), study.metrics(tables))
    page = report.page(key, plan, tables, drawings, params.statistics, CLAIMS)
    files.write_text(storage.report(key), page)
    content = study.readme_content(plan, tables, blur=params.detection.blur)
    files.write_text(storage.results(key, "README.md"), readme.readme(key, tables, content))


if __name__ == "__main__":
    run.stage(main)

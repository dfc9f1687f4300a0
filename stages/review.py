"""Writes a hardening's tables, figures, metrics, report and README."""

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.papers import readme
from camdrift.papers.klawikowska2020 import (
    figures,
    report,
    tables,
    verdicts,
)
from camdrift.pipeline import run
from camdrift.storage import files


def main(stage: run.Stage) -> None:
    key, settings = stage.key, stage.settings
    plan = settings.hardenings[key]
    inspection = tables.Inspection(
        key,
        storage.read(storage.Hardened, storage.hardening_folder(key, "harden")),
        storage.read(storage.Signatures, storage.hardening_folder(key, "signatures")),
        settings.statistics,
        settings.seed,
    )
    images = storage.read(storage.ImageSet, storage.set_folder(plan.set))
    study_tables = tables.tables(inspection) | {
        "claims": verdicts.claims(inspection, plan, settings.flags)
    }
    for name, table in study_tables.items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    study_tables = results.load(key)  # figures and texts rest on the tables in git alone
    clean = images.pixels[inspection.hardened.tests["image"].to_numpy()]
    drawings = figures.of_hardening(study_tables)
    drawings += figures.panels(study_tables, clean, inspection.hardened, inspection.signatures)
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

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
    key, chosen = stage.key, stage.settings
    plan = chosen.hardenings[key]
    seen = tables.Inspection(
        key,
        storage.read(storage.Hardened, storage.hardening_folder(key, "harden")),
        storage.read(storage.Signatures, storage.hardening_folder(key, "signatures")),
        chosen.statistics,
        chosen.seed,
    )
    images = storage.read(storage.ImageSet, storage.set_folder(plan.set))
    made = tables.tables(seen) | {"claims": verdicts.claims(seen, plan, chosen.flags)}
    for name, table in made.items():
        files.write_csv(storage.results(key, "tables") / f"{name}.csv", table)
    made = results.load(key)  # figures and texts rest on what can be read in git, no more
    clean = images.pixels[seen.hardened.tests["image"].to_numpy()]
    drawn = figures.of_hardening(made)
    drawn += figures.panels(made, clean, seen.hardened, seen.signatures)
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

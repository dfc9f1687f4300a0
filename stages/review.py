"""Writes a hardening's tables, figures, metrics and report."""

from camdrift import (
    artifacts,
    drawing,
    files,
    hardening_figures,
    hardening_report,
    hardening_tables,
    hardening_verdicts,
    results,
    run,
    settings,
)


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    plan = settings.Hardening.model_validate(params["hardenings"][key])
    seen = hardening_tables.Inspection(
        key,
        artifacts.read(artifacts.Hardened, artifacts.hardening_folder(key, "harden")),
        artifacts.read(artifacts.Signatures, artifacts.hardening_folder(key, "signatures")),
        settings.StatisticsSettings.model_validate(params["statistics"]),
        params["seed"],
    )
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(plan.set))
    limits = settings.FlagSettings.model_validate(params["flags"])
    made = hardening_tables.tables(seen) | {"claims": hardening_verdicts.claims(seen, plan, limits)}
    for name, table in made.items():
        files.write_csv(artifacts.results(key, "tables") / f"{name}.csv", table)
    made = results.load(key)  # figures and texts rest on what can be read in git, no more
    clean = images.pixels[seen.hardened.tests["image"].to_numpy()]
    drawn = hardening_figures.of_hardening(made)
    drawn += hardening_figures.panels(made, clean, seen.hardened, seen.signatures)
    drawn = drawing.write(drawn, artifacts.results(key, "figures"))
    metrics = hardening_tables.metrics(made)
    files.write_json(artifacts.results(key, "metrics.json"), metrics)
    page = hardening_report.page(key, plan, made, drawn)
    files.write_text(artifacts.report(key), page)


if __name__ == "__main__":
    run.stage(main)

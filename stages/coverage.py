"""Counts the neurons that every attacked image covers, clean, attacked and with noise."""

from camdrift import artifacts, coverage, models, run, settings, variants


def main(stage: run.Stage) -> None:
    cell = stage.cell
    chosen = settings.CoverageSettings.model_validate(stage.params["coverage"])
    _, made = variants.of_cell(cell, stage.key, stage.protocols[:1])
    model = models.load(cell.model, micro_batch=stage.params["micro_batch"])

    arms = (artifacts.CLEAN, artifacts.ADVERSARIAL, artifacts.NOISE)
    first = [item for item in made if item.name in arms and (item.table["draw"] == 0).all()]
    bits, rows = coverage.of_variants(model, first, threshold=chosen.threshold)
    facts = {"neurons": len(coverage.spatial(model))}
    covered = artifacts.Covered(bits, rows, facts)
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "coverage"), covered)


if __name__ == "__main__":
    run.stage(main)

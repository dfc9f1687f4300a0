"""Counts the neurons that every variant of every attacked image covers."""

from camdrift import artifacts, coverage, models, run, settings, variants


def main(stage: run.Stage) -> None:
    cell = stage.cell
    chosen = settings.CoverageSettings.model_validate(stage.params["coverage"])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    folders = (artifacts.cell_folder(cell.study, stage.key, part) for part in ("attack", "noise"))
    attacked = artifacts.read(artifacts.Attacked, next(folders))
    noise = artifacts.read(artifacts.Noise, next(folders))
    model = models.load(cell.model, stage.params)

    made = variants.of_images(images, attacked, noise)
    first = [item for item in made if (item[0]["draw"] == 0).all()]
    bits, rows = coverage.of_variants(model, first, threshold=chosen.threshold)
    facts = {"neurons": len(coverage.spatial(model))}
    covered = artifacts.Covered(bits, rows, facts)
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "coverage"), covered)


if __name__ == "__main__":
    run.stage(main)

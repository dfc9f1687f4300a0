"""Counts the neurons that every attacked image covers, clean, attacked and with noise."""

from camdrift import artifacts, coverage, models, run, settings, shards, variants


def shard(stage: run.Stage, places: slice) -> artifacts.Covered:
    """Returns what some of the images cover."""
    chosen = settings.CoverageSettings.model_validate(stage.params["coverage"])
    _, made = variants.of_cell(stage.cell, stage.key, stage.protocols[:1], places)
    model = models.load(stage.cell.model, micro_batch=stage.params["micro_batch"])
    arms = (artifacts.CLEAN, artifacts.ADVERSARIAL, artifacts.NOISE)
    first = [item for item in made if item.name in arms and (item.table["draw"] == 0).all()]
    bits, rows = coverage.of_variants(model, first, threshold=chosen.threshold)
    return artifacts.Covered(bits, rows, {"neurons": len(coverage.spatial(model))})


def main(stage: run.Stage) -> None:
    of_cell = (stage.cell.study, stage.key)
    count = len(
        artifacts.read(artifacts.Attacked, artifacts.cell_folder(*of_cell, "attack")).images
    )
    with shards.of(stage, "shard", count, size=4 * stage.params["micro_batch"]) as parts:
        folder = artifacts.cell_folder(*of_cell, "coverage")
        artifacts.join(folder, artifacts.each(artifacts.Covered, parts))


if __name__ == "__main__":
    run.stage(main)

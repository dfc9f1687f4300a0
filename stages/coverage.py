"""Counts the neurons that every attacked image covers, clean, attacked and with noise."""

from camdrift import artifacts, coverage, models, run, settings, shards, variants


def shard(stage: run.Stage, places: slice) -> artifacts.Covered:
    """Returns what some of the images cover."""
    chosen = settings.CoverageSettings.model_validate(stage.params["coverage"])
    _, made = variants.of_cell(stage.cell, stage.key, stage.protocols[:1], places)
    model = models.load(stage.cell.model, **stage.calling)
    arms = (artifacts.CLEAN, artifacts.ADVERSARIAL, artifacts.NOISE)
    first = [item for item in made if item.name in arms and (item.table["draw"] == 0).all()]
    bits, rows = coverage.of_variants(model, first, threshold=chosen.threshold)
    return artifacts.Covered(bits, rows, {"neurons": len(coverage.spatial(model))})


def main(stage: run.Stage) -> None:
    shards.of_attacked(stage, artifacts.Covered, size=4 * stage.params["micro_batch"])


if __name__ == "__main__":
    run.stage(main)

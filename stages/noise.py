"""Draws the noise that each perturbation is compared with, and turns the perturbation about."""

from camdrift import artifacts, models, noise, run, settings, shards


def shard(stage: run.Stage, places: slice) -> artifacts.Noise:
    """Returns the noise and the controls of some of the images."""
    cell, params = stage.cell, stage.params
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    folder = artifacts.cell_folder(cell.study, stage.key, "attack")
    attacked = artifacts.read(artifacts.Attacked, folder).only(places)
    model = models.load(cell.model, micro_batch=params["micro_batch"])
    chosen = settings.NoiseSettings.model_validate(params["noise"])
    return noise.of_attacked(
        model, images, attacked, cell, stage.protocols, chosen, key=stage.key, seed=params["seed"]
    )


def main(stage: run.Stage) -> None:
    of_cell = (stage.cell.study, stage.key)
    count = len(
        artifacts.read(artifacts.Attacked, artifacts.cell_folder(*of_cell, "attack")).images
    )
    with shards.of(stage, "shard", count, size=4 * stage.params["micro_batch"]) as parts:
        folder = artifacts.cell_folder(*of_cell, "noise")
        artifacts.join(folder, artifacts.each(artifacts.Noise, parts))


if __name__ == "__main__":
    run.stage(main)

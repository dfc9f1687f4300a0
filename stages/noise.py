"""Draws the noise that each perturbation is compared with, and turns the perturbation about."""

from camdrift import artifacts, models, noise, run, settings, shards


def shard(stage: run.Stage, places: slice) -> artifacts.Noise:
    """Returns the noise and the controls of some of the images."""
    cell, params = stage.cell, stage.params
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    folder = artifacts.cell_folder(cell.study, stage.key, "attack")
    attacked = artifacts.read(artifacts.Attacked, folder).only(places)
    model = models.load(cell.model, **stage.calling)
    chosen = settings.NoiseSettings.model_validate(params["noise"])
    return noise.of_attacked(
        model, images, attacked, cell, stage.protocols, chosen, key=stage.key, seed=params["seed"]
    )


def main(stage: run.Stage) -> None:
    shards.of_attacked(stage, artifacts.Noise, size=4 * stage.params["micro_batch"])


if __name__ == "__main__":
    run.stage(main)

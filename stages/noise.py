"""Draws the noise matched to each perturbation, and the controls made of the perturbation."""

from camdrift import storage
from camdrift.models import loading
from camdrift.perturbations import noise
from camdrift.pipeline import run, shards


def shard(stage: run.Stage, places: slice) -> storage.Noise:
    """Returns the noise and the controls of some of the images."""
    cell, settings = stage.cell, stage.settings
    images = storage.read(storage.ImageSet, storage.set_folder(cell.set))
    folder = storage.cell_folder(cell.study, stage.key, "attack")
    attacked = storage.read(storage.Attacked, folder).only(places)
    model = loading.load(cell.model, **stage.calling)
    return noise.match(
        model,
        images,
        attacked,
        cell,
        stage.protocols,
        settings.noise,
        key=stage.key,
        seed=settings.seed,
    )


def main(stage: run.Stage) -> None:
    shards.by_image(stage, storage.Noise, size=4 * stage.settings.micro_batch)


if __name__ == "__main__":
    run.stage(main)

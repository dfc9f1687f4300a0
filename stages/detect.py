"""Measures the detectors' features of a cell's images, and attacks the images adaptively."""

from pathlib import Path

from camdrift import storage
from camdrift.evaluation import arms, experiment
from camdrift.models import loading
from camdrift.pipeline import run, shards


def sense(stage: run.Stage, places: slice) -> storage.Sensitivity:
    """Returns the sensitivity of the model's layers, and training images to compare with."""
    return experiment.sense(*load(stage))


def see(stage: run.Stage, places: slice, sensed: Path) -> storage.Seen:
    """Returns the features of some of the images that take part."""
    return experiment.measure(*load(stage, sensed), places)


def adapt(stage: run.Stage, places: slice, sensed: Path, *folders: Path) -> storage.Seen:
    """Returns the features of some of the test images under attacks on detectors."""
    return arms.adapt(*load(stage, sensed), places, storage.each(storage.Seen, folders))


def load(stage: run.Stage, *sensed: Path) -> tuple[loading.Model, experiment.Part]:
    """Returns the model and the images that take part, with the layers that detectors read."""
    model, settings = loading.load(stage.cell.model, **stage.calling), stage.settings
    there = stage.cell, stage.key, stage.protocols[0], settings.detection, settings.seed
    return model, experiment.load_part(model, *there, storage.each(storage.Sensitivity, sensed))


def main(stage: run.Stage) -> None:
    folder = storage.cell_folder(stage.cell.evaluation, stage.key, "detect")
    if not stage.cell.detect:
        return storage.write(folder, experiment.empty())
    model, part = load(stage)
    count, size = len(part.test_images) * stage.cell.adaptive, model.micro_batch
    with (
        shards.results(stage, "sense", 1, size=1) as sensed,
        shards.results(stage, "see", len(part.images), size=size, parts=sensed) as features,
        shards.results(stage, "adapt", count, size=size, parts=sensed + features) as attacked,
    ):
        steps = [list(storage.each(storage.Seen, folders)) for folders in (features, attacked)]
        stage.measured["seconds_an_image"] = experiment.mean_seconds(steps[0])
        storage.write(folder, experiment.collect(*load(stage, *sensed), experiment.join(*steps)))


if __name__ == "__main__":
    run.stage(main)

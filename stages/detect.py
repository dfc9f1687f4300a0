"""Measures the detectors' features of a cell's images, and attacks the images adaptively."""

from pathlib import Path

from camdrift import settings, storage
from camdrift.evaluation import experiment
from camdrift.models import loading
from camdrift.models.model import Model
from camdrift.pipeline import run, shards


def see(stage: run.Stage, places: slice) -> storage.Seen:
    """Returns the features of some of the images that take part."""
    return experiment.measure(*load(stage), places, key=stage.key, seed=stage.settings.seed)


def adapt(stage: run.Stage, places: slice, *folders: Path) -> storage.Seen:
    """Returns the features of some of the test images under non-adaptive and adaptive attacks."""
    features = experiment.join(list(storage.each(storage.Seen, folders)))
    return experiment.adapt(
        *load(stage), places, features,
        key=stage.key, seed=stage.settings.seed, quantise=stage.protocols[0].quantise,
    )  # fmt: skip


def load(stage: run.Stage) -> tuple[Model, experiment.Part, settings.DetectionSettings]:
    """Returns the model, the images that take part, and the settings."""
    detection, seed = stage.settings.detection, stage.settings.seed
    model, cell = loading.load(stage.cell.model, **stage.calling), (stage.cell, stage.key)
    part = experiment.load_part(model, *cell, stage.protocols[0], detection, seed=seed)
    return model, part, detection


def main(stage: run.Stage) -> None:
    folder = storage.cell_folder(stage.cell.evaluation, stage.key, "detect")
    if not stage.cell.detect:
        return storage.write(folder, experiment.empty())
    model, part, detection = load(stage)
    count, size = len(part.test_images) * stage.cell.adaptive, model.micro_batch
    with (
        shards.results(stage, "see", len(part.images), size=size) as measured,
        shards.results(stage, "adapt", count, size=size, parts=measured) as attacked,
    ):
        steps = [list(storage.each(storage.Seen, folders)) for folders in (measured, attacked)]
        stage.measured["seconds_an_image"] = experiment.mean_seconds(steps[0])
        storage.write(folder, experiment.collect(model, part, experiment.join(*steps), detection))


if __name__ == "__main__":
    run.stage(main)

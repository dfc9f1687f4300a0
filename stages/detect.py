"""Measures what detectors see of a cell's images, and attacks them with detectors in mind."""

from pathlib import Path

from camdrift import settings, storage
from camdrift.evaluation import experiment
from camdrift.models import loading
from camdrift.models.model import Model
from camdrift.pipeline import run, shards


def see(stage: run.Stage, places: slice) -> storage.Seen:
    """Returns what detectors see of some of the images that take part."""
    return experiment.see(*trying(stage), places, key=stage.key, seed=stage.settings.seed)


def adapt(stage: run.Stage, places: slice, *seen: Path) -> storage.Seen:
    """Returns what detectors see of some of the test images, attacked with detectors in mind."""
    features = experiment.in_order(list(storage.each(storage.Seen, seen)))
    return experiment.adapt(
        *trying(stage), places, features,
        key=stage.key, seed=stage.settings.seed, quantise=stage.protocols[0].quantise,
    )  # fmt: skip


def trying(stage: run.Stage) -> tuple[Model, experiment.Part, settings.DetectionSettings]:
    """Returns the model, the images that take part, and the settings."""
    chosen, model = stage.settings, loading.load(stage.cell.model, **stage.calling)
    of_cell = (model, stage.cell, stage.key, stage.protocols[0])
    part = experiment.taking_part(*of_cell, chosen.detection, seed=chosen.seed)
    return model, part, chosen.detection


def main(stage: run.Stage) -> None:
    folder = storage.cell_folder(stage.cell.study, stage.key, "detect")
    if not stage.cell.detect:
        return storage.write(folder, experiment.nothing())
    model, part, chosen = trying(stage)
    count, size = len(part.tested) * stage.cell.adaptive, model.micro_batch
    with (
        shards.of(stage, "see", len(part.images), size=size) as seen,
        shards.of(stage, "adapt", count, size=size, given=seen) as adapted,
    ):
        steps = [list(storage.each(storage.Seen, folders)) for folders in (seen, adapted)]
        stage.measured["seconds_an_image"] = experiment.seconds(steps[0])
        storage.write(folder, experiment.detected(model, part, experiment.in_order(*steps), chosen))


if __name__ == "__main__":
    run.stage(main)

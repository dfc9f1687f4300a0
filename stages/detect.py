"""Measures what detectors see of a cell's images, and attacks them with detectors in mind."""

from pathlib import Path

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.models.model import Model
from camdrift.pipeline import run, shards
from camdrift.trial import trial


def see(stage: run.Stage, places: slice) -> storage.Seen:
    """Returns what detectors see of some of the images that take part."""
    return trial.see(*trying(stage), places, key=stage.key, seed=stage.settings.seed)


def adapt(stage: run.Stage, places: slice, *seen: Path) -> storage.Seen:
    """Returns what detectors see of some of the test images, attacked with detectors in mind."""
    features = trial.in_order(list(storage.each(storage.Seen, seen)))
    return trial.adapt(
        *trying(stage), places, features,
        key=stage.key, seed=stage.settings.seed, quantise=stage.protocols[0].quantise,
    )  # fmt: skip


def trying(stage: run.Stage) -> tuple[Model, trial.Part, settings.DetectionSettings]:
    """Returns the model, the images that take part, and the settings."""
    chosen, model = stage.settings, loading.load(stage.cell.model, **stage.calling)
    of_cell = (model, stage.cell, stage.key, stage.protocols[0])
    part = trial.taking_part(*of_cell, chosen.detection, seed=chosen.seed)
    return model, part, chosen.detection


def main(stage: run.Stage) -> None:
    folder = storage.cell_folder(stage.cell.study, stage.key, "detect")
    if not stage.cell.detect:
        return storage.write(folder, trial.nothing())
    model, part, chosen = trying(stage)
    count, size = len(part.tested) * stage.cell.adaptive, model.micro_batch
    with (
        shards.of(stage, "see", len(part.images), size=size) as seen,
        shards.of(stage, "adapt", count, size=size, given=seen) as adapted,
    ):
        steps = [list(storage.each(storage.Seen, folders)) for folders in (seen, adapted)]
        stage.measured["seconds_an_image"] = trial.seconds(steps[0])
        storage.write(folder, trial.detected(model, part, trial.in_order(*steps), chosen))


if __name__ == "__main__":
    run.stage(main)

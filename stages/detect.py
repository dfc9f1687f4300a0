"""Measures what detectors see of a cell's images, and attacks them with detectors in mind."""

from pathlib import Path

import pandas as pd

from camdrift import artifacts, models, run, settings, shards, trial


def see(stage: run.Stage, places: slice) -> artifacts.Seen:
    """Returns what detectors see of some of the images that take part."""
    return trial.see(*trying(stage), places, key=stage.key, seed=stage.params["seed"])


def adapt(stage: run.Stage, places: slice, *seen: Path) -> artifacts.Seen:
    """Returns what detectors see of some of the test images, attacked with detectors in mind."""
    features = trial.in_order(list(artifacts.each(artifacts.Seen, seen)))
    return trial.adapt(
        *trying(stage), places, features,
        key=stage.key, seed=stage.params["seed"], quantise=stage.protocols[0].quantise,
    )  # fmt: skip


def trying(stage: run.Stage) -> tuple[models.Model, trial.Part, settings.DetectionSettings]:
    """Returns the model, the images that take part, and the settings."""
    cell, params = stage.cell, stage.params
    chosen = settings.DetectionSettings.model_validate(params["detection"])
    model = models.load(cell.model, **stage.calling)
    seed, protocol = params["seed"], stage.protocols[0]
    return model, trial.taking_part(model, cell, stage.key, protocol, chosen, seed=seed), chosen


def main(stage: run.Stage) -> None:
    folder = artifacts.cell_folder(stage.cell.study, stage.key, "detect")
    if not stage.cell.detect:
        return artifacts.write(folder, trial.nothing())
    model, part, chosen = trying(stage)
    count, size = len(part.tested) * stage.cell.adaptive, model.micro_batch
    with (
        shards.of(stage, "see", len(part.images), size=size) as seen,
        shards.of(stage, "adapt", count, size=size, given=seen) as adapted,
    ):
        steps = [list(artifacts.each(artifacts.Seen, folders)) for folders in (seen, adapted)]
        stage.measured["seconds_an_image"] = trial.seconds(steps[0])
        features = pd.concat([trial.in_order(s) for s in steps if s], ignore_index=True)
        artifacts.write(folder, trial.detected(model, part, features, chosen))


if __name__ == "__main__":
    run.stage(main)

"""Measures what detectors see of a cell's images, and attacks them with detectors in mind."""

from functools import partial

from camdrift import artifacts, models, run, settings, trial, variants


def main(stage: run.Stage) -> None:
    cell, seed = stage.cell, stage.params["seed"]
    chosen = settings.DetectionSettings.model_validate(stage.params["detection"])
    protocol = stage.protocols[0]
    choose = partial(trial.chosen, settings=chosen, seed=seed)
    attacked, made = variants.of_cell(cell, stage.key, [protocol], choose=choose)
    model = models.load(cell.model, micro_batch=stage.params["micro_batch"])

    found, seconds = trial.see(
        model, made, choose(attacked.images), cell, chosen,
        key=stage.key, seed=seed, quantise=protocol.quantise,
    )  # fmt: skip
    stage.measured["seconds_an_image"] = {name: round(took, 4) for name, took in seconds.items()}
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "detect"), found)


if __name__ == "__main__":
    run.stage(main)

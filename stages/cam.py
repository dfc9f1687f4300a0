"""Explains every variant of every attacked image, at every conv layer."""

import torch

from camdrift import artifacts, cams, models, run, settings, variants


def main(stage: run.Stage) -> None:
    cell = stage.cell
    chosen = settings.CamSettings.model_validate(stage.params["cams"])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    folders = (artifacts.cell_folder(cell.study, stage.key, part) for part in ("attack", "noise"))
    attacked = artifacts.read(artifacts.Attacked, next(folders))
    noise = artifacts.read(artifacts.Noise, next(folders))
    model = models.load(cell.model, stage.params)

    made = variants.of_images(images, attacked, noise)
    seed_classes = torch.tensor(attacked.images["clean"].to_numpy())
    likely_flipped = torch.tensor((~attacked.images["success"]).to_numpy()).argsort(stable=True)
    values, maxima, rows = cams.of_variants(model, made, seed_classes, likely_flipped)
    examples, pictures = variants.examples(attacked, made, count=chosen.examples)
    maps = artifacts.Maps(values, maxima, rows, cams.layer_table(model), pictures, examples)
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "cam"), maps)


if __name__ == "__main__":
    run.stage(main)

"""Finds, for each test image, which way each pixel value raises a source's loss."""

import torch

from camdrift import artifacts, gradients, models, run, settings
from camdrift.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    source = settings.Source.model_validate(params["sources"][key])
    name = source.generalisation
    plan = settings.Generalisation.model_validate(params["generalisations"][name])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(source.set))
    model = models.load(source.model, **stage.calling)

    rows = images.index[images.index["split"] == "test"].reset_index(names="image")
    pixels = from_8bit(images.pixels[rows["image"].to_numpy()])
    labels = torch.tensor(rows["label"].to_numpy())
    if plan.label == "predicted":
        with torch.no_grad():
            labels = model(pixels).argmax(1)
    gradient, _ = gradients.cross_entropy(model, pixels, labels)
    signs = artifacts.Signs(gradient.sign().to(torch.int8).numpy(), rows[["image", "id"]])
    artifacts.write(artifacts.generalisation_folder(name, "signs", key), signs)


if __name__ == "__main__":
    run.stage(main)

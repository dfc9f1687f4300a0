"""Computes the sign of the gradient of a source's loss for each test image."""

import torch

from camdrift import storage
from camdrift.attacks import fgsm
from camdrift.models import loading
from camdrift.pipeline import run
from camdrift.settings import TransferStudy
from camdrift.storage.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key, settings = stage.key, stage.settings
    source = settings.sources[key]
    name = source.study
    plan = settings.study(name, TransferStudy)
    images = storage.read(storage.ImageSet, storage.set_folder(source.set))
    model = loading.load(source.model, **stage.calling)

    rows = images.tests
    pixels = torch.from_numpy(from_8bit(images.pixels[rows["image"].to_numpy()]))
    labels = torch.tensor(rows["label"].to_numpy())
    if plan.label == "predicted":
        with torch.no_grad():
            labels = model(pixels).argmax(1)
    attack = fgsm.perturb(model, pixels, labels, generators=(), eps=1.0, gains=1, target=None)
    signs = storage.Signs(attack.pixels.to(torch.int8).numpy(), rows[["image", "id"]])
    storage.write(storage.end_folder(name, "signs", key), signs)


if __name__ == "__main__":
    run.stage(main)

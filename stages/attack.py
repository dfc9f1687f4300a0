"""Attacks every test image of a cell."""

import pandas as pd
import torch

from camdrift import attacks, storage
from camdrift.models import gradients, loading
from camdrift.perturbations import perturbation
from camdrift.pipeline import randomness, run, shards
from camdrift.storage.pixels import from_8bit


def shard(stage: run.Stage, places: slice) -> storage.Attacked:
    """Returns some of the test images under the attack."""
    cell, seed = stage.cell, stage.settings.seed
    images = storage.read(storage.ImageSet, storage.set_folder(cell.set))
    target, source = (loading.load(name, **stage.calling) for name in (cell.model, cell.source))
    rows = images.index[images.index["split"] == "test"].iloc[places]
    pixels = from_8bit(images.pixels[rows.index])
    set_labels = torch.tensor(rows["label"].to_numpy())
    with torch.no_grad():
        labels = set_labels if cell.label == "given" else source(pixels).argmax(1)
    generators = [randomness.generator(seed, "attack", stage.key, i) for i in rows["id"]]
    arguments = attacks.resolved(cell.attack, stage.settings.attacks, cell.override)
    perturb = attacks.perturbing(cell.attack)
    adversarials = perturb(source, pixels, labels, generators=generators, **arguments)
    table = rows[["id", "source", "label", "class_name"]].reset_index(names="image")
    table = pd.concat([table, perturbation.measure(target, pixels, adversarials)], axis=1)
    table["zero_gradient"] = gradients.vanish(source, pixels, labels).numpy()
    log = pd.DataFrame([row | {"image": rows.index[row["image"]]} for row in adversarials.log])
    last_step = (
        adversarials.pixels[:0] if adversarials.last_step is None else adversarials.last_step
    )
    return storage.Attacked(adversarials.pixels.numpy(), last_step.numpy(), table, log)


def main(stage: run.Stage) -> None:
    cell = stage.cell
    index = storage.read(storage.ImageSet, storage.set_folder(cell.set)).index
    count = int((index["split"] == "test").sum())
    # A sequential coverage table passes from each image to the next: all are one shard.
    arguments = attacks.resolved(cell.attack, stage.settings.attacks, cell.override)
    size = count if arguments.get("tables") == "sequential" else 4 * stage.settings.micro_batch
    with shards.of(stage, "shard", count, size=size) as parts:
        folder = storage.cell_folder(cell.study, stage.key, "attack")
        storage.join(folder, storage.each(storage.Attacked, parts))


if __name__ == "__main__":
    run.stage(main)

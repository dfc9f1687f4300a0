"""Attacks every test image of a cell."""

import pandas as pd
import torch

from camdrift import artifacts, gradients, models, perturbation, randomness, run, settings, shards
from camdrift.pixels import from_8bit


def shard(stage: run.Stage, places: slice) -> artifacts.Attacked:
    """Returns what the attack did to some of the test images."""
    cell, seed = stage.cell, stage.params["seed"]
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    target, source = (models.load(name, **stage.calling) for name in (cell.model, cell.source))
    rows = images.index[images.index["split"] == "test"].iloc[places]
    pixels = from_8bit(images.pixels[rows.index])
    given = torch.tensor(rows["label"].to_numpy())
    with torch.no_grad():
        labels = given if cell.label == "given" else source(pixels).argmax(1)
    generators = [randomness.generator(seed, "attack", stage.key, i) for i in rows["id"]]
    perturb = perturbation.attack(cell.attack)
    made = perturb(source, pixels, labels, generators=generators, **chosen(stage))
    table = rows[["id", "source", "label", "class_name"]].reset_index(names="image")
    table = pd.concat([table, perturbation.measure(target, pixels, made)], axis=1)
    table["zero_gradient"] = gradients.vanish(source, pixels, labels).numpy()
    log = pd.DataFrame([row | {"image": rows.index[row["image"]]} for row in made.log])
    last_step = made.pixels[:0] if made.last_step is None else made.last_step
    return artifacts.Attacked(made.pixels.numpy(), last_step.numpy(), table, log)


def chosen(stage: run.Stage) -> dict:
    """Returns the attack's settings."""
    attacks = settings.Attacks.model_validate(stage.params["attacks"])
    return attacks.of(stage.cell.attack, stage.cell.override)


def main(stage: run.Stage) -> None:
    cell = stage.cell
    index = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set)).index
    count = int((index["split"] == "test").sum())
    # A coverage table for all images is carried from one to the next: they are one shard.
    size = count if chosen(stage).get("tables") == "sequential" else 4 * stage.params["micro_batch"]
    with shards.of(stage, "shard", count, size=size) as parts:
        folder = artifacts.cell_folder(cell.study, stage.key, "attack")
        artifacts.join(folder, artifacts.each(artifacts.Attacked, parts))


if __name__ == "__main__":
    run.stage(main)

"""Attacks every test image of a cell."""

import pandas as pd
import torch

from camdrift import artifacts, gradients, models, perturbation, randomness, run, settings
from camdrift.pixels import from_8bit


def main(stage: run.Stage) -> None:
    cell, seed = stage.cell, stage.params["seed"]
    attacks = settings.Attacks.model_validate(stage.params["attacks"])
    chosen = attacks.of(cell.attack, cell.override)
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    names, batch = (cell.model, cell.source), stage.params["micro_batch"]
    target, source = (models.load(name, micro_batch=batch) for name in names)

    rows = images.index[images.index["split"] == "test"]
    pixels = from_8bit(images.pixels[rows.index])
    given = torch.tensor(rows["label"].to_numpy())
    with torch.no_grad():
        labels = given if cell.label == "given" else source(pixels).argmax(1)
    in_order = chosen.get("tables") == "sequential"
    made = perturbation.make(
        perturbation.attack(cell.attack),
        source,
        pixels,
        labels,
        generators=[randomness.generator(seed, "attack", stage.key, i) for i in rows["id"]],
        shard=len(pixels) if in_order else 4 * source.micro_batch,
        settings=chosen,
    )
    table = rows[["id", "source", "label", "class_name"]].reset_index(names="image")
    table = pd.concat([table, perturbation.measure(target, pixels, made)], axis=1)
    table["zero_gradient"] = gradients.vanish(source, pixels, labels).numpy()
    log = pd.DataFrame([row | {"image": rows.index[row["image"]]} for row in made.log])
    last_step = made.pixels[:0] if made.last_step is None else made.last_step
    attacked = artifacts.Attacked(made.pixels.numpy(), last_step.numpy(), table, log)
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "attack"), attacked)


if __name__ == "__main__":
    run.stage(main)

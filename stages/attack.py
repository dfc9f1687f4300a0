"""Attacks every test image of a cell."""

import pandas as pd
import torch

from camdrift import attacks, storage
from camdrift.models import gradients, loading
from camdrift.perturbations import limits, perturbation
from camdrift.pipeline import randomness, run, shards
from camdrift.storage.pixels import from_8bit


def shard(stage: run.Stage, places: slice) -> storage.Attacked:
    """Returns some of the test images under the attack."""
    cell, seed = stage.cell, stage.settings.seed
    images = storage.read(storage.ImageSet, storage.set_folder(cell.set))
    target, source = (loading.load(name, **stage.calling) for name in (cell.model, cell.source))
    tests = images.index[images.index["split"] == "test"]
    rows, later = tests.iloc[places], tests.index.append(tests.index)[len(tests) // 2 :][places]
    pixels, others = (torch.from_numpy(from_8bit(images.pixels[i])) for i in (rows.index, later))
    labels = torch.tensor(rows["label"].to_numpy())
    if cell.label == "predicted":
        labels = source(pixels).argmax(1)
    change, effect = perturbation.run(
        attacks.perturbing(cell.attack), source, target, pixels, labels,
        generators=[randomness.generator(seed, "attack", stage.key, i) for i in rows["id"]],
        settings=attacks.resolved(cell.attack, stage.settings.attacks, cell.override),
        limits=limits.within(cell, rows.index), others=others,
    )  # fmt: skip
    effect["zero_gradient"] = gradients.vanish(source, pixels, labels).numpy()
    table = rows[["id", "source", "label", "class_name"]].reset_index(names="image").join(effect)
    log = pd.DataFrame([row | {"image": rows.index[row["image"]]} for row in change.log])
    last_step = change.pixels[:0] if change.last_step is None else change.last_step
    return storage.Attacked(change.pixels.numpy(), last_step.numpy(), table, log)


def main(stage: run.Stage) -> None:
    cell = stage.cell
    index = storage.read(storage.ImageSet, storage.set_folder(cell.set)).index
    count = int((index["split"] == "test").sum())
    # A sequential coverage table passes from each image to the next: all are one shard.
    arguments = attacks.resolved(cell.attack, stage.settings.attacks, cell.override)
    size = count if arguments.get("tables") == "sequential" else 4 * stage.settings.micro_batch
    with shards.results(stage, "shard", count, size=size) as parts:
        folder = storage.cell_folder(cell.study, stage.key, "attack")
        storage.join(folder, storage.each(storage.Attacked, parts))


if __name__ == "__main__":
    run.stage(main)

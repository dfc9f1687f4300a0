"""Attacks the test images of a cell."""

import numpy as np
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
    drawn = randomness.sample(images.tests["id"], cell.images, seed, "trial")
    orders = drawn, np.roll(drawn, -(len(drawn) // 2))
    rows, later = (images.tests.iloc[order[places]].reset_index(drop=True) for order in orders)
    pixels, others = (torch.from_numpy(from_8bit(images.pixels[i["image"]])) for i in (rows, later))
    given = torch.tensor(rows["label"].to_numpy())
    labels = source(pixels).argmax(1) if cell.label == "predicted" else given
    change, effect = perturbation.run(
        attacks.perturbing(cell.attack), source, target, pixels, labels,
        generators=[randomness.generator(seed, "attack", stage.key, i) for i in rows["id"]],
        settings=attacks.resolved(cell.attack, stage.settings.attacks, cell.override),
        limits=limits.within(cell, rows["image"]), others=others,
    )  # fmt: skip
    effect["zero_gradient"] = gradients.vanish(source, pixels, labels).numpy()
    table = rows[["image", "id", "source", "label", "class_name"]].join(effect)
    log = pd.DataFrame([row | {"image": rows["image"][row["image"]]} for row in change.log])
    last_step = change.pixels[:0] if change.last_step is None else change.last_step
    return storage.Attacked(change.pixels.numpy(), last_step.numpy(), table, log)


def main(stage: run.Stage) -> None:
    cell = stage.cell
    count = len(storage.read(storage.ImageSet, storage.set_folder(cell.set)).tests[: cell.images])
    # A sequential coverage table passes from each image to the next: all are one shard.
    arguments = attacks.resolved(cell.attack, stage.settings.attacks, cell.override)
    size = count if arguments.get("tables") == "sequential" else 4 * stage.settings.micro_batch
    with shards.results(stage, "shard", count, size=size) as parts:
        folder = storage.cell_folder(cell.study, stage.key, "attack")
        storage.join(folder, storage.each(storage.Attacked, parts))


if __name__ == "__main__":
    run.stage(main)

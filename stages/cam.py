"""Explains every variant of every attacked image, at every conv layer."""

import numpy as np

from camdrift import storage
from camdrift.explain import packing
from camdrift.models import loading
from camdrift.perturbations import variants
from camdrift.pipeline import run, shards


def shard(stage: run.Stage, places: slice) -> storage.Packed:
    """Returns the maps of some of the images."""
    attacked, made = variants.of_cell(stage.cell, stage.key, stage.protocols, places)
    model = loading.load(stage.cell.model, **stage.calling)
    facts = attacked.images.set_index("image")
    chosen = stage.settings.cams
    return packing.of_variants(
        model, made, facts["clean"], facts["success"],
        methods=chosen.methods, max_side=chosen.max_side,
    )  # fmt: skip


def main(stage: run.Stage) -> None:
    cell, batch = stage.cell, stage.settings.micro_batch
    chosen = stage.settings.cams
    folder = storage.cell_folder(cell.study, stage.key, "attack")
    images = storage.read(storage.Attacked, folder).images
    some = np.sort(variants.shown(images, count=chosen.examples))
    looks = variants.of_cell(cell, stage.key, stage.protocols, some)
    examples, pictures = variants.examples(*looks, count=chosen.examples)
    model = loading.load(cell.model, **stage.calling)
    layers = packing.layer_table(model, max_side=chosen.max_side)
    with shards.of(stage, "shard", len(images), size=batch) as parts:
        storage.join(
            storage.cell_folder(cell.study, stage.key, "cam"),
            packing.end_to_end(storage.each(storage.Packed, parts)),
            layers=layers, pictures=pictures, examples=examples,
        )  # fmt: skip


if __name__ == "__main__":
    run.stage(main)

"""Explains every variant of every attacked image, at every conv layer."""

import numpy as np

from camdrift import storage
from camdrift.explain import packing
from camdrift.models import loading
from camdrift.perturbations import variants
from camdrift.pipeline import run, shards


def shard(stage: run.Stage, places: slice) -> storage.Packed:
    """Returns the maps of some of the images."""
    attacked, changes = variants.read(stage.cell, stage.key, stage.protocols, places)
    model = loading.load(stage.cell.model, **stage.calling)
    facts = attacked.images.set_index("image")
    settings = stage.settings.cams
    return packing.explain(
        model, changes, facts["clean"], facts["success"],
        methods=settings.methods, max_side=settings.max_side,
    )  # fmt: skip


def main(stage: run.Stage) -> None:
    cell, batch = stage.cell, stage.settings.micro_batch
    settings = stage.settings.cams
    folder = storage.cell_folder(cell.study, stage.key, "attack")
    images = storage.read(storage.Attacked, folder).images
    places = np.sort(variants.shown(images, count=settings.examples))
    looks = variants.read(cell, stage.key, stage.protocols, places)
    examples, pictures = variants.examples(*looks, count=settings.examples)
    model = loading.load(cell.model, **stage.calling)
    layers = packing.layer_table(model, max_side=settings.max_side)
    with shards.results(stage, "shard", len(images), size=batch) as parts:
        storage.join(
            storage.cell_folder(cell.study, stage.key, "cam"),
            packing.end_to_end(storage.each(storage.Packed, parts)),
            layers=layers, pictures=pictures, examples=examples,
        )  # fmt: skip


if __name__ == "__main__":
    run.stage(main)

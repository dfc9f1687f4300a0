"""Explains every variant of every attacked image, at every conv layer."""

import numpy as np

from camdrift import artifacts, models, packing, run, settings, shards, variants


def shard(stage: run.Stage, places: slice) -> artifacts.Packed:
    """Returns the maps of some of the images."""
    attacked, made = variants.of_cell(stage.cell, stage.key, stage.protocols, places)
    model = models.load(stage.cell.model, **stage.calling)
    facts = attacked.images.set_index("image")
    chosen = settings.CamSettings.model_validate(stage.params["cams"])
    return packing.of_variants(
        model, made, facts["clean"], facts["success"],
        methods=chosen.methods, max_side=chosen.max_side,
    )  # fmt: skip


def main(stage: run.Stage) -> None:
    cell, batch = stage.cell, stage.params["micro_batch"]
    chosen = settings.CamSettings.model_validate(stage.params["cams"])
    folder = artifacts.cell_folder(cell.study, stage.key, "attack")
    images = artifacts.read(artifacts.Attacked, folder).images
    some = np.sort(variants.shown(images, count=chosen.examples))
    looks = variants.of_cell(cell, stage.key, stage.protocols, some)
    examples, pictures = variants.examples(*looks, count=chosen.examples)
    model = models.load(cell.model, **stage.calling)
    layers = packing.layer_table(model, max_side=chosen.max_side)
    with shards.of(stage, "shard", len(images), size=batch) as parts:
        artifacts.join(
            artifacts.cell_folder(cell.study, stage.key, "cam"),
            packing.end_to_end(artifacts.each(artifacts.Packed, parts)),
            layers=layers, pictures=pictures, examples=examples,
        )  # fmt: skip


if __name__ == "__main__":
    run.stage(main)

"""Draws the noise and the controls of each perturbation; counts the neurons that images cover."""

import numpy as np
import pandas as pd
import torch

from camdrift import storage
from camdrift.models import coverage, loading
from camdrift.perturbations import noise, variants
from camdrift.pipeline import run, shards


def match(stage: run.Stage, places: slice) -> storage.Noise:
    """Returns the noise and the controls of some of the images."""
    cell, settings = stage.cell, stage.settings
    images = storage.read(storage.ImageSet, storage.set_folder(cell.set))
    folder = storage.cell_folder(cell.study, stage.key, "attack")
    attacked = storage.read(storage.Attacked, folder).only(places)
    model = loading.load(cell.model, **stage.calling)
    return noise.match(
        model, images, attacked, cell, stage.protocols, settings.noise,
        key=stage.key, seed=settings.seed,
    )  # fmt: skip


def cover(stage: run.Stage, places: slice) -> storage.Covered:
    """Returns the neurons that some of the images cover, clean, attacked and with noise."""
    settings = stage.settings.coverage
    _, changes = variants.read(stage.cell, stage.key, stage.protocols[:1], places)
    model = loading.load(stage.cell.model, **stage.calling)
    arms = (storage.CLEAN, storage.ADVERSARIAL, storage.NOISE)
    first = [item for item in changes if item.name in arms and (item.table["draw"] == 0).all()]
    bits = [
        coverage.covered(model, torch.from_numpy(v.pixels()), threshold=settings.threshold)
        for v in first
    ]
    packed = np.concatenate([np.packbits(part, axis=1) for part in bits])
    rows = pd.concat([variant.table for variant in first], ignore_index=True)
    return storage.Covered(packed, rows, coverage.counts(model))


def main(stage: run.Stage) -> None:
    size = 4 * stage.settings.micro_batch
    shards.by_image(stage, "match", storage.Noise, "noise", size=size)
    shards.by_image(stage, "cover", storage.Covered, "coverage", size=size)


if __name__ == "__main__":
    run.stage(main)

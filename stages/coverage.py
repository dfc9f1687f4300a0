"""Counts the neurons that every attacked image covers, clean, attacked and with noise."""

import numpy as np
import pandas as pd
import torch

from camdrift import storage
from camdrift.models import coverage, loading
from camdrift.perturbations import variants
from camdrift.pipeline import run, shards


def shard(stage: run.Stage, places: slice) -> storage.Covered:
    """Returns the neurons that some of the images cover."""
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
    shards.by_image(stage, storage.Covered, size=4 * stage.settings.micro_batch)


if __name__ == "__main__":
    run.stage(main)

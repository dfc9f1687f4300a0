"""Draws the noise that each perturbation is compared with."""

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from camdrift import artifacts, noise, randomness, run, settings, variants


def main(stage: run.Stage) -> None:
    cell, seed = stage.cell, stage.params["seed"]
    chosen = settings.NoiseSettings.model_validate(stage.params["noise"])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    folder = artifacts.cell_folder(cell.study, stage.key, "attack")
    attacked = artifacts.read(artifacts.Attacked, folder)
    clean = variants.pixels(images.pixels[attacked.images["image"]])
    change = torch.from_numpy(attacked.perturbation.copy())

    bases, tables = [], []
    for draw in tqdm(range(chosen.draws), desc="noise", unit="draw"):
        names = attacked.images["id"]
        generators = [randomness.generator(seed, "noise", stage.key, i, draw) for i in names]
        base = noise.gaussian(change, generators)
        scales = noise.matched(clean, change, base, cell.ladder, scaling=chosen.scaling)
        scales["row"] = attacked.images["image"].to_numpy()[scales["row"]]
        bases.append(base.numpy())
        tables.append(scales.rename(columns={"row": "image"}).assign(draw=draw))
    made = artifacts.Noise(np.stack(bases, axis=1), pd.concat(tables, ignore_index=True))
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "noise"), made)


if __name__ == "__main__":
    run.stage(main)

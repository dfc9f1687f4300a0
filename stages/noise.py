"""Draws the noise that each perturbation is compared with, and turns the perturbation about."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from camdrift import artifacts, changes, models, noise, randomness, run, settings
from camdrift.pixels import from_8bit


def main(stage: run.Stage) -> None:
    cell, seed = stage.cell, stage.params["seed"]
    chosen = settings.NoiseSettings.model_validate(stage.params["noise"])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(cell.set))
    folder = artifacts.cell_folder(cell.study, stage.key, "attack")
    attacked = artifacts.read(artifacts.Attacked, folder)
    rows, names = attacked.images["image"].to_numpy(), attacked.images["id"]
    clean, sizes = (
        from_8bit(images.pixels[rows]),
        torch.from_numpy(attacked.images["l2"].to_numpy(copy=True)),
    )
    whole, last = (torch.from_numpy(a.copy()) for a in (attacked.perturbation, attacked.last_step))
    model = models.load(cell.model, micro_batch=stage.params["micro_batch"])

    def generators(*key: int | str) -> list[np.random.Generator]:
        return [randomness.generator(seed, *key, stage.key, name) for name in names]

    draws = [noise.draw(clean.shape[1:], generators("noise", i)) for i in range(chosen.draws)]
    recipes = {protocol.recipe: protocol for protocol in stage.protocols}
    fit = partial(noise.fit, clean, whole, last, draws, cell.ladder, scaling=chosen.scaling)
    scales = pd.concat([fit(protocol=p) for p in recipes.values()], ignore_index=True)
    controls = [noise.control(k, clean, whole, generators("control", k)) for k in noise.CONTROLS]
    by, to, base = chosen.raise_by, chosen.raise_to, changes.like(whole, draws[0])
    raised = noise.raised(model, clean, base, sizes, raise_by=by, raise_to=to)
    made = artifacts.Noise(
        torch.stack(draws, dim=1).numpy(),
        torch.stack(controls, dim=1).numpy(),
        pd.DataFrame({"kind": list(noise.CONTROLS)}),
        scales.assign(image=rows[scales.pop("row")]),
        raised.assign(image=rows),
    )
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "noise"), made)


if __name__ == "__main__":
    run.stage(main)

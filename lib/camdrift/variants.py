"""The variants of an image: clean, attacked and noisy at each strength."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from camdrift.artifacts import Attacked, ImageSet, Noise

CLEAN, ADVERSARIAL, NOISE = "clean", "adversarial", "noise"


def pixels(images: np.ndarray) -> Tensor:
    """Returns uint8 images (n, h, w, 3) as float32 pixels (n, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255)


def to_8bit(values: Tensor) -> np.ndarray:
    """Returns pixels as uint8 images (n, h, w, 3), rounded to the nearest level."""
    levels = values.mul(255).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


def of_images(
    images: ImageSet, attacked: Attacked, noise: Noise
) -> list[tuple[pd.DataFrame, Tensor]]:
    """Returns each variant's table (`image, variant, strength, draw`) and pixels (n, 3, h, w).

    `strength` is the multiple of the attack's perturbation; noise at a strength has been scaled to
    its size. `draw` is 0 for what is not noise.
    """
    chosen = attacked.images["image"].to_numpy()
    clean = pixels(images.pixels[chosen])
    change = torch.from_numpy(attacked.perturbation.copy())
    rungs: Sequence[float] = sorted(noise.scales["strength"].unique())
    variants = [_variant(chosen, CLEAN, 0.0, 0, clean)]
    for strength in rungs:
        values = (clean + strength * change).clamp(0, 1)
        variants.append(_variant(chosen, ADVERSARIAL, strength, 0, values))
        for draw in range(noise.base.shape[1]):
            scales = noise.scales.query("strength == @strength and draw == @draw")
            factor = torch.tensor(scales["scale"].to_numpy()).float().view(-1, 1, 1, 1)
            base = torch.from_numpy(noise.base[:, draw].copy())
            variants.append(
                _variant(chosen, NOISE, strength, draw, (clean + factor * base).clamp(0, 1))
            )
    return variants


def _variant(
    chosen: np.ndarray, name: str, strength: float, draw: int, values: Tensor
) -> tuple[pd.DataFrame, Tensor]:
    table = pd.DataFrame({"image": chosen})
    table["variant"], table["strength"], table["draw"] = name, float(strength), draw
    return table, values


def examples(
    attacked: Attacked, made: list[tuple[pd.DataFrame, Tensor]], *, count: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns pictures to look at: of the first `count` successes, clean and all of draw 0.

    Where there are fewer successes, other images follow. The table has a row a picture
    (`image, variant, strength`), pictures are uint8 (images, variants, h, w, 3).
    """
    order = np.argsort(~attacked.images["success"].to_numpy(), kind="stable")[:count]
    shown = [(table, values) for table, values in made if (table["draw"] == 0).all()]
    pictures = np.stack([to_8bit(values[order]) for _, values in shown], axis=1)
    rows = [table.iloc[order][["image", "variant", "strength"]] for table, _ in shown]
    table = pd.concat(rows)
    place = {image: i for i, image in enumerate(attacked.images["image"].to_numpy()[order])}
    table = table.sort_values("image", key=lambda column: column.map(place), kind="stable")
    return table.reset_index(drop=True), pictures

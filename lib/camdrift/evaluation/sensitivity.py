"""Sensitivity of layers: which layer's maps drift furthest, on the calibration images.

tan2023, section IV-B: behaviour deviation reads the layer that is most sensitive to attack and to
noise, block5_conv1 in the paper's VGG-16. Similarities are normalised by their floor, that of
unrelated images, since coarse maps are alike whatever they show.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from camdrift.explain.methods import grad_cam
from camdrift.models.logits import top_logit
from camdrift.models.model import Model
from camdrift.models.tensors import Pixels

MOST = 100  # images
EMPTY = 0.1  # the largest share of pairs with an empty map, as for claims on layers


def select(images: pd.DataFrame) -> pd.DataFrame:
    """Returns the calibration images that take part, those that the attack flips first.

    `images` are as `experiment.select_images` returns them.
    """
    rows = images[images["split"] == "calibrate"]
    order = np.argsort(~rows["success"].to_numpy(), kind="stable")[:MOST]
    return rows.iloc[np.sort(order)]


def measure(
    model: Model, clean: Pixels, attacked: Pixels, noisy: Pixels, images: pd.DataFrame
) -> pd.DataFrame:
    """Returns the similarity of images' Grad-CAMs to those of the clean images: a row a layer.

    Under attack and noise it is the mean over the images that the attack flips (all if it flips
    none), and for the floor the mean over all pairs of clean images of different sources. Each map
    explains its own top class. Pairs with an empty map are left out.

    Args:
        model: the model under attack.
        clean: the images.
        attacked: the same under the attack.
        noisy: the same under noise of its size.
        images: a row for each: `source, success`.

    Returns:
        Columns: `place` (from 1), `layer` (its label), `raw_attack, raw_noise, floor`, similarities
        c; `normalised_attack` and `normalised_noise`, (c - floor) / (1 - floor); `empty`, the
        larger share of pairs that are left out; `rank`, 1 for the most sensitive layer, and
        `raw_rank`, of similarities that are not normalised, see `ranked`.
    """
    arms = [unit_maps(model, pixels) for pixels in (clean, attacked, noisy)]
    source = pd.factorize(images["source"])[0]
    unrelated = np.triu(source[:, None] != source)
    flipped = images["success"].to_numpy()
    flipped = flipped if flipped.any() else np.ones(len(images), dtype=bool)
    rows = []
    for i, (base, *changed) in enumerate(zip(*arms, strict=True)):
        cosines = [(base * other).sum(1).numpy()[flipped] for other in changed]
        pairs = (base @ base.T).numpy()[unrelated]
        attack, noise, floor = (_mean(values) for values in (*cosines, pairs))
        normalised = [(mean - floor) / (1 - floor) for mean in (attack, noise)]
        empty = max(np.isnan(values).mean() for values in cosines)
        rows.append((i + 1, model.maps[i].label, attack, noise, floor, *normalised, empty))
    return ranked(pd.DataFrame(rows, columns=COLUMNS))


def unknown(model: Model) -> pd.DataFrame:
    """Returns what `measure` returns, without values: there is no calibration image."""
    labels = [point.label for point in model.maps]
    places = pd.DataFrame({"place": np.arange(len(labels)) + 1, "layer": labels})
    return ranked(places.reindex(columns=COLUMNS).astype({name: float for name in COLUMNS[2:]}))


COLUMNS = ["place", "layer", "raw_attack", "raw_noise", "floor", "normalised_attack",
           "normalised_noise", "empty"]  # fmt: skip


def unit_maps(model: Model, pixels: Pixels) -> list[Tensor]:
    """Returns the Grad-CAMs of images, flat and of norm 1, NaN if empty: (n, h * w) a layer."""
    parts = []
    for batch, rows in model.batches(pixels):
        logits, activations = model.probes(batch)
        gradients = torch.autograd.grad(top_logit(logits).sum(), activations)
        pairs = zip(activations, gradients, strict=True)
        maps = [grad_cam.maps(a.detach(), g)[:rows].flatten(1).double().cpu() for a, g in pairs]
        parts.append([heat / heat.norm(dim=1, keepdim=True) for heat in maps])
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def ranked(layers: pd.DataFrame) -> pd.DataFrame:
    """Returns layers with the columns `rank` and `raw_rank`, see `measure`.

    The most sensitive layer has the lowest sum of its ranks under attack and under noise, and among
    equals the lowest mean similarity. A mean alone would be that of the attack where the floor is
    close to 1: there a difference of .01 is many times the range above the floor.

    Layers with too many empty maps have no rank; if all have, those with the fewest have ranks.
    """
    fit = layers["empty"] <= max(EMPTY, layers["empty"].min())
    ranks = {}
    for name, prefix in (("rank", "normalised_"), ("raw_rank", "raw_")):
        arms = layers.loc[fit, [f"{prefix}attack", f"{prefix}noise"]].dropna()
        order = pd.DataFrame({"sum": arms.rank().sum(axis=1), "mean": arms.mean(axis=1)})
        places = order.sort_values(["sum", "mean"], kind="stable").index
        ranks[name] = pd.Series(np.arange(1.0, len(places) + 1), places).reindex(layers.index)
    return layers.assign(**ranks)


def most_sensitive(layers: pd.DataFrame) -> int:
    """Returns the place of the layer of rank 1; the last layer where no layer has a rank."""
    ranks = layers["rank"]
    return int(layers["place"].iloc[-1 if ranks.isna().all() else int(ranks.argmin())])


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

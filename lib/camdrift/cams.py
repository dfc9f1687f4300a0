"""Class-activation maps: raw, of every conv layer, from one forward and one backward a class."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.models import Model

OWN, SEED = "own_top1", "seed_class"

Layers = tuple[Tensor, ...]  # one tensor (n, h, w) a layer, in forward order


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns relu(sum over channels of the mean gradient times the activation): (n, h, w).

    Selvaraju et al. 2017, equations 1 and 2, not normalised. Both arguments are (n, c, h, w).
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1).relu()


def explain(
    model: Model, batch: Tensor, seed_classes: Tensor
) -> tuple[Tensor, Layers, Layers | None]:
    """Returns the logits of one micro-batch and its maps for the own top class and the seed's.

    One forward; one backward a target class, to the tapped activations only: no gradient of a
    weight or of the pixels is computed. Where no image's top class differs from its seed's, the
    second backward is left out and the last result is None.
    """
    # The pixels ask for gradients so that the activations have a graph; their own is never taken.
    logits, activations = model.activations(batch.detach().requires_grad_())
    own = logits.argmax(1)

    def maps(classes: Tensor, *, last: bool) -> Layers:
        score = logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, activations, retain_graph=not last)
        return tuple(grad_cam(a.detach(), g) for a, g in zip(activations, gradients, strict=True))

    both = bool((own != seed_classes).any())
    first = maps(own, last=not both)
    return logits.detach(), first, maps(seed_classes, last=True) if both else None


def pack(maps: Layers) -> tuple[np.ndarray, np.ndarray]:
    """Returns maps as float16 shares of their maxima (n, total), and float32 maxima (n, layers).

    Raises:
        FloatingPointError: a map is not finite.
    """
    flat = [layer.flatten(1) for layer in maps]
    maxima = torch.stack([layer.amax(1) for layer in flat], dim=1)
    if not torch.isfinite(maxima).all():
        raise FloatingPointError("a map is not finite: the model's weights or logits overflow")
    shares = [layer / maxima[:, i : i + 1].clamp_min(1e-30) for i, layer in enumerate(flat)]
    return torch.cat(shares, dim=1).half().numpy(), maxima.numpy()


def of_variants(
    model: Model,
    variants: list[tuple[pd.DataFrame, Tensor]],
    seed_classes: Tensor,
    order: Tensor,
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Returns packed maps, their maxima, and a row for each (image, variant, target).

    Args:
        model: the model to explain.
        variants: table and pixels of each variant, as `variants.of_images` gives them.
        seed_classes: the model's prediction on each clean image.
        order: in which the images of a variant are batched. It changes no result; with those
            likely to flip together, fewer micro-batches need the second backward.
    """
    values, maxima, tables = [], [], []
    filled = 0
    for table, pixels in tqdm(variants, desc="maps", unit="variant"):
        count = len(table)
        own_map, seed_map = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        predictions = np.empty(count, dtype=np.int64)
        probabilities = np.empty(count, dtype=np.float32)
        done = 0
        for batch, rows in model.batches(pixels[order]):
            places = order[done : done + rows]
            done += rows
            padded = places[torch.arange(len(batch)).clamp_max(rows - 1)]
            logits, own, seed = explain(model, batch, seed_classes[padded])
            top = logits[:rows].argmax(1)
            flipped = top != seed_classes[places]
            at = places.numpy()
            packed = [pack(tuple(layer[:rows] for layer in own))]
            own_map[at] = seed_map[at] = filled + np.arange(rows)
            if seed is not None and bool(flipped.any()):
                packed.append(pack(tuple(layer[:rows][flipped] for layer in seed)))
                extra = int(flipped.sum())
                seed_map[at[flipped.numpy()]] = filled + rows + np.arange(extra)
            for shares, tops in packed:
                values.append(shares)
                maxima.append(tops)
                filled += len(shares)
            predictions[at] = top
            probabilities[at] = logits[:rows].softmax(1).amax(1)
        for target, maps, classes in (
            (OWN, own_map, predictions),
            (SEED, seed_map, seed_classes.numpy()),
        ):
            tables.append(
                table.assign(
                    target=target,
                    map=maps,
                    target_class=classes,
                    prediction=predictions,
                    probability=probabilities,
                )
            )
    return np.concatenate(values), np.concatenate(maxima), pd.concat(tables, ignore_index=True)


def layer_table(model: Model) -> pd.DataFrame:
    """Returns a row a layer, in forward order: `name, label, height, width, start, rectified`."""
    with torch.no_grad():
        _, activations = model.activations(torch.zeros(1, 3, model.size, model.size))
    rows, start = [], 0
    for tap, tensor in zip(model.maps, activations, strict=True):
        height, width = tensor.shape[-2:]
        rows.append((tap.name, tap.label, height, width, start, tap.rectified))
        start += height * width
    return pd.DataFrame(rows, columns=["name", "label", "height", "width", "start", "rectified"])

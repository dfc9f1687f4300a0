"""Class-activation maps: raw, of every conv layer, from one forward and one backward a class."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.artifacts import OWN, SEED, SOFTMAX
from camdrift.models import Model
from camdrift.variants import Variant

Layers = tuple[Tensor, ...]  # one tensor (n, h, w) a layer, in forward order


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns relu(sum over channels of the mean gradient times the activation): (n, h, w).

    Selvaraju et al. 2017, equations 1 and 2, not normalised. Both arguments are (n, c, h, w).
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1).relu()


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns Grad-CAM++ before its ReLU, not normalised: (n, h, w).

    Chattopadhay et al. 2018, equations 10 and 19, in the stable form alpha = 1 / (2 + g sum(A)).
    Only positive gradients carry weight, so that the denominator is never below 2. Both arguments
    are (n, c, h, w), the activations rectified.
    """
    positive = gradients.relu()
    sums = activations.sum(dim=(2, 3), keepdim=True)
    weights = (positive / (2 + sums * positive)).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns LayerCAM before its ReLU, not normalised: (n, h, w).

    Jiang et al. 2021, equations 5 and 6. Both arguments are (n, c, h, w).
    """
    return (gradients.relu() * activations).sum(dim=1)


def noise_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns NoiseCAM as tan2023 prints it, equations 9-16, not normalised: (n, h, w).

    With rectified activations it is what Grad-CAM++ has beyond LayerCAM. Both arguments are
    (n, c, h, w).
    """
    return (grad_cam_plus_plus(activations, gradients) - layer_cam(activations, gradients)).relu()


def noise_cam_of_code(activations: Tensor, gradients: Tensor, scores: Tensor) -> Tensor:
    """Returns NoiseCAM before its last normalisation, as the public code has it: (n, h, w).

    tan2023's code does what the paper does not print: alpha is divided by its sum over space, and
    the gradient under alpha is that of exp(score).

    Args:
        activations: (n, c, h, w), A.
        gradients: (n, c, h, w), g, of the score by A.
        scores: (n,), of the class that is explained; zeros leave the exponential out.
    """
    weight, shares = scores.exp().view(-1, 1, 1, 1), _code_alpha(activations, gradients, scores)
    spread = (weight * gradients).relu().mul(shares).sum(dim=(2, 3), keepdim=True)
    return ((spread - gradients.relu()) * activations).sum(dim=1).relu()


def _code_alpha(activations: Tensor, gradients: Tensor, scores: Tensor) -> Tensor:
    """Returns Grad-CAM++'s alpha as NoiseCAM's code has it: each channel adds up to 1, or is 0."""
    weight = scores.exp().view(-1, 1, 1, 1)
    second, third = weight * gradients**2, weight * gradients**3
    denominator = 2 * second + activations.sum(dim=(2, 3), keepdim=True) * third
    alpha = second / torch.where(second == 0, 1.0, denominator)
    total = alpha.sum(dim=(2, 3), keepdim=True)
    return alpha / torch.where(total == 0, 1.0, total)


def explain(
    model: Model,
    batch: Tensor,
    seed_classes: Tensor,
    *,
    targets: Sequence[str] = (OWN, SEED),
    softmax: bool = False,
) -> tuple[Tensor, Layers | None, Layers | None]:
    """Returns the logits of one micro-batch and its maps for the own top class and the seed's.

    Maps explain the logit of the class or, with `softmax`, its probability. One forward; one
    backward a target class, to the tapped activations only: no gradient of a weight or of the
    pixels is computed. Maps that no target asks for are None, and so are the seed's where no
    image's top class differs from its seed's: they are those of the own class.
    """
    # The pixels ask for gradients so that the activations have a graph; their own is never taken.
    logits, activations = model.activations(batch.detach().requires_grad_())
    own = logits.argmax(1)
    outputs = logits.softmax(1) if softmax else logits

    def maps(classes: Tensor, *, last: bool) -> Layers:
        score = outputs.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, activations, retain_graph=not last)
        return tuple(grad_cam(a.detach(), g) for a, g in zip(activations, gradients, strict=True))

    differ = bool((own != seed_classes).any())
    second = SEED in targets and differ
    first = maps(own, last=not second) if OWN in targets or not differ else None
    return logits.detach(), first, maps(seed_classes, last=True) if second else None


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
    variants: list[Variant],
    seed_classes: Mapping[int, int],
    likely_flipped: Mapping[int, bool],
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Returns packed maps, their maxima, and a row for each (image, variant, target).

    Pixels that occur in several variants of an image, as protocols and controls bring, are
    explained once.

    Args:
        model: the model to explain.
        variants: as `variants.of_images` gives them.
        seed_classes: the model's prediction on the clean image, by image.
        likely_flipped: a guess, by image. It changes no result; batched with their like, fewer
            micro-batches need the second backward.
    """
    values, maxima, tables = [], [], []
    filled = 0
    # (image, softmax, digest of its pixels) -> map for the own class and for the seed's (-1: not
    # made), prediction, probability
    known: dict[tuple[int, bool, bytes], tuple[int, int, int, float]] = {}

    def keep(maps: Layers | None, rows: list[int]) -> Iterator[int]:
        """Stores the maps of some rows of a micro-batch and yields their places."""
        nonlocal filled
        if rows and maps is not None:
            shares, tops = pack(tuple(layer[rows] for layer in maps))
            values.append(shares)
            maxima.append(tops)
        yield from range(filled, filled + len(rows))
        filled += len(rows)

    for variant in tqdm(variants, desc="maps", unit="variant"):
        images, pixels = variant.table["image"].to_numpy(), variant.pixels()
        softmax = variant.name == SOFTMAX
        keys = [
            (image, softmax, hashlib.blake2b(pixel.numpy().tobytes(), digest_size=16).digest())
            for image, pixel in zip(images, pixels, strict=True)
        ]
        wanted = [(OWN, SEED).index(target) for target in variant.targets]
        new = [
            i for i, key in enumerate(keys)
            if key not in known or any(known[key][which] < 0 for which in wanted)
        ]  # fmt: skip
        new.sort(key=lambda i: not likely_flipped[images[i]])
        seeds = torch.tensor([int(seed_classes[image]) for image in images])
        for start in range(0, len(new), model.micro_batch):
            places = new[start : start + model.micro_batch]
            ((batch, rows),) = model.batches(pixels[places])
            padded = places + places[-1:] * (len(batch) - rows)
            logits, own, seed = explain(
                model, batch, seeds[padded], targets=variant.targets, softmax=softmax
            )
            top, chances = logits[:rows].argmax(1), logits[:rows].softmax(1).amax(1)
            flipped = (top != seeds[places]).tolist()
            # A seed map of an image that did not flip is that of its own class.
            shared = own if own is not None else seed
            mine = [k for k in range(rows) if OWN in variant.targets or not flipped[k]]
            others = [k for k in range(rows) if SEED in variant.targets and flipped[k]]
            own_maps = dict(zip(mine, keep(shared, mine), strict=True))
            seed_maps = dict(zip(others, keep(seed, others), strict=True))
            for k, place in enumerate(places):
                own_map = own_maps.get(k, -1)
                seed_map = seed_maps.get(k, -1) if flipped[k] else own_map
                known[keys[place]] = own_map, seed_map, int(top[k]), float(chances[k])
        columns = [OWN, SEED, "prediction", "probability"]
        facts = pd.DataFrame([known[key] for key in keys], columns=columns)
        facts["probability"] = facts["probability"].astype(np.float32)
        table = pd.concat([variant.table, facts[["prediction", "probability"]]], axis=1)
        classes = {OWN: facts["prediction"], SEED: seeds.numpy()}
        for target in variant.targets:
            tables.append(
                table.assign(target=target, map=facts[target], target_class=classes[target])
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

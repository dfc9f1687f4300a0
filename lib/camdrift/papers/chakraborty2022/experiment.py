"""Transfer: what attacks that were made on some networks do to another, its classes and its maps.

chakraborty2022, sections 2.2 and 4: one sign of the gradient an image, scaled to each eps.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from camdrift.explain import cam, packing
from camdrift.explain.cam import GRAD_CAM
from camdrift.models.folding import Folded
from camdrift.models.model import Model, padded
from camdrift.models.tensors import Labels, Pixels
from camdrift.papers.chakraborty2022.attacks import Attacks
from camdrift.pipeline import randomness
from camdrift.scores import comparison, nissim, psnr, resizing
from camdrift.settings import RANGES, TransferStudy
from camdrift.settings.section import sides, size_of
from camdrift.storage import (
    MADE_ON,
    OWN_ATTACK,
    POLICIES,
    TRANSFERRED,
    TRANSFERRED_NOISE,
    Transferred,
)
from camdrift.storage.pixels import to_8bit

Met = tuple[np.ndarray, np.ndarray]  # of each image under an attack: the class, and the PSNR


def examples(rows: pd.DataFrame, plan: TransferStudy, *, seed: int) -> list[int]:
    """Returns a draw of images whose maps are kept; rows have their `image` and `id`."""
    drawn = {row.image: randomness.entropy(seed, "example", row.id) for row in rows.itertuples()}
    return sorted(drawn, key=drawn.__getitem__)[: plan.examples]


def transfer(
    model: Model,
    attacks: Attacks,
    images: pd.DataFrame,
    plan: TransferStudy,
    *,
    shown: Sequence[int],
    explained: bool,
) -> Transferred:
    """Returns what attacks do to a model; `joined` adds pairs of unrelated images.

    Args:
        model: the target.
        attacks: on its images.
        images: a row an image, `image, id, source, label, class_name` among its columns.
        plan: of the study.
        shown: those whose maps are kept, and perhaps other images, as they stand in the set.
        explained: whether maps are compared, too; else there is no variant.
    """
    labels = torch.tensor(images["label"].to_numpy())
    part = RANGES[plan.ranges[0]]
    steps = [(kind, eps) for kind in attacks.explained for eps in plan.eps if explained]
    steps += [(kind, plan.eps[-1]) for kind in attacks.controlled if explained]
    layers = packing.layer_table(model)
    places = np.flatnonzero(images["image"].isin(shown)).tolist() if explained else []
    pixels = [(kind, part * eps) for kind, eps in steps]
    far, last, values, pictures, met, clean = _compared(
        model, attacks, labels, pixels, layers, places
    )
    known = dict(zip([(OWN_ATTACK, 0.0), *steps], met, strict=False))
    order = list(range(len(steps)))
    if attacks.own == attacks.transferred:  # the same images under both names
        same = [i for i, (kind, _) in enumerate(steps) if kind == TRANSFERRED]
        steps = [(OWN_ATTACK, steps[i][1]) for i in same] + steps
        order = same + order
        known |= {steps[k]: known[TRANSFERRED, steps[k][1]] for k in range(len(same))}
    variants = [0, *(1 + i for i in order)]
    return Transferred(
        images[["image", "id", "source", "label", "class_name"]],
        _outcomes(model, attacks, images, plan, known),
        pd.DataFrame(steps, columns=["attack", "eps"]),
        far[:, order],
        last[:, order],
        np.full((len(images), len(POLICIES), 2), np.nan, dtype=np.float32),
        clean,
        layers,
        values[:, variants],
        pictures[:, variants],
        images.iloc[places][["image", "class_name"]].reset_index(drop=True),
        _facts(model),
    )


def joined(
    parts: Sequence[Transferred],
    signs: Mapping[str, Tensor],
    plan: TransferStudy,
    *,
    unrelated: int,
    seed: int,
) -> Transferred:
    """Returns the effect of attacks on all images, from that on some at a time.

    Args:
        parts: in the order of the images.
        signs: of each source, by its network, of all images.
        plan: of the study.
        unrelated: the number of unrelated images with which each is compared.
        seed: of the draws of unrelated images and of examples.
    """
    first = parts[0]
    images = pd.concat([part.images for part in parts], ignore_index=True)
    outcomes = pd.concat([part.outcomes for part in parts], ignore_index=True)
    trials = outcomes.groupby(["attack", "range", "eps"], sort=False).ngroup()
    shown = pd.concat([part.shown for part in parts], ignore_index=True)
    places = {image: place for place, image in enumerate(shown["image"])}
    drawn = examples(images, plan, seed=seed)
    order = [places[image] for image in drawn if image in places]
    partners = comparison.unrelated_partners(images, count=unrelated, seed=seed)
    clean = np.concatenate([part.clean for part in parts])
    return Transferred(
        images,
        outcomes.loc[trials.sort_values(kind="stable").index].reset_index(drop=True),
        first.variants,
        np.concatenate([part.shifts for part in parts]),
        np.concatenate([part.last for part in parts]),
        _unrelated(clean, images["image"], partners, size=sides(first.facts["size"])),
        clean,
        first.layers,
        np.concatenate([part.values for part in parts])[order],
        np.concatenate([part.pictures for part in parts])[order],
        shown.iloc[order].reset_index(drop=True),
        first.facts | {"zero_gradients": _zero_gradients(signs)},
    )


def _compared(
    model: Model,
    attacks: Attacks,
    labels: Labels,
    steps: list[tuple[str, float]],
    layers: pd.DataFrame,
    shown: list[int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[Met], np.ndarray]:
    """Returns `shifts`, `last`, `values` and `pictures` of `Transferred`, and each variant's `Met`.

    And the clean images' maps of the last layer, (n, policies, h, w). `steps` are attacks and eps
    of pixels in [0, 1]; without any, nothing is explained, and no `Met` and no maps are returned.
    """
    n, count, policies = len(labels), len(steps), len(POLICIES)
    total = int((layers["height"] * layers["width"]).sum())
    far = np.empty((n, count, policies, len(layers)), dtype=np.float32)
    last = np.empty((n, count, policies, 2), dtype=np.float32)
    values = np.empty((len(shown), 1 + count, policies, total), dtype=np.float16)
    channels, height, width = attacks.pixels.shape[1:]
    pictures = np.empty((len(shown), 1 + count, height, width, channels), dtype=np.uint8)
    tops, ratios = np.empty((1 + count, n), dtype=np.int64), np.empty((1 + count, n))
    clean = [np.empty((0, policies, 1, 1), dtype=np.float32)]
    for start in tqdm(range(0, n if count else 0, model.micro_batch), desc="maps", unit="batch"):
        rows = slice(start, start + model.micro_batch)
        variants = [attacks.pixels[rows], *(attacks.at(kind, eps, rows) for kind, eps in steps)]
        explanations = [_maps(model, pixels, labels[rows]) for pixels in variants]
        tops[:, rows] = [top for top, _ in explanations]
        ratios[:, rows] = [psnr.ratio(variants[0].numpy(), each.numpy()) for each in variants]
        by_variant = (maps for _, maps in explanations)
        stacks = [np.stack(maps) for maps in zip(*by_variant, strict=True)]
        for i, stack in enumerate(stacks):  # (1 + variants, policies, images, h, w)
            far[rows, ..., i] = np.where(_empty(stack), np.nan, _shifts(stack))
        clean = clean[start == 0 :] + [np.moveaxis(stacks[-1][0], 0, 1)]
        blank = _shifts(stacks[-1], size=model.sides)
        last[rows] = np.stack([np.where(_empty(stacks[-1]), np.nan, blank), blank], axis=-1)
        for place, image in enumerate(shown):
            if rows.start <= image < rows.stop:
                own = [stack[:, :, image - start] for stack in stacks]
                flat = [maps.reshape(1 + count, policies, -1) for maps in own]
                values[place] = np.concatenate(flat, axis=2)
                pictures[place] = to_8bit(torch.stack([p[image - start] for p in variants]).numpy())
    met = list(zip(tops, ratios, strict=True)) if count else []
    return far, last, values, pictures, met, np.concatenate(clean)


def _zero_gradients(signs: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the share of images without a gradient, by source."""
    return {
        name: float((~sign.flatten(1).any(dim=1)).double().mean()) for name, sign in signs.items()
    }


def _facts(model: Model) -> dict:
    convs = [module for module in model.network.modules() if isinstance(module, nn.Conv2d)]
    read = [module for module in model.network.modules() if not isinstance(module, Folded)]
    return {
        "size": size_of(*model.sides),
        "convs": len(convs),
        "channels": round(float(np.mean([conv.out_channels for conv in convs])), 1),
        "parameters": sum(p.numel() for module in read for p in module.parameters(recurse=False)),
    }


def _maps(model: Model, pixels: Pixels, labels: Labels) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the top class of at most a micro-batch of images, and each layer's maps.

    Maps are float32 (policies, n, h, w), each divided by its maximum.
    """
    ((batch, rows),) = model.batches(pixels)
    logits, own_maps, label_maps = cam.explain(model, batch, padded(labels, len(batch)))
    assert own_maps is not None  # asked for
    pairs = zip((label_maps or own_maps)[GRAD_CAM], own_maps[GRAD_CAM], strict=True)
    layers = [torch.stack(pair)[:, :rows] for pair in pairs]  # in the order of POLICIES
    tops = [layer.amax((2, 3), keepdim=True) for layer in layers]
    shares = [
        (layer / torch.where(top > 0, top, 1)).numpy()
        for layer, top in zip(layers, tops, strict=True)
    ]
    return logits[:rows].argmax(1).numpy(), shares


def _empty(stack: np.ndarray) -> np.ndarray:
    """Returns whether one of two maps is empty: bool, as `_shifts`."""
    empty = stack.max(axis=(3, 4)) == 0
    return np.moveaxis(empty[:1] | empty[1:], 2, 0)


def _shifts(stack: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns NISSIM of each variant's maps against the clean ones: (images, variants, policies).

    An empty map is compared as it is.

    Args:
        stack: (1 + variants, policies, images, h, w), the clean maps first.
        size: height and width of the maps when they are compared, None for their own.
    """
    flat = stack.reshape(-1, *stack.shape[3:])
    place = np.arange(len(flat)).reshape(stack.shape[:3])
    second = place[1:].ravel()
    first = np.broadcast_to(place[:1], place[1:].shape).ravel()
    shifts = _by_pair(flat, first, second, size=size)
    return np.moveaxis(shifts.reshape(place[1:].shape), 2, 0)


def _by_pair(
    maps: np.ndarray, first: np.ndarray, second: np.ndarray, *, size: tuple[int, int] | None
) -> np.ndarray:
    """Returns NISSIM of pairs of maps at a size, None for their own."""

    def shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if size is not None:
            a, b = (resizing.enlarged(maps, size=size) for maps in (a, b))
        return nissim.shift(a, b)

    return comparison.score_by_chunk(shift, maps, first, second, values=math.prod(size or (0,)))


def _unrelated(
    maps: np.ndarray, images: pd.Series, partners: pd.DataFrame, *, size: tuple[int, int]
) -> np.ndarray:
    """Returns `Transferred.unrelated`, of clean maps (n, policies, h, w), NaN without maps."""
    n, policies = len(images), maps.shape[1]
    shape = (n, policies, 2)
    if not len(maps) or not partners.shape[1]:
        return np.full(shape, np.nan, dtype=np.float32)
    place = pd.Series(range(n), index=images)
    others = place.loc[partners.loc[images].to_numpy().ravel()].to_numpy()
    mine = np.repeat(np.arange(n), partners.shape[1])
    shifts = np.empty(shape, dtype=np.float32)
    for k, own in enumerate(np.moveaxis(maps, 1, 0)):
        blank = _by_pair(own, mine, others, size=size)
        empty = own.max(axis=(1, 2)) == 0
        each = np.where(empty[mine] | empty[others], np.nan, blank)
        known = ~np.isnan(each.reshape(n, -1))
        total = np.where(known, each.reshape(n, -1), 0).sum(1)
        shifts[:, k, 0] = np.where(known.any(1), total / known.sum(1).clip(1), np.nan)
        shifts[:, k, 1] = blank.reshape(n, -1).mean(1)
    return shifts


def _outcomes(
    model: Model,
    attacks: Attacks,
    images: pd.DataFrame,
    plan: TransferStudy,
    known: dict[tuple[str, float], Met],
) -> pd.DataFrame:
    """Returns predictions and PSNR of every attack at every eps, see `Transferred`.

    `known` are those of images that were explained, by attack and eps.
    """
    named = [OWN_ATTACK] if attacks.own else []
    others = [MADE_ON + n for n in attacks.signs if n not in (attacks.own, attacks.transferred)]
    trials = [(OWN_ATTACK, plan.ranges[0], 0.0)]
    for i, of in enumerate(plan.ranges):
        more = [] if i else [TRANSFERRED_NOISE, *others]
        every = [*named, TRANSFERRED, *more]
        trials += [(kind, of, eps) for kind in every for eps in plan.eps]
    tables = []
    trials += [(kind, plan.ranges[0], plan.eps[-1]) for kind in attacks.controlled]
    for kind, of, eps in tqdm(trials, desc="classes", unit="attack"):
        met = known.get((kind, eps)) if of == plan.ranges[0] else None
        rounds = eps and of == plan.ranges[0] and kind in (OWN_ATTACK, TRANSFERRED)
        if rounds or met is None:
            pixels = attacks.at(kind, RANGES[of] * eps) if eps else attacks.pixels
        if met is None:
            with torch.no_grad():
                top = model(pixels).argmax(1).numpy()
            met = top, psnr.ratio(attacks.pixels.numpy(), pixels.numpy())
        top, ratio = met
        facts = {"image": images["image"], "attack": kind, "range": of, "eps": eps}
        facts |= {"prediction": top, "prediction_8bit": np.nan}
        if rounds:
            with torch.no_grad():
                facts["prediction_8bit"] = model(pixels.mul(255).round().div(255)).argmax(1).numpy()
        facts["psnr"] = np.where(np.isinf(ratio), np.nan, ratio)
        tables.append(pd.DataFrame(facts))
    return pd.concat(tables, ignore_index=True)

"""Packed maps: of every variant of a cell's images, each once, at half precision."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from camdrift import cams
from camdrift.artifacts import OWN, SEED, SOFTMAX
from camdrift.cams import Layers, Maps
from camdrift.models import Model
from camdrift.variants import Variant

Pixels = tuple[int, bool, bytes]


def pack(maps: Layers) -> tuple[np.ndarray, np.ndarray]:
    """Returns maps as float16 shares of their maxima (n, total), and float32 maxima (n, layers)."""
    flat = [layer.flatten(1) for layer in maps]
    maxima = torch.stack([layer.amax(1) for layer in flat], dim=1)
    shares = [layer / maxima[:, i : i + 1].clamp_min(1e-30) for i, layer in enumerate(flat)]
    return torch.cat(shares, dim=1).half().numpy(), maxima.numpy()


def of_variants(
    model: Model,
    variants: list[Variant],
    seed_classes: Mapping[int, int],
    likely_flipped: Mapping[int, bool],
    *,
    methods: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Returns packed maps, their maxima, and a row for each (method, image, variant, target).

    Pixels that occur in several variants of an image, as protocols and controls bring, are
    explained once.

    Args:
        model: the model to explain.
        variants: as `variants.of_images` gives them.
        seed_classes: the model's prediction on the clean image, by image.
        likely_flipped: a guess, by image. It changes no result; batched with their like, fewer
            micro-batches need the second backward.
        methods: of the maps; those after the first of central variants alone.
    """
    packed: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in methods}
    filled = dict.fromkeys(methods, 0)
    tables = []
    # (image, softmax, digest of its pixels) -> prediction, probability; and with a method -> place
    # among its maps of that for the own class and of that for the seed's, -1: not made.
    known: dict[Pixels, tuple[int, float]] = {}
    places: dict[tuple[Pixels, str], tuple[int, int]] = {}

    def keep(maps: Maps | None, name: str, rows: list[int]) -> Iterator[int]:
        """Stores a method's maps of some rows of a micro-batch and yields their places."""
        if rows and maps is not None:
            packed[name].append(pack(tuple(layer[rows] for layer in maps[name])))
        yield from range(filled[name], filled[name] + len(rows))
        filled[name] += len(rows)

    for variant in tqdm(variants, desc="maps", unit="variant"):
        images, pixels = variant.table["image"].to_numpy(), variant.pixels()
        softmax = variant.name == SOFTMAX
        names = methods if variant.central else methods[:1]
        keys = [
            (image, softmax, hashlib.blake2b(pixel.numpy().tobytes(), digest_size=16).digest())
            for image, pixel in zip(images, pixels, strict=True)
        ]
        wanted = [(OWN, SEED).index(target) for target in variant.targets]
        new = [
            i for i, key in enumerate(keys)
            if any(places.get((key, n), (-1, -1))[which] < 0 for n in names for which in wanted)
        ]  # fmt: skip
        new.sort(key=lambda i: not likely_flipped[images[i]])
        seeds = torch.tensor([int(seed_classes[image]) for image in images])
        for start in range(0, len(new), model.micro_batch):
            part = new[start : start + model.micro_batch]
            ((batch, rows),) = model.batches(pixels[part])
            padded = part + part[-1:] * (len(batch) - rows)
            logits, own, seed = cams.explain(
                model, batch, seeds[padded], targets=variant.targets, softmax=softmax, names=names
            )
            top, chances = logits[:rows].argmax(1), logits[:rows].softmax(1).amax(1)
            flipped = (top != seeds[part]).tolist()
            # A seed map of an image that did not flip is that of its own class.
            shared = own if own is not None else seed
            mine = [k for k in range(rows) if OWN in variant.targets or not flipped[k]]
            others = [k for k in range(rows) if SEED in variant.targets and flipped[k]]
            known |= {keys[i]: (int(top[k]), float(chances[k])) for k, i in enumerate(part)}
            for name in names:
                own_maps = dict(zip(mine, keep(shared, name, mine), strict=True))
                seed_maps = dict(zip(others, keep(seed, name, others), strict=True))
                for k, i in enumerate(part):
                    own_map = own_maps.get(k, -1)
                    places[keys[i], name] = (
                        own_map, seed_maps.get(k, -1) if flipped[k] else own_map
                    )  # fmt: skip
        facts = pd.DataFrame([known[key] for key in keys], columns=["prediction", "probability"])
        table = pd.concat([variant.table, facts.astype({"probability": np.float32})], axis=1)
        classes = {OWN: facts["prediction"], SEED: seeds.numpy()}
        for name in names:
            found = pd.DataFrame([places[key, name] for key in keys], columns=[OWN, SEED])
            for target in variant.targets:
                of = {"target": target, "target_class": classes[target], "map": found[target]}
                tables.append(table.assign(method=name, **of))
    rows = pd.concat(tables, ignore_index=True)
    before = dict(zip(methods, np.cumsum([0, *filled.values()]), strict=False))
    rows["map"] += rows["method"].map(before)
    # Method after method, so that the rows of one stand together.
    rows = rows.iloc[np.argsort(rows["method"].map(methods.index), kind="stable")]
    values, maxima = (
        np.concatenate([pair[i] for pairs in packed.values() for pair in pairs]) for i in (0, 1)
    )
    return values, maxima, rows.reset_index(drop=True)


def layer_table(model: Model) -> pd.DataFrame:
    """Returns a row a layer, in forward order: `name, label, height, width, start, rectified`."""
    with torch.no_grad():
        _, activations = model.probes(torch.zeros(1, 3, model.size, model.size))
    rows, start = [], 0
    for tap, tensor in zip(model.maps, activations, strict=True):
        height, width = tensor.shape[-2:]
        rows.append((tap.name, tap.label, height, width, start, tap.rectified))
        start += height * width
    return pd.DataFrame(rows, columns=["name", "label", "height", "width", "start", "rectified"])

"""Packed maps: all variants of a cell's images, each map once, at half precision."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from camdrift.explain import cam
from camdrift.explain.cam import Layers, Maps
from camdrift.models.model import Model, padded
from camdrift.perturbations.variants import Variant
from camdrift.storage import CLEAN, NOISE, OWN, SEED, SOFTMAX, Packed

Key = tuple[int, bool, bytes]  # image, whether its probability is explained, digest of pixels


class _Kind(NamedTuple):
    """The common properties of the images in a micro-batch."""

    targets: tuple[str, ...]
    softmax: bool
    methods: tuple[str, ...]
    likely_flipped: bool

    def covers(self, targets: Sequence[str], methods: Sequence[str]) -> bool:
        """Returns whether the kind includes all maps of these targets and methods."""
        return set(targets) <= set(self.targets) and set(methods) <= set(self.methods)


def pack(maps: Layers) -> tuple[np.ndarray, np.ndarray]:
    """Returns maps as float16 shares of their maxima (n, total), and float32 maxima (n, layers)."""
    flat = [layer.flatten(1) for layer in maps]
    maxima = torch.stack([layer.amax(1) for layer in flat], dim=1)
    shares = [layer / maxima[:, i : i + 1].clamp_min(1e-30) for i, layer in enumerate(flat)]
    return torch.cat(shares, dim=1).half().numpy(), maxima.numpy()


def shrunk(maps: Layers, side: int | None) -> Layers:
    """Returns maps averaged down to at most `side` px a side, unchanged for None."""
    if side is None:
        return maps
    return tuple(
        adaptive_avg_pool2d(layer, (min(side, layer.shape[-2]), min(side, layer.shape[-1])))
        for layer in maps
    )


def explain(
    model: Model,
    variants: list[Variant],
    seed_classes: pd.Series | Mapping[int, int],
    likely_flipped: pd.Series | Mapping[int, bool],
    *,
    methods: Sequence[str],
    max_side: int | None = None,
) -> Packed:
    """Returns packed maps, their maxima, and a row for each (method, image, variant, target).

    Pixels that occur in several variants of an image, because of protocols or controls, are
    explained once.

    Args:
        model: the model to explain.
        variants: as `variants.compose` returns them.
        seed_classes: the model's prediction on the clean image, by image.
        likely_flipped: by image, whether the attack is likely to have changed its class. It changes
            no result; likely flips share micro-batches, so fewer of these need a second backward.
        methods: of the maps; those after the first explain central variants alone.
        max_side: of the stored maps, in px, see `shrunk`.
    """
    packer = _Packer(model, methods, max_side)
    tables = []
    for variant in variants:
        images, pixels = variant.table["image"].to_numpy(), variant.pixels()
        softmax, names = variant.name == SOFTMAX, methods if variant.central else methods[:1]
        attack = variant.name not in (CLEAN, SOFTMAX, NOISE)
        keys = []
        for image, pixel in zip(images, pixels, strict=True):
            content = hashlib.blake2b(pixel.tobytes(), digest_size=16).digest()
            keys.append((int(image), softmax, content))
            likely = attack and bool(likely_flipped[image])
            kind = _Kind(variant.targets, softmax, tuple(names), likely)
            packer.request(keys[-1], torch.from_numpy(pixel), int(seed_classes[image]), kind)
        tables.append((variant, names, keys))
    packer.finish()
    parts = []
    for variant, names, keys in tables:
        facts = pd.DataFrame(
            [packer.predictions[k] for k in keys], columns=["prediction", "probability"]
        )
        table = pd.concat([variant.table, facts.astype({"probability": np.float32})], axis=1)
        seeds = variant.table["image"].map(lambda image: int(seed_classes[image]))
        classes = {OWN: facts["prediction"], SEED: seeds}
        for name in names:
            places = pd.DataFrame([packer.places[key, name] for key in keys], columns=[OWN, SEED])
            for target in variant.targets:
                of = {"target": target, "target_class": classes[target], "map": places[target]}
                parts.append(table.assign(method=name, **of))
    rows = pd.concat(parts, ignore_index=True)
    filled = [0, *packer.filled.values()]
    rows["map"] += rows["method"].map(dict(zip(methods, np.cumsum(filled), strict=False)))
    # Method after method, so that the rows of each are contiguous.
    rows = rows.iloc[np.argsort(rows["method"].map(methods.index), kind="stable")]
    values, maxima = (
        np.concatenate([pair[i] for pairs in packer.packed.values() for pair in pairs])
        for i in (0, 1)
    )
    return Packed(values, maxima, rows.reset_index(drop=True))


def end_to_end(parts: Iterable[Packed]) -> Iterator[Packed]:
    """Yields the parts with `map` counted through the maps of all parts."""
    before = 0
    for part in parts:
        yield replace(part, rows=part.rows.assign(map=part.rows["map"] + before))
        before += len(part.values)


class _Packer:
    """Explains images of any variants as soon as a micro-batch of them waits."""

    def __init__(self, model: Model, methods: Sequence[str], max_side: int | None) -> None:
        self.model = model
        self.max_side = max_side
        self.packed: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {n: [] for n in methods}
        self.filled = dict.fromkeys(methods, 0)
        # The prediction and its probability; and by method the places, among its maps, of the map
        # for the own class and the map for the seed's, -1 if there is none.
        self.predictions: dict[Key, tuple[int, float]] = {}
        self.places: dict[tuple[Key, str], tuple[int, int]] = {}
        self.waiting: dict[_Kind, list[tuple[Key, Tensor, int]]] = {}
        self.kind_of: dict[Key, _Kind] = {}  # of the waiting images

    def request(self, key: Key, pixels: Tensor, seed: int, kind: _Kind) -> None:
        """Requests the maps of an image that neither exist nor wait yet."""
        before = self.kind_of.get(key)
        if before is not None:
            if before.covers(kind.targets, kind.methods):
                return
            self._explain(before)
        columns = [(OWN, SEED).index(target) for target in kind.targets]
        pairs = [self.places.get((key, name), (-1, -1)) for name in kind.methods]
        if all(places[which] >= 0 for places in pairs for which in columns):
            return
        self.waiting.setdefault(kind, []).append((key, pixels, seed))
        self.kind_of[key] = kind
        if len(self.waiting[kind]) == self.model.micro_batch:
            self._explain(kind)

    def finish(self) -> None:
        """Explains the images that still wait."""
        for kind in list(self.waiting):
            self._explain(kind)

    def _explain(self, kind: _Kind) -> None:
        part = self.waiting.pop(kind)
        ((batch, rows),) = self.model.batches(torch.stack([pixels for _, pixels, _ in part]))
        seeds = torch.tensor([seed for *_, seed in part])
        logits, own, seed = cam.explain(
            self.model, batch, padded(seeds, len(batch)),
            targets=kind.targets, softmax=kind.softmax, names=kind.methods,
        )  # fmt: skip
        top, chances = logits[:rows].argmax(1), logits[:rows].softmax(1).amax(1)
        flipped = (top != seeds).tolist()
        # If an image did not flip, its seed map is the map of its own class.
        shared = own if own is not None else seed
        mine = [k for k in range(rows) if OWN in kind.targets or not flipped[k]]
        others = [k for k in range(rows) if SEED in kind.targets and flipped[k]]
        for k, (key, _, _) in enumerate(part):
            self.predictions[key] = (int(top[k]), float(chances[k]))
            del self.kind_of[key]
        for name in kind.methods:
            own_maps = dict(zip(mine, self._keep(shared, name, mine), strict=True))
            seed_maps = dict(zip(others, self._keep(seed, name, others), strict=True))
            for k, (key, _, _) in enumerate(part):
                # Maps that another variant of the same pixels has required keep their places.
                before = self.places.get((key, name), (-1, -1))
                own_map = own_maps.get(k, before[0])
                seed_map = seed_maps.get(k, before[1]) if flipped[k] else own_map
                self.places[key, name] = (own_map, seed_map)

    def _keep(self, maps: Maps | None, name: str, rows: list[int]) -> range:
        """Stores a method's maps of some rows of a micro-batch and returns their places."""
        if rows and maps is not None:
            layers = tuple(layer[rows] for layer in maps[name])
            self.packed[name].append(pack(shrunk(layers, self.max_side)))
        first = self.filled[name]
        self.filled[name] += len(rows)
        return range(first, self.filled[name])


def layer_table(model: Model, *, max_side: int | None = None) -> pd.DataFrame:
    """Returns a row a layer, in forward order.

    Columns: `name, label, height, width, start`, `rectified` (of an activation's output), `tokens`
    (of a transformer's or mixer's block) and `summed` (of a sum, as at a residual branch's end).
    Heights and widths are those of stored maps, see `shrunk`.
    """
    with torch.no_grad():
        _, activations = model.probes(torch.zeros(1, *model.shape))
    rows, start = [], 0
    for point, tensor in zip(model.maps, activations, strict=True):
        height, width = (min(side, max_side or side) for side in tensor.shape[-2:])
        is_block = point.grid is not None
        facts = (point.rectified, is_block, point.summed)
        rows.append((point.name, point.label, height, width, start, *facts))
        start += height * width
    columns = ["name", "label", "height", "width", "start", "rectified", "tokens", "summed"]
    return pd.DataFrame(rows, columns=columns)

"""Comparison of changed maps with the clean map of the same image and layer, pair by pair.

Maps are stacks (n, h, w), each divided by its own maximum; an empty map is all zeros.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from camdrift.pipeline import randomness
from camdrift.scores import by_name
from camdrift.settings import Protocol
from camdrift.storage import (
    ADVERSARIAL,
    CLEAN,
    NOISE,
    NOTHING,
    OWN,
    SEED,
    SOFTMAX,
    UNRELATED,
    Maps,
    Similarities,
)

CHUNK = 1 << 17  # values of a stack of maps that are scored at a time


def unrelated_partners(
    images: pd.DataFrame, places: slice = slice(None), *, count: int, seed: int
) -> pd.DataFrame:
    """Returns `count` images of other sources for each image at some places, a row for each image.

    The index and the columns hold the numbers in `image`. Partners are drawn with replacement,
    seeded by (seed, id). With a single source there are none.
    """
    numbers, sources = images["image"].to_numpy(), images["source"].to_numpy()
    partners: dict[int, list[int]] = {}
    for row in images.iloc[places].itertuples():
        others = numbers[sources != row.source]
        rng = randomness.generator(seed, "unrelated", row.id)
        partners[row.image] = list(rng.choice(others, count)) if len(others) else []
    return pd.DataFrame.from_dict(partners, orient="index")


def part(maps: Maps, images: pd.Index, others: np.ndarray) -> Maps:
    """Returns all maps of some images, and the clean maps of the images they are paired with."""
    rows = maps.rows
    clean = rows["variant"].isin([CLEAN, SOFTMAX]) & (rows["target"] == OWN)
    rows = rows[rows["image"].isin(images) | (clean & rows["image"].isin(others))]
    numbers, place = np.unique(rows["map"], return_inverse=True)
    renumbered = rows.assign(map=place.reshape(-1))
    return replace(maps, values=maps.values[numbers], maxima=maps.maxima[numbers], rows=renumbered)


def _pairs(
    rows: pd.DataFrame,
    protocol: Protocol,
    targets: Sequence[str],
    partners: pd.DataFrame,
    *,
    first: bool,
    second_draw: bool,
) -> pd.DataFrame:
    """Returns the pairs that a protocol compares: keys, `map` and the clean map `origin`.

    `rows` are of maps of one method.
    """
    variants = list(rows["variant"].unique()) if first else [ADVERSARIAL, NOISE]
    own = rows[rows["target"] == OWN]
    rows = rows[rows["target"].isin(targets)]
    clean = own[own["variant"] == CLEAN].set_index("image")["map"]
    original = SOFTMAX if protocol.score == "softmax_for_originals" else CLEAN
    origin = own[own["variant"] == original].set_index("image")["map"]
    changed = rows[(rows["recipe"] == protocol.recipe) & rows["variant"].isin(variants)]
    if not first and not second_draw:
        changed = changed[changed["draw"] == 0]
    parts = [changed.assign(origin=origin.loc[changed["image"]].to_numpy())]
    images = partners.index.to_numpy()
    for target in targets:
        own_maps = origin.loc[images].to_numpy()
        keys = {"image": images, "strength": 0.0, "target": target, "origin": own_maps}
        same = {"variant": NOTHING, "draw": 0, "map": clean.loc[images].to_numpy()}
        parts.append(pd.DataFrame(keys | same))
        for draw, others in enumerate(partners.to_numpy().T):
            other = {"variant": UNRELATED, "draw": draw, "map": origin.loc[others].to_numpy()}
            parts.append(pd.DataFrame(keys | other))
    columns = ["image", "variant", "strength", "draw", "target", "map", "origin"]
    return pd.concat([part[columns] for part in parts], ignore_index=True)


def _layers(maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
    for layer in maps.layers.itertuples():
        columns = slice(layer.start, layer.start + layer.height * layer.width)
        stack = np.ascontiguousarray(maps.values[:, columns], dtype=np.float32)
        yield str(layer.label), stack.reshape(-1, layer.height, layer.width)


def drift(
    maps: Maps,
    protocols: Sequence[Protocol],
    partners: pd.DataFrame,
    *,
    size: int | Sequence[int],
    beside: Sequence[str],
) -> pd.DataFrame:
    """Returns every score of every changed map against the clean map of its image.

    The clean map is that of the clean image's own top class, which is the seed's class: both
    target policies share it. The first protocol is scored in full, by the cosine and the scores
    beside it for both target policies, the others by their own similarity for their own target;
    methods after the first by cosine, for both policies, under the first protocol. Two variants
    only pair existing maps: 'nothing' compares the clean image with itself, 'unrelated' with clean
    images of other sources.

    Args:
        maps: of one cell; of images that are not scored, the clean ones alone.
        protocols: of the cell.
        partners: the images to score, each with its unrelated images, see `unrelated_partners`.
        size: of the images in px, a side, or height and width.
        beside: names of the further scores of the first protocol's maps.

    Returns:
        A row for each (reading, method, image, variant, strength, draw, target, layer, score) with
        `value`, NaN where it is not defined. Protocols that differ in target or threshold alone
        share their reading.
    """
    readings: dict[str, tuple[Protocol, list[str]]] = {}
    for i, protocol in enumerate(protocols):
        _, targets = readings.setdefault(protocol.reading, (protocol, []))
        policies = [OWN, SEED] if i == 0 else [protocol.target]
        targets += [target for target in policies if target not in targets]
    # A held-out threshold may judge the draw that set the others'; the rest require a second one.
    two_draws = {p.reading for p in protocols if p.threshold != "held_out_quantile"}
    pair_rows = {
        reading: _pairs(
            maps.select(),
            protocol,
            targets,
            partners,
            first=i == 0,
            second_draw=reading in two_draws,
        )
        for i, (reading, (protocol, targets)) in enumerate(readings.items())
    }
    # The cosine decides; the other scores are for figures: attack and first noise alone.
    jobs = []
    main_method, *others = maps.methods
    for i, (reading, rows) in enumerate(pair_rows.items()):
        jet = readings[reading][0].similarity == "jet_rgb"
        function = "jet_cosine" if jet else "cosine"
        jobs.append((reading, main_method, "cosine", function, rows))
        if i == 0:
            arms = rows["variant"].isin([ADVERSARIAL, NOISE]) & (rows["draw"] == 0)
            jobs += [(reading, main_method, name, name, rows[arms]) for name in beside]
            for method in others:
                method_rows = _pairs(
                    maps.select(method), protocols[0], (OWN, SEED), partners, first=False,
                    second_draw=False,
                )  # fmt: skip
                jobs.append((reading, method, "cosine", function, method_rows))
    # Each distinct pair of maps is scored once.
    keys = [rows[["origin", "map"]].to_numpy() for *_, rows in jobs]
    pairs = [np.unique(key, axis=0, return_inverse=True) for key in keys]
    tables = []
    for label, stack in _layers(maps):
        for (reading, method, score, function, rows), (pair, place) in zip(
            jobs, pairs, strict=True
        ):
            values = score_pairs(function, stack, *pair.T, size=size)
            facts = {"reading": reading, "method": method, "layer": label, "score": score}
            value = values.astype(np.float32)[place.reshape(-1)]
            tables.append(rows.drop(columns=["map", "origin"]).assign(**facts, value=value))
    table = pd.concat(tables, ignore_index=True)
    names = ["reading", "variant", "target", "method", "layer", "score"]
    return table.astype({name: "category" for name in names})


def at_full_strength(scores: pd.DataFrame, images: pd.DataFrame) -> Similarities:
    """Returns the cosine of a cell's maps, first method, at strength 1; see `Similarities`.

    Args:
        scores: as `drift` returns them.
        images: of the cell, as of `Attacked`.
    """
    arms = scores["variant"].isin([ADVERSARIAL, NOISE]) & (scores["strength"] == 1)
    rows = (arms & (scores["draw"] == 0)) | (scores["variant"] == UNRELATED)
    rows &= (scores["method"] == scores["method"].iloc[0]) & (scores["score"] == "cosine")
    columns = ["reading", "target", "layer", "variant", "image", "value"]
    return Similarities(scores.loc[rows, columns], images[["image", "source", "success"]])


def score_pairs(
    name: str,
    stack: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    size: int | Sequence[int],
) -> np.ndarray:
    """Returns a score of pairs of maps: (pairs,).

    Args:
        name: of the score.
        stack: maps (n, h, w).
        first: places in the stack, as `second`.
        second: (pairs,).
        size: of the images in px, a side, or height and width.
    """
    module = by_name()[name]
    if hasattr(module, "score_places"):
        return module.score_places(stack, first, second, size=size)
    return score_by_chunk(partial(module.score, size=size), stack, first, second)


def score_by_chunk(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    stack: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    values: int = 0,
) -> np.ndarray:
    """Returns a score of pairs of maps, in chunks that fit a processor's cache.

    `values` is the number of values that the score computes for a map, if larger than the map.
    """
    size = max(8, CHUNK // max(stack[0].size, values))
    parts = [slice(start, start + size) for start in range(0, len(first), size)]
    return np.concatenate([score(stack[first[part]], stack[second[part]]) for part in parts])

"""Scores of drift: a changed map against the clean map of the same image and layer.

Arguments are stacks of maps (n, h, w), each divided by its own maximum; an empty map is all zeros.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial

import matplotlib as mpl
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from camdrift.pipeline import randomness, run
from camdrift.settings import Protocol
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE, NOTHING, OWN, SEED, SOFTMAX, UNRELATED, Maps

CHUNK = 1 << 17  # values of a stack of maps that are scored at a time
BANDED = 96  # the side in px from which two diagonals are faster than a matrix product
K1, K2 = 0.01, 0.03


def upsampling(small: int, large: int) -> np.ndarray:
    """Returns the matrix (large, small) of bilinear resizing, half-pixel centres, edges repeated.

    The same as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
    """
    centres = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    left = np.floor(centres).astype(int)
    right = np.minimum(left + 1, small - 1)
    share = centres - left
    matrix = np.zeros((large, small))
    np.add.at(matrix, (np.arange(large), left), 1 - share)
    np.add.at(matrix, (np.arange(large), right), share)
    return matrix


@cache
def _factor(side: int, size: int) -> np.ndarray:
    """Returns F with F'F = U'U for the resizing matrix U, no larger than the map.

    Where the map is enlarged, F has two diagonals: a row of U has two entries, side by side.
    """
    resize = upsampling(side, size)
    return resize if side >= size else np.linalg.cholesky(resize.T @ resize).T


def _weighed(maps: np.ndarray, size: int) -> np.ndarray:
    """Returns F a F' of maps a (n, h, w), in their precision."""
    rows, columns = (_factor(side, size).astype(maps.dtype) for side in maps.shape[1:])
    if not BANDED <= min(maps.shape[1:]) <= max(maps.shape[1:]) < size:
        return rows @ maps @ columns.T
    wide = maps * columns.diagonal()
    wide[:, :, :-1] += maps[:, :, 1:] * columns.diagonal(1)
    tall = wide * rows.diagonal()[:, None]
    wide[:, 1:] *= rows.diagonal(1)[:, None]
    tall[:, :-1] += wide[:, 1:]
    return tall


def _inner(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns inner products of pairs of maps: float64 (n,)."""
    n = len(first)
    products = first.reshape(n, 1, -1) @ second.reshape(n, -1, 1)
    return products.reshape(n).astype(np.float64)


def _angle(inner: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns inner products over the roots of squared norms, NaN where a norm is 0."""
    norms = np.sqrt(first * second)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, inner / norms, np.nan)


def cosine(first: np.ndarray, second: np.ndarray, *, size: int) -> np.ndarray:
    """Returns the cosine of maps as seen at `size` px, in [0, 1]; NaN where a map is empty.

    Exact without upsampling: with U the resizing matrix and U'U = F'F, the inner product of two
    resized maps is that of F a F' and F b F', which are no larger than the maps. In the
    precision of the maps, which for float32 is 2e-7. renkhoff2022, equation 6, on raw maps.
    """
    a, b = first, second
    if a.shape[1:] != (size, size):
        a, b = _weighed(a, size), _weighed(b, size)
    return np.minimum(_angle(_inner(a, b), _inner(a, a), _inner(b, b)), 1)


def ssim_window(side: int) -> int | None:
    """Returns the window for maps of that side: the largest odd size <= min(7, side), from 3."""
    window = min(7, side)
    window -= 1 - window % 2
    return window if window >= 3 else None


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the mean structural similarity of maps, NaN where one is empty: (n,)."""
    empty = (first.max(axis=(1, 2)) == 0) | (second.max(axis=(1, 2)) == 0)
    return np.where(empty, np.nan, structural_similarity(first, second))


def structural_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the mean structural similarity of maps at their own size, in [-1, 1]: (n,).

    Wang et al. 2004, equation 13: uniform window, sample covariance, data range 1, K1 = 0.01 and
    K2 = 0.03, borders left out, as `skimage.metrics.structural_similarity` computes it pair by
    pair. NaN where the maps are too small for a window.
    """
    window = ssim_window(min(first.shape[1:]))
    if window is None:
        return np.full(len(first), np.nan)
    # Means over all windows that lie inside the map, as matrix products: (side - window + 1, side).
    rows, columns = (
        np.sum([np.eye(side - window + 1, side, k) for k in range(window)], axis=0) / window
        for side in first.shape[1:]
    )

    def mean(values: np.ndarray) -> np.ndarray:
        return rows @ values @ columns.T

    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = mean(a), mean(b)
    sample = window**2 / (window**2 - 1)
    var_a = sample * (mean(a * a) - mean_a**2)
    var_b = sample * (mean(b * b) - mean_b**2)
    covariance = sample * (mean(a * b) - mean_a * mean_b)
    c1, c2 = K1**2, K2**2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return value.mean(axis=(1, 2))


@cache
def bicubic(small: int, large: int) -> np.ndarray:
    """Returns the matrix (large, small) of Pillow's bicubic enlarging: a = -0.5, edges cut off."""
    matrix = np.zeros((large, small))
    for row in range(large):
        centre = (row + 0.5) * small / large
        taps = np.arange(max(0, int(centre - 1.5)), min(small, int(centre + 2.5)))
        x = np.abs(taps - centre + 0.5)
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
        matrix[row, taps] = weights / weights.sum()
    return matrix.astype(np.float32)


def _enlarged(pictures: np.ndarray, size: int) -> np.ndarray:
    """Returns uint8 pictures (n, 3, h, w) with their last side enlarged to `size`."""
    rows = pictures.reshape(-1, pictures.shape[-1]).astype(np.float32)
    wide = rows @ bicubic(rows.shape[1], size).T
    wide += np.float32(0.5)
    return np.clip(wide, 0, 255, out=wide).astype(np.uint8).reshape(*pictures.shape[:-1], size)


def _as_image(values: np.ndarray) -> np.ndarray:
    """Returns float32 arrays (n, ...) as uint8, each stretched to 0-255; overwrites `values`.

    Keras' `array_to_img`, in float32 as there: cut off, not rounded.
    """
    axes = tuple(range(1, values.ndim))
    values -= values.min(axis=axes, keepdims=True)
    top = values.max(axis=axes, keepdims=True)
    values /= np.where(top > 0, top, np.float32(1))
    values *= np.float32(255)
    return values.astype(np.uint8)


def jet_rgb(maps: np.ndarray, *, size: int) -> np.ndarray:
    """Returns the pictures that renkhoff2022's public code compares: uint8 (n, 3, size, size).

    Levels of 255, cut off; matplotlib's jet; stretched to 0-255; enlarged by Pillow (bicubic,
    rounded to 8 bit after each of its two passes); times 0.4 and stretched again, which all but
    undoes the 0.4. An empty map is a plain blue picture.
    """
    table = mpl.colormaps["jet"](np.arange(256))[:, :3].astype(np.float32)
    levels = (np.float32(255) * maps.astype(np.float32)).astype(np.uint8)
    pictures = np.moveaxis(_as_image(table[levels]), 3, 1)
    for side in (maps.shape[2], maps.shape[1]):
        pictures = np.ascontiguousarray(pictures)
        pictures = (pictures if side == size else _enlarged(pictures, size)).swapaxes(2, 3)
    return _as_image(pictures.astype(np.float32) * np.float32(0.4))


def jet_cosine(
    stack: np.ndarray, first: np.ndarray, second: np.ndarray, *, size: int
) -> np.ndarray:
    """Returns the cosine of pairs of maps as jet pictures, never NaN: (pairs,).

    renkhoff2022, section IV-C, as its public code computes it. It has a high floor: unrelated maps
    share the blue of what is not bright. `first` and `second` are places in `stack` (n, h, w);
    each map that they name is coloured once.
    """
    needed, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    parts = np.array_split(needed, max(1, len(needed) // 64))
    with threadpool_limits(1), ThreadPoolExecutor(run.threads()) as pool:
        done = pool.map(lambda part: jet_rgb(stack[part], size=size), parts)
        pictures = np.concatenate(list(done)).reshape(len(needed), -1)
    one, other = place[: len(first)], place[len(first) :]
    found = []
    step = max(8, CHUNK // pictures.shape[1])
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        a, b = (pictures[which[part]].astype(np.float32) for which in (one, other))
        inner, aa, bb = (np.einsum("ni,ni->n", v, w) for v, w in ((a, b), (a, a), (b, b)))
        found.append(inner / np.sqrt(aa * bb))
    return np.concatenate(found)


def partners(
    images: pd.DataFrame, places: slice = slice(None), *, count: int, seed: int
) -> pd.DataFrame:
    """Returns `count` images of other sources for each image at some places, a row an image.

    Images are named by `image`, in the index as in the columns. Drawn with replacement, by
    (seed, id). With a single source there are none.
    """
    numbers, sources = images["image"].to_numpy(), images["source"].to_numpy()
    found: dict[int, list[int]] = {}
    for row in images.iloc[places].itertuples():
        others = numbers[sources != row.source]
        rng = randomness.generator(seed, "unrelated", row.id)
        found[row.image] = list(rng.choice(others, count)) if len(others) else []
    return pd.DataFrame.from_dict(found, orient="index")


def part(maps: Maps, images: pd.Index, others: np.ndarray) -> Maps:
    """Returns all maps of some images, and of others the clean ones, which they are paired with."""
    rows = maps.rows
    clean = rows["variant"].isin([CLEAN, SOFTMAX]) & (rows["target"] == OWN)
    rows = rows[rows["image"].isin(images) | (clean & rows["image"].isin(others))]
    used, place = np.unique(rows["map"], return_inverse=True)
    mine = rows.assign(map=place.reshape(-1))
    return replace(maps, values=maps.values[used], maxima=maps.maxima[used], rows=mine)


def _pairs(
    rows: pd.DataFrame,
    protocol: Protocol,
    targets: Sequence[str],
    strangers: pd.DataFrame,
    *,
    first: bool,
    second_draw: bool,
) -> pd.DataFrame:
    """Returns what a protocol compares: keys, `map` and the clean map `origin`, row by row.

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
    images = strangers.index.to_numpy()
    for target in targets:
        own_maps = origin.loc[images].to_numpy()
        keys = {"image": images, "strength": 0.0, "target": target, "origin": own_maps}
        same = {"variant": NOTHING, "draw": 0, "map": clean.loc[images].to_numpy()}
        parts.append(pd.DataFrame(keys | same))
        for draw, others in enumerate(strangers.to_numpy().T):
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
    maps: Maps, protocols: Sequence[Protocol], strangers: pd.DataFrame, *, size: int
) -> pd.DataFrame:
    """Returns every score of every changed map against the clean map of its image.

    The clean map is that of the clean image's own top class, which is the seed's class: both
    target policies share it. The first protocol is scored in full, cosine and SSIM for both
    target policies, the others by their own similarity for their own target; methods after the
    first by cosine, for both policies, under the first protocol. Two variants only
    pair maps that are there: 'nothing', the clean image compared with itself, and 'unrelated',
    with clean images of other sources.

    Args:
        maps: of one cell; of images that are not scored, the clean ones alone.
        protocols: of the cell.
        strangers: the images to score, and for each those that are unrelated, see `partners`.
        size: the side in px at which the cosine sees the maps.

    Returns:
        A row for each (reading, method, image, variant, strength, draw, target, layer, score) with
        `value`, NaN where it is not defined. Protocols that differ in target or threshold alone
        share their reading.
    """
    wanted: dict[str, tuple[Protocol, list[str]]] = {}
    for i, protocol in enumerate(protocols):
        _, targets = wanted.setdefault(protocol.reading, (protocol, []))
        policies = [OWN, SEED] if i == 0 else [protocol.target]
        targets += [target for target in policies if target not in targets]
    # A held-out threshold may judge the draw that set the others'; the rest want a second one.
    judged = {p.reading for p in protocols if p.threshold != "held_out_quantile"}
    compared = {
        reading: _pairs(
            maps.of(), protocol, targets, strangers, first=i == 0, second_draw=reading in judged
        )
        for i, (reading, (protocol, targets)) in enumerate(wanted.items())
    }
    # Structural similarity, the dearer score, is for the figures: attack and first noise alone.
    jobs = []
    decides, *others = maps.methods
    for i, (reading, rows) in enumerate(compared.items()):
        jet = wanted[reading][0].similarity == "jet_rgb"
        raw = partial(by_chunk, partial(cosine, size=size))
        of = partial(jet_cosine, size=size) if jet else raw
        jobs.append((reading, decides, "cosine", of, rows))
        if i == 0:
            arms = rows["variant"].isin([ADVERSARIAL, NOISE]) & (rows["draw"] == 0)
            jobs.append((reading, decides, "ssim", partial(by_chunk, ssim), rows[arms]))
            for method in others:
                more = _pairs(
                    maps.of(method), protocols[0], (OWN, SEED), strangers, first=False,
                    second_draw=False,
                )  # fmt: skip
                jobs.append((reading, method, "cosine", of, more))
    # Each distinct pair of maps is scored once.
    keys = [rows[["origin", "map"]].to_numpy() for *_, rows in jobs]
    pairs = [np.unique(key, axis=0, return_inverse=True) for key in keys]
    tables = []
    for label, stack in _layers(maps):
        for (reading, method, score, of, rows), (pair, place) in zip(jobs, pairs, strict=True):
            values = of(stack, *pair.T)
            facts = {"reading": reading, "method": method, "layer": label, "score": score}
            value = values.astype(np.float32)[place.reshape(-1)]
            tables.append(rows.drop(columns=["map", "origin"]).assign(**facts, value=value))
    table = pd.concat(tables, ignore_index=True)
    names = ["reading", "variant", "target", "method", "layer", "score"]
    return table.astype({name: "category" for name in names})


def by_chunk(
    of: Callable[[np.ndarray, np.ndarray], np.ndarray],
    stack: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    values: int = 0,
) -> np.ndarray:
    """Returns a score of pairs of maps, as many at a time as fit a processor's cache.

    `values` are those of a map as the score sees it, where that is larger than the map.
    """
    size = max(8, CHUNK // max(stack[0].size, values))
    parts = [slice(start, start + size) for start in range(0, len(first), size)]
    return np.concatenate([of(stack[first[part]], stack[second[part]]) for part in parts])

"""Cosine similarity of maps as jet-coloured 8-bit pictures.

Renkhoff et al. 2022, section IV-C, as its public code computes it. It has a high floor: unrelated
maps share the blue of their dark places.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import matplotlib as mpl
import numpy as np
from threadpoolctl import threadpool_limits

from camdrift.pipeline import run
from camdrift.scores.resizing import bicubic
from camdrift.settings.section import sides
from camdrift.storage.arrays import Heatmaps, PerImage

LABEL = "cosine similarity of jet pictures"
RANGE = (0.0, 1.0)
HIGHER_IS_ALIKE = True
CHUNK = 1 << 17  # values of pictures that are compared at a time


def score(first: Heatmaps, second: Heatmaps, *, size: int | Sequence[int]) -> PerImage:
    """Returns the cosine of pairs of maps as jet pictures, never NaN."""
    places = np.arange(2 * len(first))
    return score_places(np.concatenate([first, second]), *np.split(places, 2), size=size)


def score_places(
    stack: Heatmaps, first: np.ndarray, second: np.ndarray, *, size: int | Sequence[int]
) -> np.ndarray:
    """Returns the cosine of pairs of maps as jet pictures, never NaN: (pairs,).

    `first` and `second`, (pairs,), are places in `stack`; each map that they name is coloured once.
    """
    distinct, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    groups = np.array_split(distinct, max(1, len(distinct) // 64))
    with threadpool_limits(1), ThreadPoolExecutor(run.threads()) as pool:
        stacks = pool.map(lambda group: jet_rgb(stack[group], size=size), groups)
        pictures = np.concatenate(list(stacks)).reshape(len(distinct), -1)
    one, other = place[: len(first)], place[len(first) :]
    parts = []
    step = max(8, CHUNK // pictures.shape[1])
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        a, b = (pictures[which[part]].astype(np.float32) for which in (one, other))
        inner, aa, bb = (np.einsum("ni,ni->n", v, w) for v, w in ((a, b), (a, a), (b, b)))
        parts.append(inner / np.sqrt(aa * bb))
    return np.concatenate(parts)


def jet_rgb(maps: Heatmaps, *, size: int | Sequence[int]) -> np.ndarray:
    """Returns the pictures that renkhoff2022's public code compares: uint8 (n, 3, height, width).

    `size` is their side in px, or their height and width.

    Levels of 255, cut off; matplotlib's jet; stretched to 0-255; enlarged by Pillow (bicubic,
    rounded to 8 bit after each of its two passes); times 0.4 and stretched again, which all but
    undoes the 0.4. An empty map is a plain blue picture.
    """
    table = mpl.colormaps["jet"](np.arange(256))[:, :3].astype(np.float32)
    levels = (np.float32(255) * maps.astype(np.float32)).astype(np.uint8)
    pictures = np.moveaxis(_as_image(table[levels]), 3, 1)
    for side in reversed(sides(size)):  # along rows, then, with sides swapped, along columns
        pictures = np.ascontiguousarray(pictures)
        pictures = pictures if pictures.shape[3] == side else _enlarged(pictures, side)
        pictures = pictures.swapaxes(2, 3)
    return _as_image(pictures.astype(np.float32) * np.float32(0.4))


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

"""Scores of drift: a changed map against the clean map of the same image and layer.

Arguments are stacks of maps (n, h, w), each divided by its own maximum; an empty map is all zeros.
"""

import numpy as np
import pandas as pd
from tqdm import tqdm

from camdrift.artifacts import Maps

CHUNK = 512
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


def cosine(first: np.ndarray, second: np.ndarray, *, size: int) -> np.ndarray:
    """Returns the cosine of maps as seen at `size` px, in [0, 1]; NaN where a map is empty.

    Exact without upsampling: with U the resizing matrix and G = U'U, the inner product of two
    resized maps is sum(G a G' * b). renkhoff2022, equation 6, on raw maps.
    """
    height, width = first.shape[1:]
    rows, columns = (upsampling(side, size) for side in (height, width))
    rows, columns = rows.T @ rows, columns.T @ columns

    def inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nij->n", rows @ a @ columns, b)

    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.sqrt(inner(first, first) * inner(second, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, inner(first, second) / norms, np.nan)


def ssim_window(side: int) -> int | None:
    """Returns the window for maps of that side: the largest odd size <= min(7, side), from 3."""
    window = min(7, side)
    window -= 1 - window % 2
    return window if window >= 3 else None


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the mean structural similarity of maps at their own size, in [-1, 1].

    Wang et al. 2004, equation 13: uniform window, sample covariance, data range 1, K1 = 0.01 and
    K2 = 0.03, borders left out, as `skimage.metrics.structural_similarity` computes it pair by
    pair. NaN where a map is empty or the maps are too small for a window.
    """
    window = ssim_window(min(first.shape[1:]))
    empty = (first.max(axis=(1, 2)) == 0) | (second.max(axis=(1, 2)) == 0)
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
    return np.where(empty, np.nan, value.mean(axis=(1, 2)))


def drift(maps: Maps, *, size: int) -> pd.DataFrame:
    """Returns every score of every changed map against the clean map of its image.

    The clean map is that of the clean image's own top class, which is the seed's class: both
    target policies share it. `size` is the side in px at which the cosine sees the maps.

    Returns:
        A row for each (image, variant, strength, draw, target, layer, score) with `cam` and
        `value`, NaN where it is not defined.
    """
    rows = maps.rows[maps.rows["variant"] != "clean"]
    own = maps.rows["target"] == "own_top1"
    clean = maps.rows[(maps.rows["variant"] == "clean") & own].set_index("image")["map"]
    pairs = rows[["map", "image"]].drop_duplicates("map")
    changed = pairs["map"].to_numpy()
    origin = clean.loc[pairs["image"]].to_numpy()
    place = pd.Series(np.arange(len(pairs)), index=changed).loc[rows["map"]].to_numpy()
    keys = ["image", "variant", "strength", "draw", "target"]
    tables = []
    for layer in tqdm(list(maps.layers.itertuples()), desc="scores", unit="layer"):
        columns = slice(layer.start, layer.start + layer.height * layer.width)
        stack = np.ascontiguousarray(maps.values[:, columns], dtype=np.float32)
        stack = stack.reshape(-1, layer.height, layer.width)
        found: dict[str, list[np.ndarray]] = {"cosine": [], "ssim": []}
        for start in range(0, len(pairs), CHUNK):
            part = slice(start, start + CHUNK)
            a, b = stack[origin[part]], stack[changed[part]]
            found["cosine"].append(cosine(a, b, size=size))
            found["ssim"].append(ssim(a, b))
        for score, parts in found.items():
            value = np.concatenate(parts)[place]
            tables.append(
                rows[keys].assign(cam="grad_cam", layer=layer.label, score=score, value=value)
            )
    table = pd.concat(tables, ignore_index=True)
    names = ["variant", "target", "cam", "layer", "score"]
    return table.astype({name: "category" for name in names} | {"value": "float32"})

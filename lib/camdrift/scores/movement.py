"""Movement: whether maps gain where the perturbation is, by correlation over positions."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from camdrift.perturbations import changes
from camdrift.perturbations.strengths import multipliers, offsets
from camdrift.settings import Protocol
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE, SOFTMAX, Attacked, Maps, Noise

MOVE, SIZE = "signed", "size"  # the difference of two maps, and its magnitude
ARMS = ("attack", "noise", "floor")
KEYS = ("recipe", "score", "target", "difference", "layer", "image")
FLAT = 1e-5  # a part of this size of an energy is rounding: under FGSM all pixels change alike
CHUNK = 32  # images whose changes are in memory at once


def correlations(
    attacked: Attacked,
    noise: Noise,
    maps: Maps,
    protocols: Sequence[Protocol],
    *,
    strengths: Sequence[float],
) -> pd.DataFrame:
    """Returns the correlation of each map's difference and its change's energy, at strength 1.

    Each map is divided by its sum, so that a difference is what has moved: positive where the
    changed map has more of its whole than the clean one. Energy is the sum over channels of the
    squared change, before clipping and quantising, averaged over the area of a layer's position.

    Args:
        attacked: the attacked images; those that the attack flips are measured.
        noise: of their size.
        maps: of one cell; those of the protocols' targets under their recipes must be there.
        protocols: whose changes, classes and clean maps are compared, no two of which have equal
            `recipe`, `score` and `target`.
        strengths: of the cell, rising.

    Returns:
        A row for each (recipe, score, target, difference, layer, image), `difference` being `MOVE`
        or `SIZE`, and, in [-1, 1]: `attack`, of the map under attack, with the attack; `noise`, of
        the map under noise of its size, with the noise; `floor`, of the map under attack, with the
        attacks on the measured images of other sources, the mean: differences and energies may both
        be larger in the middle of any image, which is no movement to this perturbation. NaN where a
        map is empty, or the difference or the energy does not vary over the positions.
    """
    tables = []
    for protocol in protocols:
        for kind, arms in _of(attacked, noise, maps, protocol, strengths).items():
            parts = (protocol.recipe, protocol.score, protocol.target, kind)
            facts = dict(zip(KEYS, parts, strict=False))
            flipped = attacked.images.loc[attacked.images["success"], "image"]
            keys = pd.MultiIndex.from_product(
                [maps.layers["label"], flipped], names=["layer", "image"]
            )
            values = {name: arm.T.ravel() for name, arm in zip(ARMS, arms, strict=True)}
            tables.append(pd.DataFrame(values, index=keys).reset_index().assign(**facts))
    columns = [*KEYS, *ARMS]
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return whole[columns]


def _of(
    attacked: Attacked, noise: Noise, maps: Maps, protocol: Protocol, strengths: Sequence[float]
) -> dict[str, np.ndarray]:
    """Returns the correlations under a protocol, by kind: (arms, images, layers)."""
    flipped = attacked.images[attacked.images["success"]]
    if not len(flipped):
        return {}
    energies = _energies(attacked, noise, protocol, strengths, flipped)
    places = _places(maps, protocol, flipped["image"])
    sources = np.unique(flipped["source"], return_inverse=True)[1]
    layers = maps.layers
    parts = {k: np.full((3, len(sources), len(layers)), np.nan) for k in (MOVE, SIZE)}
    for (height, width), same in layers.groupby(["height", "width"]):
        attack, noisy_energy = (_standard(_pooled(e, height, width)) for e in energies)
        if np.isnan(attack).all():
            continue
        others = _mean_of_others(attack, sources)
        for column, start in same["start"].items():
            own = slice(start, start + height * width)
            clean, changed, noisy = (_shares(maps.values[rows, own]) for rows in places)
            for kind, arms in parts.items():
                moves = [changed - clean, noisy - clean]
                first, second = (_standard(np.abs(m) if kind == SIZE else m) for m in moves)
                for arm, (move, energy) in zip(
                    arms, ((first, attack), (second, noisy_energy), (first, others)), strict=True
                ):
                    arm[:, column] = (move * energy).sum(1)
    return parts


def _energies(
    attacked: Attacked,
    noise: Noise,
    protocol: Protocol,
    strengths: Sequence[float],
    flipped: pd.DataFrame,
) -> list[np.ndarray]:
    """Returns the energy of attack and noise at strength 1: float32 (images, height, width)."""
    whole, last = attacked.perturbation, attacked.last_step
    rung = list(strengths).index(1.0)
    multiple = multipliers(list(strengths), applied=protocol.strengths)[rung]
    scales = noise.scales
    mine = (scales["recipe"] == protocol.recipe) & (scales["draw"] == 0) & (scales["strength"] == 1)
    scale = scales[mine].set_index("image")["scale"].loc[flipped["image"]].to_numpy()
    parts: list[list[np.ndarray]] = [[], []]
    for start in range(0, len(flipped), CHUNK):
        rows = flipped.index[start : start + CHUNK].to_numpy()
        part, step = whole[rows], last[rows] if len(last) else last
        base = changes.noise_base(part, step, noise.draws[rows, 0], protocol=protocol)
        blank = np.zeros_like(part)
        both = (
            changes.attacked(blank, part, step, multiple, applied=protocol.strengths),
            changes.noisy(blank, part, step, base, scale[start : start + CHUNK],
                          offsets(list(strengths))[rung], protocol=protocol),
        )  # fmt: skip
        for arm, change in zip(parts, both, strict=True):
            arm.append((change**2).sum(1, dtype=np.float32))
    return [np.concatenate(arm) for arm in parts]


def _places(maps: Maps, protocol: Protocol, images: pd.Series) -> list[np.ndarray]:
    """Returns the rows of the maps of the clean, attacked and noisy images at strength 1."""
    rows = maps.select()
    rows = rows[(rows["target"] == protocol.target) & (rows["draw"] == 0)]
    clean = SOFTMAX if protocol.score == "softmax_for_originals" else CLEAN
    keys = [(clean, 0.0, ""), *((name, 1.0, protocol.recipe) for name in (ADVERSARIAL, NOISE))]
    places = rows.set_index(["variant", "strength", "recipe", "image"])["map"].sort_index()
    return [places.loc[key].loc[images].to_numpy() for key in keys]


def _shares(maps: np.ndarray) -> np.ndarray:
    """Returns maps (n, positions) divided by their sums; an empty map is NaN."""
    maps = maps.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return maps / maps.sum(1, keepdims=True)


def _standard(values: np.ndarray) -> np.ndarray:
    """Returns rows (n, positions) less their means, of norm 1; NaN for a row that is flat."""
    centred = values - values.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    varies = norms > FLAT * np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(centred, norms, out=np.full_like(centred, np.nan), where=varies)


def _mean_of_others(rows: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Returns for each row the mean of the rows of other sources, without NaN; NaN if none."""
    known = ~np.isnan(rows[:, 0])
    sums = np.zeros((sources.max() + 1, rows.shape[1]), rows.dtype)
    np.add.at(sums, sources[known], rows[known])
    counts = np.bincount(sources[known], minlength=len(sums))
    others = (known.sum() - counts)[sources].astype(float)
    others[others == 0] = np.nan
    return ((sums.sum(0) - sums[sources]) / others[:, None]).astype(rows.dtype)


def _pooled(energy: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns energy (n, h, w) averaged over the area of each position: (n, height * width)."""
    rows, columns = (areas(*pair) for pair in zip(energy.shape[1:], (height, width), strict=True))
    return (rows @ energy @ columns.T).reshape(len(energy), -1)


@cache
def areas(large: int, small: int) -> np.ndarray:
    """Returns the matrix (small, large) of averaging: the share of each pixel in each position.

    A pixel between two positions counts for both, by its overlap.
    """
    edges = np.arange(small + 1) * large / small
    pixels = np.arange(large)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * small / large).astype(np.float32)

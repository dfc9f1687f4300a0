"""Whether maps move to where the perturbation is: correlations over a layer's positions."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from camdrift.analysis.layers import decided_layers, estimate, with_mean
from camdrift.analysis.results import Results
from camdrift.perturbations import changes
from camdrift.perturbations.strengths import multipliers, offsets
from camdrift.settings import FlagSettings, Protocol, StatisticsSettings
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE, OWN, SEED, SOFTMAX

MOVE, SIZE = "signed", "size"  # the difference of two maps, and its magnitude
FLAT = 1e-5  # a part of this size of an energy is rounding: under FGSM all pixels change alike
CHUNK = 32  # images whose changes are in memory at once
COLUMNS = ["difference", "target", "layer", "images", "n", "r_attack", "r_noise", "r_floor",
           "over_noise", "low", "high", "over_floor", "floor_low", "floor_high"]  # fmt: skip


@dataclass(frozen=True)
class Focus:
    """Correlation of a map's difference and a perturbation's energy: (images, layers), in [-1, 1].

    Images are those that the attack flips. NaN where a map is empty, or the difference or the
    energy does not vary over the positions.

    attack: of the map under attack, with the attack.
    noise: of the map under noise of its size, with the noise.
    floor: of the map under attack, with the attacks on these images of other sources: the mean.
        Differences and energies may both be larger in the middle of any image, which is no
        movement to this perturbation.
    """

    attack: np.ndarray
    noise: np.ndarray
    floor: np.ndarray


def correlations(results: Results, protocol: Protocol) -> dict[str, Focus]:
    """Returns the correlations at strength 1, by kind of difference, `MOVE` and `SIZE`.

    Each map is divided by its sum, so that a difference is what has moved: positive where the
    changed map has more of its whole than the clean one. Energy is the sum over channels of the
    squared change, before clipping and quantising, averaged over the area of a layer's position.

    Args:
        results: of the cell; they keep the correlations.
        protocol: whose changes, classes and clean maps are compared. The maps of its target under
            its recipe must be there.
    """
    key = protocol.recipe, protocol.score, protocol.target
    if key not in results.focus:
        results.focus[key] = _correlations(results, protocol)
    return results.focus[key]


def _correlations(results: Results, protocol: Protocol) -> dict[str, Focus]:
    images = results.attacked.images
    flipped = images[images["success"]]
    energies = _energies(results, protocol, flipped)
    places = _places(results, protocol, flipped["image"])
    sources = np.unique(flipped["source"], return_inverse=True)[1]
    layers, values = results.maps.layers, results.maps.values
    shape = (len(sources), len(layers))
    parts = {kind: Focus(*(np.full(shape, np.nan) for _ in range(3))) for kind in (MOVE, SIZE)}
    for (height, width), same in layers.groupby(["height", "width"]):
        attack, noise = (_standard(_pooled(energy, height, width)) for energy in energies)
        if np.isnan(attack).all():
            continue
        others = _mean_of_others(attack, sources)
        for column, start in same["start"].items():
            own = slice(start, start + height * width)
            clean, attacked, noisy = (_shares(values[rows, own]) for rows in places)
            for kind, focus in parts.items():
                moves = [attacked - clean, noisy - clean]
                first, second = (_standard(np.abs(m) if kind == SIZE else m) for m in moves)
                focus.attack[:, column] = (first * attack).sum(1)
                focus.noise[:, column] = (second * noise).sum(1)
                focus.floor[:, column] = (first * others).sum(1)
    return parts


def _energies(results: Results, protocol: Protocol, flipped: pd.DataFrame) -> list[np.ndarray]:
    """Returns the energy of attack and noise at strength 1: float32 (images, height, width)."""
    whole, last = results.attacked.perturbation, results.attacked.last_step
    strengths = results.cell.strengths
    rung = strengths.index(1.0)
    multiple = multipliers(strengths, applied=protocol.strengths)[rung]
    scales = results.noise.scales
    mine = (scales["recipe"] == protocol.recipe) & (scales["draw"] == 0) & (scales["strength"] == 1)
    scale = scales[mine].set_index("image")["scale"].loc[flipped["image"]].to_numpy()
    parts: list[list[np.ndarray]] = [[], []]
    for start in range(0, len(flipped), CHUNK):
        rows = flipped.index[start : start + CHUNK].to_numpy()
        part, step = whole[rows], last[rows] if len(last) else last
        base = changes.noise_base(part, step, results.noise.draws[rows, 0], protocol=protocol)
        blank = np.zeros_like(part)
        both = (
            changes.attacked(blank, part, step, multiple, applied=protocol.strengths),
            changes.noisy(blank, part, step, base, scale[start : start + CHUNK],
                          offsets(strengths)[rung], protocol=protocol),
        )  # fmt: skip
        for arm, change in zip(parts, both, strict=True):
            arm.append((change**2).sum(1, dtype=np.float32))
    return [np.concatenate(arm) for arm in parts]


def _places(results: Results, protocol: Protocol, images: pd.Series) -> list[np.ndarray]:
    """Returns the rows of the maps of the clean, attacked and noisy images at strength 1."""
    rows = results.maps.select()
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


def table(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the mean correlations of the images that the attack flips, by layer.

    Under the first protocol, for both target policies. Columns: `difference` ('signed' or its
    'size'), `target, layer, images, n` (with all three correlations), `r_attack, r_noise, r_floor`
    (means, see `Focus`), `over_noise, low, high` (attack minus noise) and `over_floor, floor_low,
    floor_high` (attack minus floor), paired by image. 'mean' averages over the layers that few
    images lack.
    """
    success = results.attacked.images["success"].to_numpy()
    images = results.attacked.images["image"][success]
    tables = []
    for target in (OWN, SEED) if success.any() else ():
        protocol = results.first.model_copy(update={"target": target})
        for kind, focus in correlations(results, protocol).items():
            arms = [
                pd.DataFrame(arm, columns=results.layers)
                for arm in (focus.attack, focus.noise, focus.floor)
            ]
            known = np.logical_and.reduce([arm.notna() for arm in arms])
            arms = [arm.where(known) for arm in arms]
            decided = decided_layers(arms, flags)
            columns = [
                with_mean(part, decided, decided)
                for part in (*arms, arms[0] - arms[1], arms[0] - arms[2])
            ]
            means, low, high = (
                part.reshape(len(columns), -1)
                for part in estimate(results, images, np.hstack(columns), settings, seed, "focus")
            )
            facts = (kind, target, [*results.layers, "mean"], len(images),
                     np.isfinite(columns[0]).sum(0), *means[:4], low[3], high[3], means[4],
                     low[4], high[4])  # fmt: skip
            tables.append(pd.DataFrame(dict(zip(COLUMNS, facts, strict=True))))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)

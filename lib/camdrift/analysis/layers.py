"""Layers: which of them are decided, and means over images and layers with their intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from camdrift.analysis.results import Results
from camdrift.analysis.statistics import Resampler
from camdrift.pipeline import randomness
from camdrift.settings import FlagSettings, StatisticsSettings


def decided_layers(arms: Sequence[pd.DataFrame], flags: FlagSettings) -> np.ndarray:
    """Returns of which layers no arm has too many empty maps: bool (layers,).

    Arms are (images, layers), NaN where a map is empty. One without images decides nothing, and
    without any image no layer is decided.
    """
    shares = [arm.isna().mean().to_numpy() for arm in arms if len(arm)]
    if not shares:
        return np.zeros(arms[0].shape[1], bool)
    return np.max(shares, axis=0) <= flags.empty_share


def with_mean(wide: pd.DataFrame, common: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Returns the columns of `own`, others as NaN, and last each row's mean over those of `common`.

    Both are bool (columns,).
    """
    return np.column_stack([wide.where(np.broadcast_to(own, wide.shape)),
                            wide.loc[:, common].mean(axis=1)])  # fmt: skip


def estimate(
    results: Results,
    images: Sequence[int] | pd.Index,
    columns: np.ndarray,
    settings: StatisticsSettings,
    seed: int,
    name: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean and interval of each column, resampled by the images' sources."""
    resampler = draws(results, images, settings, seed, name)
    result = resampler.estimate(columns, confidence=settings.confidence)
    return result.mean, result.low, result.high


def draws(
    results: Results,
    images: Sequence[int] | pd.Index,
    settings: StatisticsSettings,
    seed: int,
    name: str,
) -> Resampler:
    """Returns draws of the images' sources."""
    sources = results.images.set_index("image")["source"].loc[images]
    rng = randomness.generator(seed, "flips", results.name, name)
    return Resampler.draw(sources.to_numpy(), resamples=settings.resamples, rng=rng)

"""A cell's results under one protocol, as arrays for the judges of claims."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import pandas as pd

from camdrift.analysis import compromise, statistics
from camdrift.analysis.results import Results
from camdrift.analysis.statistics import Resampler
from camdrift.pipeline import randomness
from camdrift.settings import FlagSettings, Protocol, StatisticsSettings
from camdrift.storage import ADVERSARIAL, NOISE, UNRELATED

Array = TypeVar("Array")


@dataclass(frozen=True)
class Evidence:
    """A cell's results under one protocol, as arrays.

    Arrays of similarity are (images, strengths, layers), NaN where a map is empty; images are
    those that the attack flips at strength 1.

    of: the images that it is limited to, as bool (images of the cell,); None: all.
    common: the layers that may be decided, as bool (layers,); None: all.
    """

    results: Results
    protocol: Protocol
    settings: StatisticsSettings
    flags: FlagSettings
    seed: int
    of: np.ndarray | None = None
    common: np.ndarray | None = None

    def _once(self, compute: Callable[[], Array], *key: str | float) -> Array:
        """Returns what `compute` returns, from an earlier evidence of the same maps if it can.

        `key` names all that the result depends on beside images, reading and target. A claim is
        judged at many levels and by two rules, and pandas takes most of the time of a judgement.
        """
        images = None if self.of is None else self.of.tobytes()
        known = (images, self.protocol.reading, self.protocol.target, *key)
        arrays = self.results.arrays
        if known not in arrays:
            arrays[known] = compute()
        return arrays[known]

    @cached_property
    def images(self) -> pd.DataFrame:
        """The rows of `Attacked.images` that the evidence is limited to."""
        images = self.results.images
        return images if self.of is None else images[self.of]

    @cached_property
    def values(self) -> pd.DataFrame:
        """Cosine under the protocol, for its own target."""
        scores = self.results.scores
        rows = (
            (scores["reading"] == self.protocol.reading)
            & (scores["score"] == "cosine")
            & (scores["target"] == self.protocol.target)
        )
        return scores[
            rows if self.of is None else rows & scores["image"].isin(self.images["image"])
        ]

    @property
    def strengths(self) -> list[float]:
        """The cell's strengths, rising."""
        return self.results.cell.strengths

    @property
    def layers(self) -> list[str]:
        """Labels of the layers, in forward order."""
        return self.results.layers

    @cached_property
    def similarities(self) -> dict[tuple[str, bool], np.ndarray]:
        """Similarity of draw 0 by (variant, success)."""
        return self._once(dict, "similarities")

    def similarity(self, variant: str, *, success: bool = True) -> np.ndarray:
        """Returns (images, strengths, layers), of draw 0."""
        if (variant, success) in self.similarities:
            return self.similarities[variant, success]
        rows = self.values
        rows = rows[
            (rows["variant"] == variant) & (rows["draw"] == 0) & (rows["success"] == success)
        ]
        wide = rows.pivot(index="image", columns=["strength", "layer"], values="value")
        columns = pd.MultiIndex.from_product([self.strengths, self.layers])
        shape = (len(wide), len(self.strengths), len(self.layers))
        self.similarities[variant, success] = (
            wide.reindex(columns=columns).to_numpy().reshape(shape)
        )
        return self.similarities[variant, success]

    @cached_property
    def attack(self) -> np.ndarray:
        """Similarity of the images that the attack flips, under the attack."""
        return self.similarity(ADVERSARIAL)

    @cached_property
    def noise(self) -> np.ndarray:
        """Similarity of the same images under the noise's first draw."""
        return self.similarity(NOISE)

    @cached_property
    def unrelated(self) -> np.ndarray:
        """Mean similarity of each image, clean, to clean images of other sources.

        (images, layers), NaN with one source.
        """
        return self._once(self._unrelated, "unrelated")

    def _unrelated(self) -> np.ndarray:
        rows = self.values[(self.values["variant"] == UNRELATED) & self.values["success"]]
        means = rows.groupby(["image", "layer"], observed=True)["value"].mean().unstack()
        images = self.images["image"][self.images["success"]]
        return means.reindex(index=images, columns=self.layers).to_numpy(dtype=float)

    @property
    def resamples(self) -> int:
        """The number of resamples, enough for differences of three strengths in every layer."""
        return statistics.required_resamples(
            self.settings.resamples,
            comparisons=3 * len(self.layers),
            confidence=self.settings.confidence,
        )

    @cached_property
    def resamplers(self) -> dict[bool, Resampler]:
        """Draws of the sources of the images that the attack flips, and of the others."""
        return {success: self._resampler(success=success) for success in (True, False)}

    def _resampler(self, *, success: bool) -> Resampler:
        sources = self.images["source"][self.images["success"] == success].to_numpy()
        rng = randomness.generator(self.seed, "claims", self.results.name, int(success))
        return Resampler.draw(sources, resamples=self.resamples, rng=rng)

    def means(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns means over images (...) and in each resample (resamples, ...)."""
        flat = values.reshape(len(values), -1)
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(flat)
            mean = np.where(known, flat, 0).sum(0) / known.sum(0)
        shape = values.shape[1:]
        return mean.reshape(shape), self.resamplers[True].means(flat).reshape(-1, *shape)

    def interval(self, draws: np.ndarray, *, clusters: float | None = None) -> tuple[float, float]:
        """Returns the interval of draws (resamples,), see `statistics.interval`.

        `clusters` are the sources of the images that the attack flips, unless given.
        """
        low, high = statistics.interval(
            draws.reshape(-1, 1).astype(float),
            confidence=self.settings.confidence,
            clusters=self.resamplers[True].clusters if clusters is None else clusters,
        )
        return float(low[0]), float(high[0])

    def rung(self, strength: float) -> int:
        """Returns the place of a strength among the cell's."""
        return self.strengths.index(strength)

    def decided(self, values: np.ndarray) -> np.ndarray:
        """Returns which layers have few enough empty maps: bool (layers,), of (images, layers)."""
        known = np.isnan(values).mean(0) <= self.flags.empty_share
        return known if self.common is None else known & self.common

    @cached_property
    def compromised(self) -> dict[str, np.ndarray]:
        """Compromised layers by arm: (images, strengths, layers), NaN where a map is empty."""
        return self._once(self._compromised, self.protocol.threshold, self.settings.quantile)

    def _compromised(self) -> dict[str, np.ndarray]:
        rows = compromise.compromised_layers(
            self.results,
            self.protocol.target,
            self.protocol.threshold,
            self.settings,
            self.protocol,
            images=self.images["image"],
        )
        images = self.images["image"][self.images["success"]].to_numpy()
        columns = pd.MultiIndex.from_product([self.strengths, self.layers])
        arrays = {}
        for arm in ("attack", "noise"):
            part = rows[(rows["arm"] == arm) & rows["success"]]
            wide = part.astype({"compromised": float}).pivot(
                index="image", columns=["strength", "layer"], values="compromised"
            )
            wide = wide.reindex(index=images, columns=columns)
            arrays[arm] = wide.to_numpy().reshape(
                len(images), len(self.strengths), len(self.layers)
            )
        return arrays

    def without_each_source(self) -> Iterator[np.ndarray]:
        """Yields, for each source, which images are of the others: bool (images,).

        Nothing where there is one source alone.
        """
        sources = self.results.images["source"].to_numpy()
        names = np.unique(sources)
        yield from (sources != name for name in names if len(names) > 1)

    @cached_property
    def bits(self) -> dict[tuple[str, float], np.ndarray]:
        """Covered neurons by (variant, strength): bool (images, neurons)."""
        return self.results.bits

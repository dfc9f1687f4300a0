"""A comparison: what attacks did to networks, side by side on the same test images."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.analysis import statistics
from camdrift.analysis.statistics import Resampler
from camdrift.pipeline import randomness
from camdrift.settings import SettingsError, StatisticsSettings, Target, TransferStudy
from camdrift.storage import OWN_ATTACK, POLICIES, TRANSFERRED, Transferred

PLAIN, PREPROCESSED = "none", "preprocessed"  # arms
PUBLISHED_EPS = (0.01, 0.05, 0.075, 0.1)


@dataclass(frozen=True)
class Tried:
    """What attacks did to a network, on the test images of all its sets, one after another.

    family: of the network.
    parts: what was written of each set.
    """

    family: str | None
    parts: list[Transferred]

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image: `image, id, source, label, class_name`."""
        return pd.concat([part.images for part in self.parts], ignore_index=True)

    @cached_property
    def _predictions(self) -> dict[tuple[str, str, float], np.ndarray]:
        return self._outcomes("prediction")

    @cached_property
    def _rounded(self) -> dict[tuple[str, str, float], np.ndarray]:
        return self._outcomes("prediction_8bit")

    def _outcomes(self, column: str) -> dict[tuple[str, str, float], np.ndarray]:
        arrays: dict[tuple[str, str, float], list[np.ndarray]] = {}
        for part in self.parts:
            for key, rows in part.outcomes.groupby(["attack", "range", "eps"], sort=False):
                arrays.setdefault(key, []).append(rows[column].to_numpy())  # type: ignore[arg-type]
        return {key: np.concatenate(values) for key, values in arrays.items()}

    def right_8bit(self, kind: str, eps: float, *, of: str) -> np.ndarray:
        """Returns `right` after rounding to 256 levels: float (n,), NaN where that was not tried.

        The clean image has 256 levels already.
        """
        if not eps:
            return self.right(kind, eps, of=of).astype(float)
        top = self._rounded[kind, of, eps]
        right = top == self.images["label"].to_numpy()
        return np.where(np.isnan(top), np.nan, right)

    @property
    def met(self) -> list[tuple[str, str, float]]:
        """Attack, range and eps of all that was tried; eps 0 is the clean image."""
        return list(self._predictions)

    def predictions(self, kind: str, eps: float, *, of: str) -> np.ndarray:
        """Returns the predictions under an attack at an eps of a range, or at 0 the clean ones."""
        return self._predictions[(kind, of, eps) if eps else (OWN_ATTACK, of, 0.0)]

    def right(self, kind: str, eps: float, *, of: str) -> np.ndarray:
        """Returns whether the predictions are the labels: bool (n,)."""
        return self.predictions(kind, eps, of=of) == self.images["label"].to_numpy()

    @cached_property
    def _last(self) -> np.ndarray:
        return np.concatenate([part.last for part in self.parts])

    def _place(self, kind: str, eps: float) -> int:
        variants = self.parts[0].variants
        return int(variants.index[(variants["attack"] == kind) & (variants["eps"] == eps)][0])

    def has(self, kind: str) -> bool:
        """Returns whether maps under an attack were compared."""
        return kind in set(self.parts[0].variants["attack"])

    def shift(self, kind: str, eps: float, explains: str, *, blank: bool = False) -> np.ndarray:
        """Returns NISSIM of the last layer at the input's size: (n,), see `Transferred.last`."""
        return self._last[:, self._place(kind, eps), POLICIES.index(explains), int(blank)]

    def unrelated(self, explains: str, *, blank: bool = False) -> np.ndarray:
        """Returns NISSIM of clean images' maps and those of unrelated images: (n,)."""
        floor = np.concatenate([part.unrelated for part in self.parts])
        return floor[:, POLICIES.index(explains), int(blank)]

    def by_layer(self, kind: str, eps: float, explains: str) -> np.ndarray:
        """Returns NISSIM of each layer at its own size: (n, layers)."""
        place, policy = self._place(kind, eps), POLICIES.index(explains)
        return np.concatenate([part.shifts[:, place, policy] for part in self.parts])


@dataclass(frozen=True)
class Comparison:
    """The results of the stages of a study, and how they are judged.

    tried: by network and arm.
    settings: of intervals.
    sets: names of the image sets, those of folds without the fold's number.
    """

    name: str
    plan: TransferStudy
    tried: dict[tuple[str, str], Tried]
    settings: StatisticsSettings
    seed: int
    sets: frozenset[str] = frozenset()

    @property
    def range(self) -> str:
        """The range that eps is of."""
        return self.plan.ranges[0]

    @cached_property
    def judged(self) -> list[int]:
        """Places of the eps that claims on several eps are judged on: the paper's.

        All eps where the largest is none of the paper's, or where a single one is.
        """
        published = [i for i, eps in enumerate(self.plan.eps) if eps in PUBLISHED_EPS]
        last = len(self.plan.eps) - 1
        return published if last in published and len(published) > 1 else list(range(last + 1))

    def networks(self, arm: str = PLAIN) -> dict[str, Tried]:
        """Returns the networks of an arm; their images are the same, in the same order."""
        return {network: tried for (network, of), tried in self.tried.items() if of == arm}

    @cached_property
    def arms(self) -> list[str]:
        """The arms that were tried."""
        return list(dict.fromkeys(arm for _, arm in self.tried))

    @property
    def images(self) -> pd.DataFrame:
        """The test images of the networks without preprocessing, see `Tried.images`."""
        return next(iter(self.networks().values())).images

    def shift(self, explains: str, *, blank: bool = False) -> np.ndarray:
        """Returns NISSIM of each image, attack transferred: (n, networks, eps)."""
        shifts = [
            levels(self, tried, TRANSFERRED, explains, with_clean=False, blank=blank)
            for tried in self.networks().values()
        ]
        return np.stack(shifts, axis=1)

    def unrelated(self, explains: str, *, blank: bool = False) -> np.ndarray:
        """Returns NISSIM of clean maps of each image and of unrelated ones: (n, networks)."""
        networks = self.networks().values()
        return np.stack([tried.unrelated(explains, blank=blank) for tried in networks], axis=1)

    def right(self, kind: str, eps: float) -> np.ndarray:
        """Returns whether each network is right on each image: float (n, networks)."""
        networks = self.networks().values()
        right = [tried.right(kind, eps, of=self.range).astype(float) for tried in networks]
        return np.stack(right, axis=1)

    def loss(self) -> np.ndarray:
        """Returns each image's part in the accuracy lost: (n, networks, eps), of -1, 0, 1."""
        clean = self.right(OWN_ATTACK, 0.0)
        return np.stack([clean - self.right(TRANSFERRED, eps) for eps in self.plan.eps], axis=2)

    def families(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns places of wide and of deep networks, None where one of the kinds is missing.

        The network on which the attack was made is left out: on it nothing is transferred.
        """
        kinds = np.array(
            [
                "" if name == self.plan.transferred else tried.family or ""
                for name, tried in self.networks().items()
            ]
        )
        wide, deep = (np.flatnonzero(kinds == family) for family in ("wide", "deep"))
        return (wide, deep) if len(wide) and len(deep) else None

    def draws(self, images: pd.DataFrame) -> Resampler:
        """Returns resamples of source pictures, the same for the same pictures."""
        rng = randomness.generator(self.seed, "generalisation", self.name)
        sources = images["source"].to_numpy()
        return Resampler.draw(sources, resamples=self.settings.resamples, rng=rng)

    def means(self, values: np.ndarray, images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Returns means over images (...) and in each resample (resamples, ...); NaN left out."""
        flat = values.reshape(len(values), -1).astype(float)
        known = ~np.isnan(flat)
        with np.errstate(invalid="ignore"):
            mean = np.where(known, flat, 0).sum(0) / known.sum(0)
        resamples = self.draws(images).means(flat)
        return mean.reshape(values.shape[1:]), resamples.reshape(-1, *values.shape[1:])

    def interval(self, resamples: np.ndarray) -> tuple[float, float]:
        """Returns the interval of a statistic from its resamples (resamples,)."""
        low, high = statistics.interval(
            resamples[:, None],
            confidence=self.settings.confidence,
            clusters=self.images["source"].nunique(),
        )
        return float(low[0]), float(high[0])


def read(
    name: str,
    folder: Callable[[str], Path],
    plan: TransferStudy,
    targets: dict[str, Target],
    preprocessed: set[str],
    settings: StatisticsSettings,
    *,
    seed: int,
) -> Comparison:
    """Returns the results of the stages of a study.

    Args:
        name: of the study.
        folder: of a target's results, by the target's name.
        plan: its settings.
        targets: of it, by name.
        preprocessed: sets whose pictures are preprocessed.
        settings: of intervals.
        seed: of the resamples.

    Raises:
        SettingsError: networks cannot be compared, since they were not tried alike.
    """
    tried: dict[tuple[str, str], Tried] = {}
    for end, target in sorted(targets.items(), key=lambda item: item[1].set):
        arm = PREPROCESSED if target.set in preprocessed else PLAIN
        part = storage.read(Transferred, folder(end))
        tried.setdefault((target.network, arm), Tried(target.family, [])).parts.append(part)
    order = list(dict.fromkeys(target.network for target in targets.values()))
    arms = (PLAIN, PREPROCESSED)
    inorder = sorted(tried, key=lambda key: (arms.index(key[1]), order.index(key[0])))
    _alike(name, tried)
    sets = frozenset(re.sub(r"_\d+$", "", target.set) for target in targets.values())
    return Comparison(name, plan, {key: tried[key] for key in inorder}, settings, seed, sets)


def _alike(name: str, tried: dict[tuple[str, str], Tried]) -> None:
    """Refuses networks that were not tried on the same images, or not alike on all their sets."""
    place = f"study '{name}'"
    ids: dict[str, list[str]] = {}
    for (network, arm), each in tried.items():
        own = each.images["id"].tolist()
        twice = each.images["id"][each.images["id"].duplicated()].tolist()
        if twice:
            raise SettingsError(
                f"{place}: image '{twice[0]}' is tested on two sets of {network}, wanted folds "
                "without a common test image"
            )
        if own != ids.setdefault(arm, own):
            raise SettingsError(f"{place}: {network} has other test images than the other networks")
        first, *rest = each.parts
        for part in rest:
            same = part.variants.equals(first.variants)
            same &= part.layers["name"].equals(first.layers["name"])
            same &= set(part.outcomes["attack"]) == set(first.outcomes["attack"])
            if not same:
                raise SettingsError(
                    f"{place}: {network} has other sources or layers on one of its sets, wanted "
                    "the same on all"
                )
    if len({tuple(sorted(own)) for own in ids.values()}) > 1:
        raise SettingsError(
            f"{place}: sets with and without preprocessing have other test images, wanted sets "
            "that differ in `preprocessing` alone"
        )


def levels(
    comparison: Comparison,
    tried: Tried,
    kind: str,
    explains: str,
    *,
    with_clean: bool,
    blank: bool = False,
) -> np.ndarray:
    """Returns NISSIM of each image at each eps, with a first level of 0 for the clean image."""
    values = [tried.shift(kind, eps, explains, blank=blank) for eps in comparison.plan.eps]
    return np.stack([np.zeros_like(values[0])] * with_clean + values, axis=1)


def outcomes(
    comparison: Comparison, explains: str, *, blank: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns NISSIM of images that fail under the transferred attack, and of those that do not.

    Both (n, networks, judged eps), NaN at images of the other kind and at those that a network gets
    wrong clean.
    """
    at = comparison.judged
    shift, lost = comparison.shift(explains, blank=blank)[..., at], comparison.loss()[..., at]
    clean = comparison.right(OWN_ATTACK, 0.0)[:, :, None] == 1
    failed, stays = (np.where(clean & (lost == outcome), shift, np.nan) for outcome in (1, 0))
    return failed, stays


def paired(
    comparison: Comparison, network: str, eps: float, *, kind: str = TRANSFERRED
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether a network is right on each image, plain and preprocessed: bool (n,) each.

    Under an attack, or on the clean images at eps 0; the images are those of both arms.
    """
    plain, other = (comparison.tried[network, arm] for arm in (PLAIN, PREPROCESSED))
    kind = kind if eps else OWN_ATTACK
    right = other.right(kind, eps, of=comparison.range)
    place = pd.Series(range(len(right)), index=other.images["id"])
    right = right[place.loc[plain.images["id"]].to_numpy()]
    return plain.right(kind, eps, of=comparison.range), right

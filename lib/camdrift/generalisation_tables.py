"""What a generalisation comes to, as tables: accuracy, PSNR, MOD, VID, network by network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from camdrift import artifacts, randomness, shifts, statistics
from camdrift.artifacts import (
    CARRIED,
    CARRIED_NOISE,
    MADE_ON,
    OWN_ATTACK,
    POLICIES,
    Carried,
)
from camdrift.settings import (
    RANGES,
    Generalisation,
    SettingsError,
    StatisticsSettings,
    Target,
)
from camdrift.statistics import Resampler
from camdrift.tables import rounded

ATTACKS = (OWN_ATTACK, CARRIED, CARRIED_NOISE)
PLAIN, PREPROCESSED = "none", "preprocessed"  # arms


@dataclass(frozen=True)
class Tried:
    """What attacks did to a network, on the test images of all its sets, one after another.

    family: of the network.
    parts: what was written of each set.
    """

    family: str | None
    parts: list[Carried]

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image: `image, id, source, label, class_name`."""
        return pd.concat([part.images for part in self.parts], ignore_index=True)

    @cached_property
    def _predictions(self) -> dict[tuple[str, str, float], np.ndarray]:
        found: dict[tuple[str, str, float], list[np.ndarray]] = {}
        for part in self.parts:
            for key, rows in part.outcomes.groupby(["attack", "range", "eps"], sort=False):
                found.setdefault(key, []).append(rows["prediction"].to_numpy())  # type: ignore[arg-type]
        return {key: np.concatenate(values) for key, values in found.items()}

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
        """Returns NISSIM of the last layer at the input's size: (n,), see `Carried.last`."""
        return self._last[:, self._place(kind, eps), POLICIES.index(explains), int(blank)]

    def by_layer(self, kind: str, eps: float, explains: str) -> np.ndarray:
        """Returns NISSIM of each layer at its own size: (n, layers)."""
        place, policy = self._place(kind, eps), POLICIES.index(explains)
        return np.concatenate([part.shifts[:, place, policy] for part in self.parts])


@dataclass(frozen=True)
class Comparison:
    """What the stages of a generalisation wrote, and how it is judged.

    tried: by network and arm.
    """

    name: str
    plan: Generalisation
    tried: dict[tuple[str, str], Tried]
    chosen: StatisticsSettings
    seed: int

    @property
    def of(self) -> str:
        """The range that eps is of."""
        return self.plan.ranges[0]

    def networks(self, arm: str = PLAIN) -> dict[str, Tried]:
        """Returns the networks of an arm; their images are the same, in the same order."""
        return {network: tried for (network, of), tried in self.tried.items() if of == arm}

    @cached_property
    def arms(self) -> list[str]:
        """The arms that were tried."""
        return list(dict.fromkeys(arm for _, arm in self.tried))

    def draws(self, images: pd.DataFrame) -> Resampler:
        """Returns resamples of source pictures, the same for the same pictures."""
        rng = randomness.generator(self.seed, "generalisation", self.name)
        sources = images["source"].to_numpy()
        return Resampler.of(sources, resamples=self.chosen.resamples, rng=rng)

    def means(self, values: np.ndarray, images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Returns means over images (...) and in each resample (resamples, ...); NaN left out."""
        flat = values.reshape(len(values), -1).astype(float)
        known = ~np.isnan(flat)
        with np.errstate(invalid="ignore"):
            mean = np.where(known, flat, 0).sum(0) / known.sum(0)
        drawn = self.draws(images).means(flat)
        return mean.reshape(values.shape[1:]), drawn.reshape(-1, *values.shape[1:])

    def interval(self, drawn: np.ndarray) -> tuple[float, float]:
        """Returns the interval of a statistic from its resamples (resamples,)."""
        low, high = statistics.interval(drawn[:, None], confidence=self.chosen.confidence)
        return float(low[0]), float(high[0])


def read(
    name: str,
    plan: Generalisation,
    targets: dict[str, Target],
    preprocessed: set[str],
    chosen: StatisticsSettings,
    *,
    seed: int,
) -> Comparison:
    """Returns what the stages of a generalisation wrote.

    Args:
        name: of the generalisation.
        plan: its settings.
        targets: of it, by name.
        preprocessed: sets whose pictures are preprocessed.
        chosen: intervals.
        seed: of the resamples.

    Raises:
        SettingsError: networks cannot be compared, since they were not tried alike.
    """
    tried: dict[tuple[str, str], Tried] = {}
    for end, target in sorted(targets.items(), key=lambda item: item[1].set):
        arm = PREPROCESSED if target.set in preprocessed else PLAIN
        folder = artifacts.generalisation_folder(name, "carried", end)
        part = artifacts.read(Carried, folder)
        tried.setdefault((target.network, arm), Tried(target.family, [])).parts.append(part)
    order = list(dict.fromkeys(target.network for target in targets.values()))
    arms = (PLAIN, PREPROCESSED)
    inorder = sorted(tried, key=lambda key: (arms.index(key[1]), order.index(key[0])))
    _alike(name, tried)
    return Comparison(name, plan, {key: tried[key] for key in inorder}, chosen, seed)


def _alike(name: str, tried: dict[tuple[str, str], Tried]) -> None:
    """Refuses networks that were not tried on the same images, or not alike on all their sets."""
    place = f"generalisation '{name}'"
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


def tables(found: Comparison) -> dict[str, pd.DataFrame]:
    """Returns the tables of a generalisation by name; all but `psnr` have `network`.

    networks: `preprocessing, family, size` (input, px), `convs, channels` (mean of the convs),
        `parameters` (batch norms folded), `images`.
    accuracy: tables 1 and 2 of the paper: `preprocessing, attack, range, eps, images, right,
        accuracy, low, high` (Wilson).
    matrix: `preprocessing, made_on, eps, accuracy, lost` (since clean).
    psnr: `preprocessing, attack, range, eps, psnr, unclipped` in dB, figure 3.
    mod: table 3: `preprocessing, attack, explains, eps, group, images, empty` (share of pairs left
        out), `mod, low, high, blank` (MOD with empty maps taken as they are). Groups are all
        images, those whose class the attack keeps, and the others. Network 'mean' is the paper's
        last row.
    nissim, vid: figure 4, both readings, by `explains`: quartiles, 5 % and 95 % of the images.
    layers: at the largest eps: `preprocessing, attack, explains, depth, layer, side, images, mod`.
    pairs: preprocessed against plain, image by image.
    """
    made = {
        "networks": pd.DataFrame(_networks(found)),
        "accuracy": pd.DataFrame(_accuracy(found)),
        "matrix": pd.DataFrame(_matrix(found)),
        "psnr": pd.DataFrame(_psnr(found)),
        "mod": _mod(found),
        "nissim": pd.DataFrame(_nissim(found)),
        "vid": pd.DataFrame(_vid(found)),
        "layers": pd.DataFrame(_layers(found)),
        "pairs": pd.DataFrame(_pairs(found), columns=PAIRS),
    }
    return {name: rounded(table) for name, table in made.items()}


def metrics(made: dict[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """Returns a generalisation's summary: accuracy and MOD under the carried attack, by network."""
    found: dict[str, dict[str, float]] = {}
    for row in made["accuracy"].query("attack in ('clean', 'carried')").itertuples():
        key = f"{row.network}, {row.preprocessing}"
        found.setdefault(key, {})[f"accuracy at {row.range} {row.eps:g}"] = row.accuracy
    for row in made["mod"].query("attack == 'carried' and group == 'all'").itertuples():
        key = f"{row.network}, {row.preprocessing}"
        if not np.isnan(row.mod):
            found.setdefault(key, {})[f"MOD at {row.eps:g}, {row.explains}"] = row.mod
    return found


def _networks(found: Comparison) -> Iterator[dict]:
    for (network, arm), tried in found.tried.items():
        facts = tried.parts[0].facts
        yield {"network": network, "preprocessing": arm, "family": tried.family or "", **facts,
               "images": len(tried.images)}  # fmt: skip


def _accuracy(found: Comparison) -> Iterator[dict]:
    for (network, arm), tried in found.tried.items():
        for kind, of, eps in tried.met:
            if kind not in ATTACKS:
                continue
            right = tried.right(kind, eps, of=of)
            test = binomtest(int(right.sum()), len(right))
            range_ = test.proportion_ci(found.chosen.confidence, method="wilson")
            yield {"network": network, "preprocessing": arm, "attack": kind if eps else "clean",
                   "range": of, "eps": eps, "images": len(right), "right": int(right.sum()),
                   "accuracy": right.mean(), "low": range_.low, "high": range_.high}  # fmt: skip


def _matrix(found: Comparison) -> Iterator[dict]:
    for (network, arm), tried in found.tried.items():
        clean = tried.right(OWN_ATTACK, 0.0, of=found.of).mean()
        names = {OWN_ATTACK: network, CARRIED: found.plan.carried}
        for kind, of, eps in tried.met:
            made_on = names.get(kind, kind.removeprefix(MADE_ON))
            twice = kind == CARRIED and network == found.plan.carried
            if kind == CARRIED_NOISE or of != found.of or not eps or twice:
                continue
            reached = tried.right(kind, eps, of=of).mean()
            yield {"network": network, "preprocessing": arm, "made_on": made_on, "eps": eps,
                   "accuracy": reached, "lost": clean - reached}  # fmt: skip


def _psnr(found: Comparison) -> Iterator[dict]:
    for arm in found.arms:
        tried = next(iter(found.networks(arm).values()))
        rows = pd.concat([part.outcomes for part in tried.parts])
        rows = rows[rows["attack"].isin([CARRIED, CARRIED_NOISE]) & (rows["eps"] > 0)]
        for (kind, of, eps), part in rows.groupby(["attack", "range", "eps"], sort=False):
            yield {"preprocessing": arm, "attack": kind, "range": of, "eps": eps,
                   "psnr": part["psnr"].mean(),
                   "unclipped": shifts.psnr_of(RANGES[of] * eps)}  # fmt: skip


def _mod(found: Comparison) -> pd.DataFrame:
    rows = []
    for (network, arm), tried in found.tried.items():
        clean = tried.predictions(OWN_ATTACK, 0.0, of=found.of)
        for kind in ATTACKS:
            for eps in found.plan.eps if tried.has(kind) else ():
                kept = tried.predictions(kind, eps, of=found.of) == clean
                groups = {"all": np.ones(len(kept), bool), "class kept": kept, "class lost": ~kept}
                for explains in POLICIES:
                    shift = tried.shift(kind, eps, explains)
                    blank = tried.shift(kind, eps, explains, blank=True)
                    for group, chosen in groups.items():
                        values = np.where(chosen, shift, np.nan)
                        mean, drawn = found.means(values[:, None], tried.images)
                        low, high = found.interval(drawn[:, 0])
                        empty = np.isnan(shift[chosen])
                        some = bool(chosen.any())
                        rows.append({
                            "network": network, "preprocessing": arm, "attack": kind,
                            "explains": explains, "eps": eps, "group": group,
                            "images": int(np.isfinite(values).sum()),
                            "empty": empty.mean() if some else np.nan, "mod": mean[0],
                            "low": low, "high": high,
                            "blank": blank[chosen].mean() if some else np.nan,
                        })  # fmt: skip
    table = pd.DataFrame(rows)
    keys = ["preprocessing", "attack", "explains", "eps", "group"]
    mean = table[table["group"] == "all"].groupby(keys, sort=False)[["mod", "blank"]].mean()
    return pd.concat([table, mean.reset_index().assign(network="mean")], ignore_index=True)


def _quartiles(values: np.ndarray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    ends = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95]) if len(known) else np.full(5, np.nan)
    return dict(zip(("low", "q1", "median", "q3", "high"), ends, strict=True))


def _nissim(found: Comparison) -> Iterator[dict]:
    for (network, arm), tried in found.tried.items():
        for kind in ATTACKS:
            every = product(POLICIES, found.plan.eps) if tried.has(kind) else ()
            for explains, eps in every:
                values = tried.shift(kind, eps, explains)
                yield {"network": network, "preprocessing": arm, "attack": kind,
                       "explains": explains, "eps": eps,
                       "images": int(np.isfinite(values).sum()),
                       **_quartiles(values)}  # fmt: skip


def levels(
    found: Comparison,
    tried: Tried,
    kind: str,
    explains: str,
    *,
    with_clean: bool,
    blank: bool = False,
) -> np.ndarray:
    """Returns NISSIM of each image at each eps, with a first level of 0 for the clean image."""
    values = [tried.shift(kind, eps, explains, blank=blank) for eps in found.plan.eps]
    return np.stack([np.zeros_like(values[0])] * with_clean + values, axis=1)


def _vid(found: Comparison) -> Iterator[dict]:
    for (network, arm), tried in found.tried.items():
        for kind in (kind for kind in ATTACKS if tried.has(kind)):
            for explains, with_clean in product(POLICIES, (False, True)):
                each = shifts.vid(levels(found, tried, kind, explains, with_clean=with_clean))
                mean, drawn = found.means(each[:, None], tried.images)
                low, high = found.interval(drawn[:, 0])
                yield {"network": network, "preprocessing": arm, "attack": kind,
                       "explains": explains,
                       "levels": "with the clean image" if with_clean else "eps above 0",
                       "images": int(np.isfinite(each).sum()), "vid": mean[0], "vid_low": low,
                       "vid_high": high, **_quartiles(each)}  # fmt: skip


def _layers(found: Comparison) -> Iterator[dict]:
    eps = found.plan.eps[-1]
    for (network, arm), tried in found.tried.items():
        facts = tried.parts[0].layers
        for kind in (kind for kind in ATTACKS if tried.has(kind)):
            for explains in POLICIES:
                values = tried.by_layer(kind, eps, explains)
                for i, layer in enumerate(facts.itertuples()):
                    known = np.isfinite(values[:, i])
                    yield {"network": network, "preprocessing": arm, "attack": kind,
                           "explains": explains, "depth": i + 1, "layer": layer.label,
                           "side": layer.height, "images": int(known.sum()),
                           "mod": values[known, i].mean() if known.any() else np.nan}  # fmt: skip


PAIRS = ("network", "eps", "images", "plain", "preprocessed", "difference", "low", "high",
         "only_plain", "only_preprocessed")  # fmt: skip


def paired(found: Comparison, network: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether a network is right on each image, plain and preprocessed: bool (n,) each.

    Under the carried attack, or on the clean images at eps 0; the images are those of both arms.
    """
    plain, other = (found.tried[network, arm] for arm in (PLAIN, PREPROCESSED))
    kind = CARRIED if eps else OWN_ATTACK
    right = other.right(kind, eps, of=found.of)
    place = pd.Series(range(len(right)), index=other.images["id"])
    return plain.right(kind, eps, of=found.of), right[place.loc[plain.images["id"]].to_numpy()]


def _pairs(found: Comparison) -> Iterator[tuple]:
    for network in found.networks(PREPROCESSED):
        for eps in (0.0, *found.plan.eps):
            plain, other = paired(found, network, eps)
            change = other.astype(float) - plain
            mean, drawn = found.means(change[:, None], found.tried[network, PLAIN].images)
            low, high = found.interval(drawn[:, 0])
            yield (network, eps, len(plain), plain.mean(), other.mean(), mean[0], low, high,
                   int((plain & ~other).sum()), int((other & ~plain).sum()))  # fmt: skip

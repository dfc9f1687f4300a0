"""Judges of chakraborty2022's claims: what attacks did to networks becomes a verdict.

Maps are those of the last conv layer at the input's size, attacks the carried one but where another
is named, and eps the largest. A verdict speaks of the networks that were tried.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from camdrift import statistics
from camdrift.artifacts import CARRIED, CARRIED_NOISE, OWN_ATTACK
from camdrift.claims import (
    CHAKRABORTY,
    FOUND,
    NOT_RUN,
    Finding,
    nothing,
    verdict_of_interval,
    verdict_of_parts,
    worst,
)
from camdrift.generalisation_tables import PREPROCESSED, Comparison, Tried, levels, paired
from camdrift.settings import FlagSettings
from camdrift.shifts import vid
from camdrift.tables import rounded
from camdrift.verdicts import of_claims

STABLE = "VGG16"  # the network that the paper calls the most stable
FROM = 0.05  # the least eps at which preprocessing is to help


def _shift(found: Comparison) -> np.ndarray:
    """Returns NISSIM of each image: (n, networks, eps)."""
    return np.stack(
        [
            levels(found, tried, CARRIED, found.plan.explains, with_clean=False)
            for tried in found.networks().values()
        ],
        axis=1,
    )  # fmt: skip


def _right(found: Comparison, kind: str, eps: float) -> np.ndarray:
    """Returns whether each network is right on each image: float (n, networks).

    NaN of a network on which the attack was not tried.
    """

    def of(tried: Tried) -> np.ndarray:
        if eps and (kind, found.of, eps) not in tried.met:
            return np.full(len(tried.images), np.nan)
        return tried.right(kind, eps, of=found.of).astype(float)

    return np.stack([of(tried) for tried in found.networks().values()], axis=1)


def _lost(found: Comparison, kind: str) -> np.ndarray:
    """Returns accuracy lost by each image's account: (n, networks, eps), of -1, 0, 1."""
    clean = _right(found, OWN_ATTACK, 0.0)
    return np.stack([clean - _right(found, kind, eps) for eps in found.plan.eps], axis=2)


def _images(found: Comparison) -> pd.DataFrame:
    return next(iter(found.networks().values())).images


def _families(found: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Returns places of wide and of deep networks, but that on which the attack was made."""
    family = {
        name: None if name == found.plan.carried else tried.family
        for name, tried in found.networks().items()
    }
    names = np.array([str(kind) for kind in family.values()])
    return np.flatnonzero(names == "wide"), np.flatnonzero(names == "deep")


def mod_rises(found: Comparison) -> Finding:
    """Judges D1: MOD rises from each eps to the next, network by network.

    A network's smallest step must be above 0; the value is the smallest of all.
    """
    value, drawn = found.means(_shift(found), _images(found))
    steps = np.diff(value, axis=1).min(1)
    ranges = [found.interval(part) for part in np.diff(drawn, axis=2).min(2).T]
    if np.isnan(steps).any():
        return nothing("a network has no map to compare")
    parts = [verdict_of_interval(*ends, above=0) for ends in ranges]
    detail = "MOD, and its smallest step: " + ", ".join(
        f"{name} {mods[0]:.3f} to {mods[-1]:.3f}, {step:.3f} [{low:.3f}, {high:.3f}]"
        for name, mods, step, (low, high) in zip(
            found.networks(), value, steps, ranges, strict=True
        )
    )
    least = int(steps.argmin())
    return Finding(float(steps[least]), *ranges[least], verdict_of_parts(parts), detail)


def wide_lose_more(found: Comparison) -> Finding:
    """Judges D2: accuracy lost, mean of wide networks minus that of deep ones.

    The network on which the attack was made is left out: on it nothing is carried. The second
    reading is of networks with inputs of one size.
    """
    wide, deep = _families(found)
    if not len(wide) or not len(deep):
        return nothing("wanted deep and wide networks beside that on which the attack was made")
    value, drawn = found.means(_lost(found, CARRIED)[:, :, -1], _images(found))
    names = list(found.networks())
    texts = ", ".join(f"{names[i]} {value[i]:.3f}" for i in (*deep, *wide))
    sizes = np.array([tried.parts[0].facts["size"] for tried in found.networks().values()])
    detail = f"lost at eps {found.plan.eps[-1]:g}: {texts}"
    common = max(set(sizes.tolist()), key=sizes.tolist().count)
    same = [places[sizes[places] == common] for places in (wide, deep)]
    if (sizes == common).all():
        detail += f"; inputs of all are {common} px, normalised alike"
    elif all(len(places) for places in same):
        gap = drawn[:, same[0]].mean(1) - drawn[:, same[1]].mean(1)
        low, high = found.interval(gap)
        equal = value[same[0]].mean() - value[same[1]].mean()
        detail += f"; of those at {common} px alone {equal:.3f} [{low:.3f}, {high:.3f}]"
    gap = drawn[:, wide].mean(1) - drawn[:, deep].mean(1)
    low, high = found.interval(gap)
    verdict = verdict_of_interval(low, high, above=0.1)
    return Finding(float(value[wide].mean() - value[deep].mean()), low, high, verdict, detail)


def wide_lose_more_at_equal_shift(found: Comparison) -> Finding:
    """Judges D3: accuracy lost at the same MOD, wide minus deep.

    Lost accuracy against MOD is a line from (0, 0) through the eps of a network; where MOD falls,
    the largest so far stands. The mean over ten MOD up to the largest that all reach.
    """
    wide, deep = _families(found)
    if not len(wide) or not len(deep):
        return nothing("wanted deep and wide networks beside that on which the attack was made")
    images = _images(found)
    both = np.stack([_shift(found), _lost(found, CARRIED)], axis=3)[:, [*wide, *deep]]
    value, drawn = found.means(both, images)

    def gap(curves: np.ndarray) -> float:
        mods, lost = np.maximum.accumulate(curves[..., 0], axis=1), curves[..., 1]
        grid = np.linspace(0, mods[:, -1].min(), 11)[1:]
        at = np.array([
            np.interp(grid, [0, *mod], [0, *loss]).mean()
            for mod, loss in zip(mods, lost, strict=True)
        ])  # fmt: skip
        return float(at[: len(wide)].mean() - at[len(wide) :].mean())

    if np.isnan(value).any() or np.isnan(drawn).all():
        return nothing("a network has no map to compare, or there is one source picture alone")
    low, high = found.interval(np.array([gap(curves) for curves in drawn]))
    shared = value[..., 0].max(1).min()
    detail = f"mean over MOD up to {shared:.3f}, the largest that all reach"
    return Finding(gap(value), low, high, verdict_of_interval(low, high, above=0), detail)


def one_is_most_stable(found: Comparison) -> Finding:
    """Judges D4: VGG16 has the lowest MOD and the lowest mean VID.

    Both of the nearest other network minus its own must be above 0; the value is that which
    decides.
    """
    names = list(found.networks())
    if STABLE not in names or len(names) < 2:
        return nothing(f"wanted {STABLE} beside other networks, got {', '.join(names)}")
    shift = _shift(found)
    each = np.stack([vid(shift[:, i]) for i in range(len(names))], axis=1)
    value, drawn = found.means(np.stack([shift[:, :, -1], each], axis=2), _images(found))
    if np.isnan(value).any():
        return nothing("a network has no map to compare")
    mine, others = names.index(STABLE), [i for i, name in enumerate(names) if name != STABLE]
    gaps = value[others].min(0) - value[mine]
    drawn_gaps = drawn[:, others].min(1) - drawn[:, mine]
    measured = [(float(gaps[k]), *found.interval(drawn_gaps[:, k])) for k in (0, 1)]
    parts = [verdict_of_interval(low, high, above=0) for _, low, high in measured]
    ranks = [int((value[:, k] < value[mine, k]).sum()) + 1 for k in (0, 1)]
    detail = f"rank {ranks[0]} by MOD and {ranks[1]} by VID of {len(names)}: " + ", ".join(
        f"{name} {row[0]:.3f} and {row[1]:.3f}" for name, row in zip(names, value, strict=True)
    )
    return worst(measured, parts, detail)


def carries_over(found: Comparison) -> Finding:
    """Judges D5: accuracy lost by the carried attack minus that by noise of its size.

    Of each network but that on which the attack was made; the value is the least.
    """
    others = [i for i, name in enumerate(found.networks()) if name != found.plan.carried]
    if not others:
        return nothing("wanted other networks than that on which the attack was made")
    eps = found.plan.eps[-1]
    beyond = _right(found, CARRIED_NOISE, eps) - _right(found, CARRIED, eps)
    value, drawn = found.means(beyond[:, others], _images(found))
    ranges = [found.interval(drawn[:, k]) for k in range(len(others))]
    parts = [verdict_of_interval(*ends, above=0.05) for ends in ranges]
    names = list(found.networks())
    detail = ", ".join(
        f"{names[i]} {mean:.3f} [{low:.3f}, {high:.3f}]"
        for i, mean, (low, high) in zip(others, value, ranges, strict=True)
    )
    least = int(value.argmin())
    return Finding(float(value[least]), *ranges[least], verdict_of_parts(parts), detail)


def shift_explains_failure(found: Comparison) -> Finding:
    """Judges D6: MOD goes with accuracy lost, and with failing at a fixed eps.

    The rank correlation over networks and eps; and the mean difference of NISSIM between images
    that a network gets wrong under the attack and those that it still gets right, of those that it
    gets right clean, over networks and eps.
    """
    shift, lost = _shift(found), _lost(found, CARRIED)
    clean = _right(found, OWN_ATTACK, 0.0)[:, :, None] == 1
    failed, stays = clean & (lost == 1), clean & (lost == 0)
    parts_of = [np.where(chosen, shift, np.nan) for chosen in (failed, stays)]
    value, drawn = found.means(np.stack([shift, lost, *parts_of], axis=3), _images(found))

    def ranked(table: np.ndarray) -> float:
        flat = table[..., :2].reshape(-1, 2)
        weights = np.ones((1, len(flat)))
        return float(statistics.spearman(flat[:, 0], flat[:, 1], weights=weights)[0])

    def apart(table: np.ndarray) -> float:
        differences = table[..., 2] - table[..., 3]
        known = differences[np.isfinite(differences)]
        return float(known.mean()) if len(known) else float("nan")

    measured = []
    for of in (ranked, apart):
        low, high = found.interval(np.array([of(table) for table in drawn]))
        measured.append((of(value), low, high))
    if np.isnan(measured[0][0]) or np.isnan(measured[1][0]):
        return nothing("no network fails anywhere, or maps are all empty")
    verdicts = [
        verdict_of_interval(*ends[1:], above=above)
        for ends, above in zip(measured, (0.6, 0), strict=True)
    ]  # fmt: skip
    detail = (
        "rank correlation {:.2f} [{:.2f}, {:.2f}] over {} points; failed minus not "
        "{:.3f} [{:.3f}, {:.3f}]"
    ).format(*measured[0], value[..., 0].size, *measured[1])
    return worst(measured, verdicts, detail)


def preprocessing_helps(found: Comparison) -> Finding:
    """Judges D7: accuracy with preprocessing minus without, on the same images.

    Mean over the networks that were tried both ways, at each eps from 0.05 on; each must be above
    0. The value is that of the eps that decides.
    """
    networks = list(found.networks(PREPROCESSED))
    if not networks:
        return nothing("no set with preprocessing beside one without", NOT_RUN)
    levels_ = [eps for eps in found.plan.eps if eps >= FROM]
    if not levels_:
        return nothing(f"no eps from {FROM:g} on", NOT_RUN)

    def change(network: str, eps: float) -> np.ndarray:
        plain, other = paired(found, network, eps)
        return other.astype(float) - plain

    each = np.stack([[change(n, eps) for eps in levels_] for n in networks]).transpose(2, 0, 1)
    value, drawn = found.means(each, _images(found))
    ranges = [
        (float(value[:, k].mean()), *found.interval(drawn[..., k].mean(1)))
        for k in range(len(levels_))
    ]
    parts = [verdict_of_interval(low, high, above=0) for _, low, high in ranges]
    detail = ", ".join(
        f"eps {eps:g}: {mean:.3f} [{low:.3f}, {high:.3f}]"
        for eps, (mean, low, high) in zip(levels_, ranges, strict=True)
    )
    detail += "; mean by network " + ", ".join(
        f"{name} {row.mean():.3f}" for name, row in zip(networks, value, strict=True)
    )
    return worst(ranges, parts, detail)


# Each claim's judge, and the thresholds that its value is held against.
JUDGES: dict[str, tuple[Callable[[Comparison], Finding], tuple[float, ...]]] = {
    "D1": (mod_rises, (0,)),
    "D2": (wide_lose_more, (0.1,)),
    "D3": (wide_lose_more_at_equal_shift, (0,)),
    "D4": (one_is_most_stable, (0,)),
    "D5": (carries_over, (0.05,)),
    "D6": (shift_explains_failure, (0.6, 0)),
    "D7": (preprocessing_helps, (0,)),
}
ON_MAPS = ("D1", "D3", "D4", "D6")


def flags(found: Comparison, made: dict[str, pd.DataFrame], limits: FlagSettings) -> pd.DataFrame:
    """Returns what must be known before a verdict is believed, in the columns of `flags.of_cell`.

    Too many pairs with an empty map, and too few pictures behind intervals.
    """
    rows = []
    mods = made["mod"].query(
        "attack == 'carried' and group == 'all' and preprocessing == 'none' and network != 'mean' "
        "and explains == @found.plan.explains"
    )
    shares = mods.groupby("network", sort=False)["empty"].max()
    shares = shares[shares > limits.empty_share]
    if len(shares):
        each = ", ".join(f"{network} {share:.0%}" for network, share in shares.items())
        text = f"maps are empty in up to this share of the pairs: {each}"
        touched = " ".join(ON_MAPS)
        rows.append(("empty maps", shares.max(), limits.empty_share, touched, "", text))
    count = _images(found)["source"].nunique()
    if count < limits.minimum_sources:
        text = f"only {count} source pictures, wanted {limits.minimum_sources}"
        every = " ".join(JUDGES)
        rows.append(("few sources", count, limits.minimum_sources, every, "", text))
    return pd.DataFrame(rows, columns=["flag", "value", "limit", "touches", "protocols", "text"])


def claims(
    found: Comparison, made: dict[str, pd.DataFrame], limits: FlagSettings
) -> pd.DataFrame:  # fmt: skip
    """Returns the claims table of a generalisation: the paper's claims, as `verdicts.of_claims`."""
    everyone = len(_images(found))
    rows = []
    for claim, (judge, thresholds) in JUDGES.items():
        finding = judge(found).wanting(everyone, *thresholds)
        images = 0 if finding.verdict == NOT_RUN else everyone
        rows.append(("corrected", claim, finding.value, finding.low, finding.high,
                     finding.verdict, images, finding.detail))  # fmt: skip
    networks = found.networks()
    side = next(iter(networks.values())).parts[0].pictures.shape[2]
    rests_on = (
        f"{everyone} test images of {side} px, {_images(found)['source'].nunique()} source "
        f"pictures; {', '.join(networks)}; attack made on {found.plan.carried}, "
        f"eps of pixels in {'[0, 1]' if found.of == 'unit' else '[-1, 1]'}"
    )
    whole = of_claims(
        pd.DataFrame(rows, columns=FOUND),
        rests_on=lambda claim: rests_on,
        flags=flags(found, made, limits),
    )
    return rounded(whole[whole["paper"] == CHAKRABORTY])

"""Judges of chakraborty2022's claims: what attacks did to networks becomes a verdict.

Maps are those of the last conv layer at the input's size, attacks the transferred one but where
another is named, and eps the largest. A verdict speaks of the networks that were tried.

A claim on maps is judged three ways: on maps of the class that the settings name, pairs with an
empty map left out; with an empty map compared as it is, blank; and on maps of the other class. The
first decides, unless too many of its maps are empty.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.flags import AT_CHANCE
from camdrift.analysis.tables import as_text, rounded
from camdrift.datasets import chance
from camdrift.papers import claims
from camdrift.papers.chakraborty2022.claims import CLAIMS
from camdrift.papers.chakraborty2022.comparison import (
    PLAIN,
    PREPROCESSED,
    Comparison,
    Tried,
    levels,
    paired,
)
from camdrift.papers.findings import (
    FINDING_COLUMNS,
    HOLDS,
    NOT_RUN,
    UNDECIDED,
    Finding,
    nothing,
    verdict_of_all,
    verdict_of_interval,
    verdict_of_parts,
    verdict_of_range,
)
from camdrift.scores import vid
from camdrift.settings import FlagSettings
from camdrift.storage import OWN_ATTACK, POLICIES, TRANSFERRED, TRANSFERRED_NOISE

STABLE = "VGG16"  # the network that the paper calls the most stable
FROM = 0.05  # the least eps at which preprocessing is to help


@dataclass(frozen=True)
class Reading:
    """Which maps a claim is judged on.

    explains: the class that they explain.
    blank: whether an empty map is compared as it is, and not left out.
    """

    explains: str
    blank: bool


@dataclass(frozen=True)
class Part:
    """One of several things that a claim asks for.

    name: of what.
    value, low, high: what was measured, with its interval.
    above: what it is to be above.
    """

    name: str
    value: float
    low: float
    high: float
    above: float

    @property
    def verdict(self) -> str:
        """The verdict on this part alone."""
        return verdict_of_interval(self.low, self.high, above=self.above)


def _finding(parts: list[Part], verdict: str, detail: str, images: int) -> Finding:
    """Returns the finding on several parts: the value is that of the part that decides.

    Of those with the verdict of the whole, or else of those that do not hold, the one that is
    lowest against what it is to be above. Where it is not decided, the detail says which part that
    is and how many images would decide it.
    """
    deciding = [part for part in parts if part.verdict == verdict]
    deciding = deciding or [part for part in parts if part.verdict != HOLDS]
    part = min(deciding, key=lambda part: part.value - part.above)
    if len(parts) > 1:
        detail = f"{detail}; the value is that of {part.name}"
    found = Finding(part.value, part.low, part.high, verdict, detail)
    return found.with_images_needed(images, part.above)


def _shift(found: Comparison, reading: Reading) -> np.ndarray:
    """Returns NISSIM of each image: (n, networks, eps)."""
    return np.stack(
        [
            levels(
                found, tried, TRANSFERRED, reading.explains, with_clean=False, blank=reading.blank
            )
            for tried in found.networks().values()
        ],
        axis=1,
    )


def _right(found: Comparison, kind: str, eps: float) -> np.ndarray:
    """Returns whether each network is right on each image: float (n, networks)."""
    networks = found.networks().values()
    right = [tried.right(kind, eps, of=found.of).astype(float) for tried in networks]
    return np.stack(right, axis=1)


def _lost(found: Comparison) -> np.ndarray:
    """Returns each image's part in the accuracy lost: (n, networks, eps), of -1, 0, 1."""
    clean = _right(found, OWN_ATTACK, 0.0)
    return np.stack([clean - _right(found, TRANSFERRED, eps) for eps in found.plan.eps], axis=2)


def _images(found: Comparison) -> pd.DataFrame:
    return next(iter(found.networks().values())).images


def _families(found: Comparison) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns places of wide and of deep networks, None where one of the kinds is missing.

    The network on which the attack was made is left out: on it nothing is transferred.
    """

    def kind(name: str, tried: Tried) -> str:
        return "" if name == found.plan.transferred else tried.family or ""

    kinds = np.array([kind(name, tried) for name, tried in found.networks().items()])
    wide, deep = (np.flatnonzero(kinds == family) for family in ("wide", "deep"))
    return (wide, deep) if len(wide) and len(deep) else None


NO_FAMILIES = "wanted deep and wide networks beside that on which the attack was made"
NO_MAPS = "a network has no map to compare at some eps"


def mod_rises(found: Comparison, reading: Reading) -> Finding:
    """Judges D1: MOD rises from each eps to the next, network by network.

    Each step of a network must be above 0; its part is that step which decides.
    """
    value, drawn = found.means(_shift(found, reading), _images(found))
    if np.isnan(value).any():
        return nothing(NO_MAPS)
    parts, steps = [], list(zip(found.plan.eps, found.plan.eps[1:], strict=False))
    for i, name in enumerate(found.networks()):
        mine = [
            Part(f"{name} from eps {low:g} to {high:g}", float(value[i, k + 1] - value[i, k]),
                 *found.interval(drawn[:, i, k + 1] - drawn[:, i, k]), above=0)
            for k, (low, high) in enumerate(steps)
        ]  # fmt: skip
        worst = verdict_of_all([step.verdict for step in mine])
        parts.append(min((s for s in mine if s.verdict == worst), key=lambda step: step.value))
    detail = "MOD " + ", ".join(
        f"{name} {mods[0]:.3f} to {mods[-1]:.3f} ({part.verdict})"
        for name, mods, part in zip(found.networks(), value, parts, strict=True)
    )
    verdict = verdict_of_parts([part.verdict for part in parts])
    return _finding(parts, verdict, detail, len(_images(found)))


def wide_lose_more(found: Comparison) -> Finding:
    """Judges D2: accuracy lost, mean of wide networks minus that of deep ones.

    The second reading, in the detail, is of networks with inputs of one size.
    """
    families = _families(found)
    if families is None:
        return nothing(NO_FAMILIES)
    wide, deep = families
    value, drawn = found.means(_lost(found)[:, :, -1], _images(found))

    def gap(wide: np.ndarray, deep: np.ndarray) -> tuple[float, float, float]:
        ends = found.interval(drawn[:, wide].mean(1) - drawn[:, deep].mean(1))
        return (float(value[wide].mean() - value[deep].mean()), *ends)

    names = list(found.networks())
    texts = ", ".join(f"{names[i]} {value[i]:.3f}" for i in (*deep, *wide))
    sizes = np.array([tried.parts[0].facts["size"] for tried in found.networks().values()])
    detail = f"lost at eps {found.plan.eps[-1]:g}: {texts}"
    common = max(set(sizes.tolist()), key=sizes.tolist().count)
    same = [places[sizes[places] == common] for places in (wide, deep)]
    if (sizes == common).all():
        detail += f"; inputs of all are {common} px"
    elif all(len(places) for places in same):
        detail += f"; of those at {common} px alone {as_text(*gap(*same))}"
    part = Part("wide minus deep", *gap(wide, deep), above=0.1)
    return _finding([part], part.verdict, detail, len(_images(found)))


def wide_lose_more_at_equal_shift(found: Comparison, reading: Reading) -> Finding:
    """Judges D3: accuracy lost at the same MOD, wide minus deep.

    Lost accuracy against MOD is a line from (0, 0) through the eps of a network; where MOD falls,
    the largest so far stands. The mean over ten MOD up to the largest that all reach.
    """
    families = _families(found)
    if families is None:
        return nothing(NO_FAMILIES)
    wide, deep = families
    both = np.stack([_shift(found, reading), _lost(found)], axis=3)[:, [*wide, *deep]]
    value, drawn = found.means(both, _images(found))
    if np.isnan(value).any():
        return nothing(NO_MAPS)

    def gap(curves: np.ndarray) -> float:
        mods, lost = np.maximum.accumulate(curves[..., 0], axis=1), curves[..., 1]
        grid = np.linspace(0, mods[:, -1].min(), 11)[1:]
        at = [
            np.interp(grid, [0, *mod], [0, *loss]).mean()
            for mod, loss in zip(mods, lost, strict=True)
        ]
        return float(np.mean(at[: len(wide)]) - np.mean(at[len(wide) :]))

    ends = found.interval(np.array([gap(curves) for curves in drawn]))
    shared = value[..., 0].max(1).min()
    detail = f"mean over MOD up to {shared:.3f}, the largest that all reach"
    part = Part("wide minus deep", gap(value), *ends, above=0)
    return _finding([part], part.verdict, detail, len(_images(found)))


def one_is_most_stable(found: Comparison, reading: Reading) -> Finding:
    """Judges D4: VGG16 has the lowest MOD and the lowest mean VID.

    Both of each other network minus its own must be above 0.
    """
    names = list(found.networks())
    if STABLE not in names or len(names) < 2:
        return nothing(f"wanted {STABLE} beside other networks, got {', '.join(names)}")
    shift = _shift(found, reading)
    each = np.stack([vid.spread(shift[:, i]) for i in range(len(names))], axis=1)
    value, drawn = found.means(np.stack([shift[:, :, -1], each], axis=2), _images(found))
    if np.isnan(value).any():
        return nothing(NO_MAPS)
    mine = names.index(STABLE)
    parts = [
        Part(f"{name} minus {STABLE} by {measure}", float(value[i, k] - value[mine, k]),
             *found.interval(drawn[:, i, k] - drawn[:, mine, k]), above=0)
        for i, name in enumerate(names) if i != mine
        for k, measure in enumerate(("MOD", "VID"))
    ]  # fmt: skip
    ranks = [int((value[:, k] < value[mine, k]).sum()) + 1 for k in (0, 1)]
    detail = f"rank {ranks[0]} by MOD and {ranks[1]} by VID of {len(names)}: " + ", ".join(
        f"{name} {row[0]:.3f} and {row[1]:.3f}" for name, row in zip(names, value, strict=True)
    )
    verdict = verdict_of_all([part.verdict for part in parts])
    return _finding(parts, verdict, detail, len(_images(found)))


def carries_over(found: Comparison) -> Finding:
    """Judges D5: accuracy lost by the transferred attack minus that by noise of its size.

    Of each network but that on which the attack was made.
    """
    names = list(found.networks())
    others = [i for i, name in enumerate(names) if name != found.plan.transferred]
    if not others:
        return nothing("wanted other networks than that on which the attack was made")
    eps = found.plan.eps[-1]
    beyond = _right(found, TRANSFERRED_NOISE, eps) - _right(found, TRANSFERRED, eps)
    value, drawn = found.means(beyond, _images(found))
    parts = [Part(names[i], float(value[i]), *found.interval(drawn[:, i]), 0.05) for i in others]
    detail = ", ".join(f"{part.name} {as_text(part.value, part.low, part.high)}" for part in parts)
    verdict = verdict_of_parts([part.verdict for part in parts])
    return _finding(parts, verdict, detail, len(_images(found)))


def shift_explains_failure(found: Comparison, reading: Reading) -> Finding:
    """Judges D6: MOD goes with accuracy lost, and with failing at a fixed eps.

    The rank correlation over networks and eps; and the mean difference of NISSIM between images
    that a network gets wrong under the attack and those that it still gets right, of those that it
    gets right clean, over networks and eps.
    """
    shift, lost = _shift(found, reading), _lost(found)
    clean = _right(found, OWN_ATTACK, 0.0)[:, :, None] == 1
    failed, stays = (
        np.where(clean & (lost == outcome), shift, np.nan) for outcome in (1, 0)
    )  # fmt: skip
    value, drawn = found.means(np.stack([shift, lost, failed, stays], axis=3), _images(found))

    def ranked(table: np.ndarray) -> float:
        flat = table[..., :2].reshape(-1, 2)
        flat = flat[np.isfinite(flat).all(1)]
        return float(statistics.spearman(*flat.T, weights=np.ones((1, len(flat))))[0])

    def apart(table: np.ndarray) -> float:
        differences = (table[..., 2] - table[..., 3]).ravel()
        known = differences[np.isfinite(differences)]
        return float(known.mean()) if len(known) else float("nan")

    named = {"the rank correlation": (ranked, 0.6), "failed minus not": (apart, 0.0)}
    parts = [
        Part(name, of(value), *found.interval(np.array([of(table) for table in drawn])), above)
        for name, (of, above) in named.items()
    ]
    if any(np.isnan(part.value) for part in parts):
        return nothing("no network fails anywhere, or maps are all empty")
    points = int(np.isfinite(value[..., 0]).sum())
    texts = ", ".join(f"{part.name} {as_text(part.value, part.low, part.high)}" for part in parts)
    detail = f"{texts}, over {points} networks and eps"
    verdict = verdict_of_all([part.verdict for part in parts])
    return _finding(parts, verdict, detail, len(_images(found)))


def preprocessing_helps(found: Comparison) -> Finding:
    """Judges D7: accuracy with preprocessing minus without, on the same images.

    Mean over the networks that were tried both ways, at each eps from 0.05 on; each must be above
    0.
    """
    networks = list(found.networks(PREPROCESSED))
    if not networks:
        return nothing("no set with preprocessing beside one without", NOT_RUN)
    steps = [eps for eps in found.plan.eps if eps >= FROM]
    if not steps:
        return nothing(f"no eps from {FROM:g} on", NOT_RUN)

    def change(network: str, eps: float) -> np.ndarray:
        plain, other = paired(found, network, eps)
        return other.astype(float) - plain

    each = np.stack([[change(n, eps) for eps in steps] for n in networks]).transpose(2, 0, 1)
    value, drawn = found.means(each, _images(found))
    parts = [
        Part(f"eps {eps:g}", float(value[:, k].mean()),
             *found.interval(drawn[..., k].mean(1)), above=0)
        for k, eps in enumerate(steps)
    ]  # fmt: skip
    texts = [f"{part.name} {as_text(part.value, part.low, part.high)}" for part in parts]
    by_network = ", ".join(
        f"{name} {row.mean():.3f}" for name, row in zip(networks, value, strict=True)
    )
    detail = f"{', '.join(texts)}; mean by network {by_network}"
    verdict = verdict_of_all([part.verdict for part in parts])
    return _finding(parts, verdict, detail, len(_images(found)))


def shift_is_that_of_noise(found: Comparison, reading: Reading) -> Finding:
    """Judges D8: MOD under the attack is equivalent to that under noise of its size.

    By two one-sided tests at 5 %: the 90 % interval of their relative difference is within 10 %.
    The network that the attack was made on is left out.
    """
    parts, texts = [], []
    eps, equivalent = found.plan.eps[-1], 0.1
    for name, tried in found.networks().items():
        if name == found.plan.transferred:
            continue
        both = [
            tried.shift(kind, eps, reading.explains, blank=reading.blank)
            for kind in (TRANSFERRED, TRANSFERRED_NOISE)
        ]
        known = ~np.isnan(both[0]) & ~np.isnan(both[1])
        pair = np.where(known[:, None], np.stack(both, axis=1), np.nan)
        if not known.any():
            return nothing(NO_MAPS)
        mean, drawn = found.means(pair, tried.images)
        value = (mean[0] - mean[1]) / mean[0]
        relative = (drawn[:, 0] - drawn[:, 1]) / drawn[:, 0]
        low, high = found.interval(relative, confidence=0.9)
        verdict = verdict_of_range(low, high, least=-equivalent, most=equivalent)
        parts.append(Finding(value, low, high, verdict))
        texts.append(f"{name} {mean[0]:.3f} and {mean[1]:.3f} ({verdict})")
    if not parts:
        return nothing("wanted networks beside that on which the attack was made")
    verdict = verdict_of_parts([part.verdict for part in parts])
    deciding = [part for part in parts if part.verdict == verdict] or parts
    part = max(deciding, key=lambda part: abs(part.value))
    detail = f"attack and noise: {', '.join(texts)}; the value is that of the largest difference"
    return replace(part, verdict=verdict, detail=detail)


ON_CLASSES: dict[str, Callable[[Comparison], Finding]] = {
    "D2": wide_lose_more, "D5": carries_over, "D7": preprocessing_helps
}  # fmt: skip
ON_MAPS: dict[str, Callable[[Comparison, Reading], Finding]] = {
    "D1": mod_rises, "D3": wide_lose_more_at_equal_shift, "D4": one_is_most_stable,
    "D6": shift_explains_failure, "D8": shift_is_that_of_noise,
}  # fmt: skip


def empty_shares(found: Comparison) -> dict[str, float]:
    """Returns the largest share of pairs with an empty map, by network, attack transferred."""
    reading = Reading(found.plan.explains, blank=False)
    shares = np.isnan(_shift(found, reading)).mean(0).max(1)
    return dict(zip(found.networks(), shares.tolist(), strict=True))


def judged(found: Comparison, claim: str, limits: FlagSettings) -> Finding:
    """Returns what was found on a claim; one on maps also as its other readings have it."""
    if claim in ON_CLASSES:
        return ON_CLASSES[claim](found)
    judge, mine = ON_MAPS[claim], found.plan.explains
    first = judge(found, Reading(mine, blank=False))
    (other,) = (policy for policy in POLICIES if policy != mine)
    further = {
        "empty maps taken as blank": judge(found, Reading(mine, blank=True)),
        f"maps of the {CLASSES[other]}": judge(found, Reading(other, blank=False)),
    }
    texts = [
        f"{name}: {as_text(f.value, f.low, f.high)} {f.verdict}".replace("  ", " ")
        for name, f in further.items()
    ]  # fmt: skip
    share = max(empty_shares(found).values())
    if share > limits.empty_share:
        reason = f"not decided since up to {share:.0%} of the pairs of maps have an empty one"
        plain = first.detail.partition("; about ")[0]
        first = replace(first, verdict=UNDECIDED, detail=f"{plain}; {reason}")
    return replace(first, detail="; ".join([first.detail, *texts]))


CLASSES = {"given": "class that the set gives", "own_top1": "own top class"}


def flags(found: Comparison, limits: FlagSettings) -> pd.DataFrame:
    """Returns what must be known before a verdict is believed, with the columns of `cell_flags`.

    Networks that classify no better than chance, too many pairs with an empty map, too few pictures
    behind intervals, images without a gradient, and noise that changes classes as the attack does.
    """
    rows = []

    def add(flag: str, value: float, limit: float, touched: Iterable[str], text: str) -> None:
        rows.append((flag, value, limit, " ".join(touched), "", text))

    for (network, arm), tried in found.tried.items():
        right, labels = tried.right(OWN_ATTACK, 0.0, of=found.of), tried.images["label"].to_numpy()
        text = chance.warning(int(right.sum()), labels)
        if text:
            where = network if arm == PLAIN else f"{network}, {arm}"
            every = [*ON_CLASSES, *ON_MAPS]
            add(AT_CHANCE, right.mean(), chance.level(labels), every, f"{where}: {text}")
    shares = empty_shares(found)
    many = {name: share for name, share in shares.items() if share > limits.empty_share}
    if many:
        each = ", ".join(f"{network} {share:.0%}" for network, share in many.items())
        text = f"maps are empty in up to this share of the pairs: {each}"
        add("empty maps", max(many.values()), limits.empty_share, ON_MAPS, text)
    count = _images(found)["source"].nunique()
    if count < limits.minimum_sources:
        text = f"only {count} source pictures, wanted {limits.minimum_sources}"
        add("few sources", count, limits.minimum_sources, [*ON_CLASSES, *ON_MAPS], text)
    flat = {
        (network, source): share
        for (network, _), tried in found.tried.items()
        for part in tried.parts
        for source, share in part.facts["zero_gradients"].items()
    }
    share = max(flat.values(), default=0.0)
    if share > limits.zero_gradients:
        source = next(source for (_, source), value in flat.items() if value == share)
        text = f"the loss has no gradient at this share of the images, on {source}"
        add("zero gradients", share, limits.zero_gradients, [*ON_CLASSES, *ON_MAPS], text)
    flips = noise_flips(found)
    if max(flips.values()) > limits.noise_flips:
        each = ", ".join(f"{network} {share:.0%}" for network, share in flips.items())
        text = f"noise of the transferred attack's size changes this share of the classes: {each}"
        touched = ["D2", "D3", "D6"]
        add("noise flips", max(flips.values()), limits.noise_flips, touched, text)
    return pd.DataFrame(rows, columns=["flag", "value", "limit", "touches", "protocols", "text"])


def noise_flips(found: Comparison) -> dict[str, float]:
    """Returns the share of classes that noise of the largest attack's size changes, by network."""
    eps = found.plan.eps[-1]
    return {
        network: float(
            np.mean(
                tried.predictions(TRANSFERRED_NOISE, eps, of=found.of)
                != tried.predictions(OWN_ATTACK, 0.0, of=found.of)
            )
        )
        for network, tried in found.networks().items()
    }


def claims_table(found: Comparison, limits: FlagSettings) -> pd.DataFrame:
    """Returns the claims table of a study, see `claims.table`."""
    everyone = len(_images(found))
    rows = []
    for claim in sorted([*ON_CLASSES, *ON_MAPS]):
        finding = judged(found, claim, limits)
        images = 0 if finding.verdict == NOT_RUN else everyone
        rows.append(("corrected", claim, finding.value, finding.low, finding.high,
                     finding.verdict, images, finding.detail))  # fmt: skip
    networks = found.networks()
    side = next(iter(networks.values())).parts[0].pictures.shape[2]
    rests_on = (
        f"{everyone} test images of {side} px, {_images(found)['source'].nunique()} source "
        f"pictures; {', '.join(networks)}; attack made on {found.plan.transferred}, "
        f"eps of pixels in {'[0, 1]' if found.of == 'unit' else '[-1, 1]'}"
    )
    return rounded(
        claims.table(
            CLAIMS,
            pd.DataFrame(rows, columns=FINDING_COLUMNS),
            rests_on=lambda claim: rests_on,
            flags=flags(found, limits),
        )
    )

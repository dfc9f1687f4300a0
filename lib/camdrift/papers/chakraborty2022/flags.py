"""Flags of chakraborty2022's claims: what must be known before a verdict is believed."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from camdrift.analysis.flags import AT_CHANCE
from camdrift.datasets import chance
from camdrift.papers.chakraborty2022.claims import ON_CLASSES, ON_MAPS
from camdrift.papers.chakraborty2022.comparison import (
    PLAIN,
    PREPROCESSED,
    Comparison,
    outcomes,
)
from camdrift.settings import FlagSettings
from camdrift.storage import OWN_ATTACK, TRANSFERRED_NOISE

FEW = 30  # images; a mean of fewer is flagged
ONE_TRAINING = "one training an arm"


def flags(comparison: Comparison, limits: FlagSettings) -> pd.DataFrame:
    """Returns what must be known before a verdict is believed, with the columns of `cell_flags`.

    Networks that classify no better than chance, too many pairs with an empty map, too few images
    or pictures behind a number, images without a gradient, noise that changes classes as the attack
    does, and arms of a single training.
    """
    rows = []

    def add(flag: str, value: float, limit: float, touched: Iterable[str], text: str) -> None:
        rows.append((flag, value, limit, " ".join(touched), "", text))

    for (network, arm), tried in comparison.tried.items():
        right = tried.right(OWN_ATTACK, 0.0, of=comparison.range)
        labels = tried.images["label"].to_numpy()
        text = chance.warning(int(right.sum()), labels)
        if text:
            where = network if arm == PLAIN else f"{network}, {arm}"
            every = [*ON_CLASSES, *ON_MAPS]
            add(AT_CHANCE, right.mean(), chance.level(labels), every, f"{where}: {text}")
    shares = empty_shares(comparison, comparison.plan.explains)
    many = {name: share for name, share in shares.items() if share > limits.empty_share}
    if many:
        each = ", ".join(f"{network} {share:.0%}" for network, share in many.items())
        text = f"maps are empty in up to this share of the pairs: {each}"
        add("empty maps", max(many.values()), limits.empty_share, ON_MAPS, text)
    count = comparison.images["source"].nunique()
    if count < limits.minimum_sources:
        text = f"only {count} source pictures, wanted {limits.minimum_sources}"
        add("few sources", count, limits.minimum_sources, [*ON_CLASSES, *ON_MAPS], text)
    for flag, least, touched, text in _few(comparison):
        add(flag, least, FEW, touched, text)
    trainings = min(len(tried.parts) for tried in comparison.tried.values())
    if PREPROCESSED in comparison.arms and trainings == 1:
        text = "each network is trained once in each arm: trainings alone may differ by as much"
        add(ONE_TRAINING, 1, 2, ["D7"], text)
    flat = {
        (network, source): share
        for (network, _), tried in comparison.tried.items()
        for part in tried.parts
        for source, share in part.facts["zero_gradients"].items()
    }
    share = max(flat.values(), default=0.0)
    if share > limits.zero_gradients:
        source = next(source for (_, source), value in flat.items() if value == share)
        text = f"the loss has no gradient at this share of the images, on {source}"
        add("zero gradients", share, limits.zero_gradients, [*ON_CLASSES, *ON_MAPS], text)
    flips = noise_flips(comparison)
    if max(flips.values()) > limits.noise_flips:
        each = ", ".join(f"{network} {share:.0%}" for network, share in flips.items())
        text = f"noise of the transferred attack's size changes this share of the classes: {each}"
        touched = ["D2", "D3", "D6"]
        add("noise flips", max(flips.values()), limits.noise_flips, touched, text)
    return pd.DataFrame(rows, columns=["flag", "value", "limit", "touches", "protocols", "text"])


def _few(comparison: Comparison) -> Iterator[tuple[str, int, list[str], str]]:
    """Yields flags of means of fewer than `FEW` images: name, least number, claims, words.

    The cells of the README's tables, and the groups that D6 compares at each network and eps.
    """
    names, explains = list(comparison.networks()), comparison.plan.explains
    images, every = len(comparison.images), sorted([*ON_CLASSES, *ON_MAPS])
    known = np.isfinite(comparison.shift(explains)).sum(0)
    few = np.argwhere(known < FEW)
    if images < FEW:
        yield "few images", images, every, f"only {images} test images"
    elif len(few):
        each = ", ".join(
            f"{names[i]} at eps {comparison.plan.eps[k]:g} {known[i, k]}" for i, k in few
        )
        yield "few images", int(known.min()), list(ON_MAPS), f"MOD of few pairs of maps: {each}"
    counts = np.stack([np.isfinite(group).sum(0) for group in outcomes(comparison, explains)])
    least = counts.min(0)
    compared = least > 0
    small = compared & (least < FEW)
    if small.any():
        text = (
            f"in {small.sum()} of {compared.sum()} networks and eps with images that fail and "
            f"images that do not, one of the two groups has fewer than {FEW}"
        )
        yield "small groups", int(least[compared].min()), ["D6"], text


def empty_shares(comparison: Comparison, explains: str) -> dict[str, float]:
    """Returns the largest share of pairs with an empty map, by network, attack transferred."""
    shares = np.isnan(comparison.shift(explains)).mean(0).max(1)
    return dict(zip(comparison.networks(), shares.tolist(), strict=True))


def noise_flips(comparison: Comparison) -> dict[str, float]:
    """Returns the share of classes that noise of the largest attack's size changes, by network."""
    eps = comparison.plan.eps[-1]
    return {
        network: float(
            np.mean(
                tried.predictions(TRANSFERRED_NOISE, eps, of=comparison.range)
                != tried.predictions(OWN_ATTACK, 0.0, of=comparison.range)
            )
        )
        for network, tried in comparison.networks().items()
    }

"""Drift apart from the change of class: three groups, a two-by-two with noise, and controls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from camdrift import randomness
from camdrift.artifacts import ADVERSARIAL, NOISE, NOTHING, OWN, RAISED, SEED, UNRELATED
from camdrift.results import Results
from camdrift.settings import FlagSettings, StatisticsSettings
from camdrift.statistics import Resampler

# group -> (whether the prediction differs from that on the clean image, target policy)
GROUPS = {
    "not_flipped": (False, SEED),
    "flipped_seed_class": (True, SEED),
    "flipped_own_class": (True, OWN),
}


def groups(
    results: Results, chosen: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the similarity to the clean map, by strength and layer, apart from the flip.

    Three groups of images: not flipped *at that strength*; flipped, explained for the clean
    image's class; flipped, explained for the own top class. Columns: `variant, strength, group,
    layer, images, n` (known pairs), `mean, low, high`, and for the attack `excess, excess_low,
    excess_high`: similarity under matched noise minus that under attack, on the same images,
    each noise map for the same target policy. A layer of which a group has too many empty maps is
    not decided: its numbers are missing, and 'mean' averages over the others.
    """
    values = results.main()
    values = values[values["draw"] == 0]
    wide = values.pivot(index="image", columns=["target", "variant", "strength", "layer"],
                        values="value").sort_index(axis=1)  # fmt: skip
    flipped = results.flipped.xs(results.first.recipe, level="recipe")
    tables = []
    for variant in (ADVERSARIAL, NOISE):
        for strength in results.cell.ladder:
            turned = flipped.loc[variant, strength, 0]
            for group, (wanted, target) in GROUPS.items():
                images = turned.index[turned == wanted]
                if not len(images):
                    continue
                part = wide.loc[images]
                mine = part[target, variant, strength][results.layers]
                noise = part[target, NOISE, strength][results.layers]
                difference = noise - mine
                decided = (difference.isna().mean() <= flags.empty_share).to_numpy()
                columns = np.hstack([_with_mean(mine, decided), _with_mean(difference, decided)])
                means, low, high = _estimate(results, images, columns, chosen, seed, group)
                size = len(results.layers) + 1
                table = pd.DataFrame(
                    {
                        "variant": variant,
                        "strength": strength,
                        "group": group,
                        "layer": [*results.layers, "mean"],
                        "images": len(images),
                        "n": np.isfinite(columns[:, :size]).sum(0),
                        "mean": means[:size],
                        "low": low[:size],
                        "high": high[:size],
                    }
                )
                if variant == ADVERSARIAL:
                    table["excess"] = means[size:]
                    table["excess_low"], table["excess_high"] = low[size:], high[size:]
                tables.append(table)
    return pd.concat(tables, ignore_index=True)


def square(
    results: Results, chosen: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns drift by attack or noise x flipped or not, on the same seeds.

    Of a seed that the attack flips at some strength: 'attack, flipped' is the lowest such
    strength, 'attack, not flipped' the next lower one, 'noise, not flipped' the noise matched to
    that lower strength, 'noise, flipped' noise raised from the whole attack's size until it flips.
    Only seeds that have all four take part, and only layers of which no arm has too many empty
    maps: the comparison is paired. Columns: `target, arm, flipped, layer, images, n,
    mean, low, high` of 1 - cosine, and `size_grey`, the mean L2 norm as root mean square, in grey
    levels of 255. Rows whose `arm` is a contrast ('attack - noise, flipped', ...) hold paired
    differences of drift.
    """
    values = results.scores
    values = values[
        (values["reading"] == results.first.reading) & (values["score"] == "cosine")
        & values["variant"].isin([ADVERSARIAL, NOISE, RAISED]) & (values["draw"] == 0)
    ]  # fmt: skip
    drift = values.assign(value=1 - values["value"]).pivot(
        index=["variant", "strength", "image"], columns=["target", "layer"], values="value"
    )
    flipped = results.flipped.xs(results.first.recipe, level="recipe")
    turned = flipped.loc[ADVERSARIAL].droplevel("draw").unstack("strength")[results.cell.ladder]
    noisy = flipped.loc[NOISE].xs(0, level="draw").unstack("strength")[results.cell.ladder]
    raised = results.noise.raised.set_index("image")["flipped"]
    arms: dict[tuple[str, bool], list[tuple[str, float, int]]] = {}
    for image in turned.index[turned.any(axis=1)]:
        rung = int(np.argmax(turned.loc[image].to_numpy()))
        if rung == 0 or not raised[image] or noisy.loc[image].iloc[rung - 1]:
            continue
        upper, lower = results.cell.ladder[rung], results.cell.ladder[rung - 1]
        for key, place in {
            ("attack", True): (ADVERSARIAL, upper, image),
            ("attack", False): (ADVERSARIAL, lower, image),
            ("noise", True): (RAISED, 1.0, image),
            ("noise", False): (NOISE, lower, image),
        }.items():
            arms.setdefault(key, []).append(place)
    columns = ["target", "arm", "flipped", "layer", "images", "n", "mean", "low", "high",
               "size_grey"]  # fmt: skip
    if not arms:
        return pd.DataFrame(columns=columns)
    images = [image for *_, image in arms["attack", True]]
    sizes = {key: _sizes(results, places) for key, places in arms.items()}
    tables = []
    for target in (OWN, SEED):
        wide = {
            key: drift.loc[places, target][results.layers].reset_index(drop=True)
            for key, places in arms.items()
        }
        empty = pd.concat([arm.isna().mean() for arm in wide.values()], axis=1).max(axis=1)
        decided = (empty <= flags.empty_share).to_numpy()
        contrasts = {
            ("attack - noise", True): wide["attack", True] - wide["noise", True],
            ("attack - noise", False): wide["attack", False] - wide["noise", False],
            ("flipped - not, attack", True): wide["attack", True] - wide["attack", False],
            ("flipped - not, noise", True): wide["noise", True] - wide["noise", False],
        }
        for (arm, flip), layers in (wide | contrasts).items():
            rows = _with_mean(layers, decided)
            means, low, high = _estimate(results, images, rows, chosen, seed, "square")
            tables.append(
                pd.DataFrame(
                    {
                        "target": target,
                        "arm": arm,
                        "flipped": flip,
                        "layer": [*results.layers, "mean"],
                        "images": len(images),
                        "n": np.isfinite(rows).sum(0),
                        "mean": means,
                        "low": low,
                        "high": high,
                        "size_grey": sizes.get((arm, flip), np.nan),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _sizes(results: Results, places: Sequence[tuple[str, float, int]]) -> float:
    """Returns the mean root mean square of the changes at these places, in grey levels."""
    scales = results.noise.scales
    scales = scales[(scales["recipe"] == results.first.recipe) & (scales["draw"] == 0)]
    scales = scales.set_index(["strength", "image"])
    raised = results.noise.raised.set_index("image")["size"]
    attack = results.attacked.images.set_index("image")["l2"]
    found = []
    for variant, strength, image in places:
        if variant == RAISED:
            found.append(raised[image] * attack[image])
        else:
            arm = "attack" if variant == ADVERSARIAL else "noise"
            found.append(scales.loc[(strength, image), f"{arm}_l2"])
    return float(np.mean(found) / results.attacked.perturbation[0].size ** 0.5 * 255)


def controls(results: Results, chosen: StatisticsSettings, *, seed: int) -> pd.DataFrame:
    """Returns the similarity to the clean map under each control, by protocol and layer.

    Under the first protocol all variants at strength 1; under the others 'nothing' (the clean
    image compared with itself: how far the protocol is from identity) and 'unrelated' (clean
    images of other sources: the floor). Columns: `protocol, target, variant, draw, layer, images,
    n, mean, low, high, least` (the smallest similarity), `flipped` (share of images whose class it
    flips; of raised noise, which holds those alone that it flips, of all).
    """
    tables = []
    for name, protocol in results.protocols.items():
        values = results.scores[
            (results.scores["reading"] == protocol.reading)
            & (results.scores["score"] == "cosine")
            & results.scores["strength"].isin([0.0, 1.0])
        ]
        if protocol is not results.first:
            same = values["target"] == protocol.target
            values = values[same & values["variant"].isin([NOTHING, UNRELATED])]
        keys = ["target", "variant", "draw"]
        for (target, variant, draw), rows in values.groupby(keys, observed=True):
            wide = rows.pivot(index="image", columns="layer", values="value")[results.layers]
            columns = _with_mean(wide)
            means, low, high = _estimate(results, wide.index, columns, chosen, seed, "controls")
            tables.append(
                pd.DataFrame(
                    {
                        "protocol": name,
                        "target": target,
                        "variant": variant,
                        "draw": draw,
                        "layer": [*results.layers, "mean"],
                        "images": len(wide),
                        "n": np.isfinite(columns).sum(0),
                        "mean": means,
                        "low": low,
                        "high": high,
                        "least": [*wide.min(), wide.min().min()],
                        "flipped": _flipped(results, str(variant), int(draw)),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _flipped(results: Results, variant: str, draw: int) -> float:
    if variant in (NOTHING, UNRELATED):
        return float("nan")
    turned = results.flipped.loc[results.first.recipe, variant, 1.0, draw]
    return turned.sum() / len(results.attacked.images)


def _with_mean(wide: pd.DataFrame, decided: np.ndarray | None = None) -> np.ndarray:
    """Returns the columns, NaN where not decided, and as a last one each row's mean over them."""
    kept = wide if decided is None else wide.where(np.broadcast_to(decided, wide.shape))
    return np.column_stack([kept, kept.mean(axis=1)])


def _estimate(
    results: Results,
    images: Sequence[int] | pd.Index,
    columns: np.ndarray,
    chosen: StatisticsSettings,
    seed: int,
    name: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean and interval of each column, resampled by the images' sources."""
    sources = results.attacked.images.set_index("image")["source"].loc[images]
    resampler = Resampler.of(
        sources.to_numpy(),
        resamples=chosen.resamples,
        rng=randomness.generator(seed, "flips", results.name, name),
    )
    found = resampler.estimate(columns, confidence=chosen.confidence)
    return found.mean, found.low, found.high

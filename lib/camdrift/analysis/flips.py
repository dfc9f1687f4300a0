"""Drift apart from the change of class: three groups, a 2 x 2 factorial design, and controls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.layers import decided_layers, draws, estimate, with_mean
from camdrift.analysis.results import Results
from camdrift.settings import FlagSettings, StatisticsSettings
from camdrift.storage import (
    ABOVE,
    ADVERSARIAL,
    BELOW,
    NOISE,
    NOTHING,
    OWN,
    RAISED,
    SEED,
    UNRELATED,
)

# group -> (whether the prediction differs from that on the clean image, target policy)
GROUPS = {
    "not_flipped": (False, SEED),
    "flipped_seed_class": (True, SEED),
    "flipped_own_class": (True, OWN),
}

FIXED, NEGATED = "class fixed", "negated"  # the latter is a control of `noise`
SHARES = ["share", "images", "layers", "part", "whole", "value", "low", "high", "flipped",
          "drift_attack", "drift_noise"]  # fmt: skip


def groups(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the similarity to the clean map, by strength and layer, apart from the flip.

    Three groups of images: not flipped *at that strength*; flipped, explained for the clean
    image's class; flipped, explained for the own top class. Columns: `variant, strength, group,
    layer, images, n` (known pairs), `mean, low, high`, and for the attack `excess, excess_low,
    excess_high`: similarity under matched noise minus that under attack, on the same images,
    each noise map for the same target policy. A layer of which a group has too many empty maps is
    not decided: its numbers are missing, and 'mean' averages over the others. The two groups of
    flipped images are the same images, and their means are over the same layers.
    """
    values = results.main()
    values = values[values["draw"] == 0]
    wide = values.pivot(index="image", columns=["target", "variant", "strength", "layer"],
                        values="value").sort_index(axis=1)  # fmt: skip
    flipped = results.flipped.xs(results.first.recipe, level="recipe")
    tables = []
    for variant in (ADVERSARIAL, NOISE):
        for strength in results.cell.strengths:
            flips = flipped.loc[variant, strength, 0]
            pairs = {}
            for group, (flip, target) in GROUPS.items():
                part = wide.loc[flips.index[flips == flip], target]
                similarity = part[variant, strength][results.layers]
                pairs[group] = similarity, part[NOISE, strength][results.layers] - similarity
            for group, (flip, _) in GROUPS.items():
                similarity, difference = pairs[group]
                images = similarity.index
                if not len(images):
                    continue
                differences = [
                    pairs[name][1] for name, (other, _) in GROUPS.items() if other == flip
                ]
                common, own = (
                    decided_layers(differences, flags),
                    decided_layers([difference], flags),
                )
                columns = np.hstack([with_mean(part, common, own) for part in pairs[group]])
                means, low, high = estimate(results, images, columns, settings, seed, group)
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


def factorial(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns drift by attack or noise x flipped or not, on the same seeds.

    Of a seed that the attack flips at some strength: 'attack, flipped' is the lowest such
    strength, 'attack, not flipped' the next lower one, 'noise, not flipped' the noise matched to
    that lower strength, 'noise, flipped' noise raised from the whole attack's size until it flips.
    Only seeds that have all four take part, and only layers of which no arm has too many empty
    maps: the comparison is paired. 'mean' averages over those that are decided under both target
    policies: the arms that are not flipped then have one mean. Columns: `target, arm, flipped,
    layer, images, n, mean, low, high` of 1 - cosine, and `size_grey`, the mean L2 norm as root mean
    square, in grey levels of 255. Rows whose `arm` is a contrast ('attack - noise, flipped', ...)
    hold paired differences of drift.
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
    attack_flips = (
        flipped.loc[ADVERSARIAL].droplevel("draw").unstack("strength")[results.cell.strengths]
    )
    noise_flips = flipped.loc[NOISE].xs(0, level="draw").unstack("strength")[results.cell.strengths]
    raised_flips = results.images.set_index("image")["raised_flipped"]
    arms: dict[tuple[str, bool], list[tuple[str, float, int]]] = {}
    for image in attack_flips.index[attack_flips.any(axis=1)]:
        rung = int(np.argmax(attack_flips.loc[image].to_numpy()))
        if rung == 0 or not raised_flips[image] or noise_flips.loc[image].iloc[rung - 1]:
            continue
        upper, lower = results.cell.strengths[rung], results.cell.strengths[rung - 1]
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
    every = {
        target: {
            key: drift.loc[places, target][results.layers].reset_index(drop=True)
            for key, places in arms.items()
        }
        for target in (OWN, SEED)
    }
    masks = {target: decided_layers(list(wide.values()), flags) for target, wide in every.items()}
    common = np.logical_and.reduce(list(masks.values()))
    tables = []
    for target, wide in every.items():
        contrasts = {
            ("attack - noise", True): wide["attack", True] - wide["noise", True],
            ("attack - noise", False): wide["attack", False] - wide["noise", False],
            ("flipped - not, attack", True): wide["attack", True] - wide["attack", False],
            ("flipped - not, noise", True): wide["noise", True] - wide["noise", False],
        }
        for (arm, flip), layers in (wide | contrasts).items():
            rows = with_mean(layers, common, masks[target])
            means, low, high = estimate(results, images, rows, settings, seed, "square")
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


def boundary(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns drift by the attack just below and just above the decision boundary, image by image.

    The two parts of an image's perturbation, see `boundary.crossed`, are of nearly the same size,
    but one flips the class: their difference of drift is the change of class alone. Of the images
    that the whole attack flips and whose two predictions, as the maps' stage met them, differ.
    Columns: `target, layer, images, n`, `below, above` (mean of 1 - cosine), `difference, low,
    high` (above minus below, paired), `step` (mean of the difference of the two parts over the
    upper one). 'mean' averages over the layers that have few empty maps under both policies.
    """
    columns = ["target", "layer", "images", "n", "below", "above", "difference", "low", "high",
               "step"]  # fmt: skip
    values = results.scores
    values = values[
        (values["reading"] == results.first.reading) & (values["score"] == "cosine")
        & values["variant"].isin([BELOW, ABOVE])
    ]  # fmt: skip
    if values.empty:
        return pd.DataFrame(columns=columns)
    flipped = results.flipped.loc[results.first.recipe]
    sides = [flipped.loc[side].droplevel(["strength", "draw"]) for side in (BELOW, ABOVE)]
    images = sides[0].index[~sides[0] & sides[1].loc[sides[0].index]]
    if not len(images):
        return pd.DataFrame(columns=columns)
    drift = values.assign(value=1 - values["value"]).pivot(
        index="image", columns=["target", "variant", "layer"], values="value"
    )
    arms = {
        target: [drift.loc[images, target][side][results.layers] for side in (BELOW, ABOVE)]
        for target in (OWN, SEED)
    }
    masks = {target: decided_layers(pair, flags) for target, pair in arms.items()}
    common = np.logical_and.reduce(list(masks.values()))
    parts = results.images.set_index("image").loc[images]
    step = ((parts["above"] - parts["below"]) / parts["above"]).mean()
    tables = []
    for target, (below, above) in arms.items():
        pair = [with_mean(arm, common, masks[target]) for arm in (below, above, above - below)]
        both = ~np.isnan(pair[2])
        means, low, high = estimate(results, images, pair[2], settings, seed, "boundary")
        with np.errstate(invalid="ignore"):
            each = [np.where(both, arm, 0).sum(0) / both.sum(0) for arm in pair[:2]]
        tables.append(
            pd.DataFrame(
                {
                    "target": target,
                    "layer": [*results.layers, "mean"],
                    "images": len(images),
                    "n": both.sum(0),
                    "below": each[0],
                    "above": each[1],
                    "difference": means,
                    "low": low,
                    "high": high,
                    "step": step,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _sizes(results: Results, places: Sequence[tuple[str, float, int]]) -> float:
    """Returns the mean root mean square of the changes at these places, in grey levels."""
    scales = results.sizes
    scales = scales[(scales["recipe"] == results.first.recipe) & (scales["draw"] == 0)]
    scales = scales.set_index(["strength", "image"])
    raised_sizes = results.images.set_index("image")["raised_size"]
    attack = results.images.set_index("image")["l2"]
    norms = []
    for variant, strength, image in places:
        if variant == RAISED:
            norms.append(raised_sizes[image] * attack[image])
        else:
            arm = "attack" if variant == ADVERSARIAL else "noise"
            norms.append(scales.loc[(strength, image), f"{arm}_l2"])
    return float(np.mean(norms) / results.record.facts["values"] ** 0.5 * 255)


def shares(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the share of the attack's excess drift that remains in two controls, at strength 1.

    `FIXED`: of the flipped images, the excess with every map for the clean image's class,
    over that with each map for its own class. `NEGATED`: of all images, how much further than noise
    the negated perturbation moves the maps, over how much further the attack does, both for the
    clean image's class. Each pair is of the same images and layers; layers of which an arm has too
    many empty maps are left out. The interval of a quotient is that of its resamples, and missing
    where that of its denominator reaches 0: the quotient is then unbounded.

    Columns: `share, images, layers, part, whole` (the two excesses), `value, low, high` of part
    over whole, `flipped` (share of these images whose class the control flips; of the fixed class
    missing), `drift_attack, drift_noise` (1 - cosine for the clean image's class).
    """
    values = results.scores
    values = values[
        (values["reading"] == results.first.reading) & (values["score"] == "cosine")
        & (values["strength"] == 1) & (values["draw"] == 0)
    ]  # fmt: skip
    wide = values.pivot(index="image", columns=["target", "variant", "layer"], values="value")
    wide = wide.sort_index(axis=1)

    def arm(target: str, variant: str) -> pd.DataFrame:
        return wide[target, variant][results.layers]

    excess = {target: arm(target, NOISE) - arm(target, ADVERSARIAL) for target in (OWN, SEED)}
    success = results.images.set_index("image")["success"]
    negated = arm(SEED, NOISE) - arm(SEED, NEGATED)
    rows = []
    for share, images, part, whole in (
        (FIXED, success.index[success], excess[SEED], excess[OWN]),
        (NEGATED, success.index, negated, excess[SEED]),
    ):
        if results.cell.attack == "none" or not len(images):
            continue
        pair = [part.loc[images], whole.loc[images]]
        decided = decided_layers(pair, flags)
        mask = pair[0].notna() & pair[1].notna() & decided
        drifts = [1 - arm(SEED, variant).loc[images] for variant in (ADVERSARIAL, NOISE)]
        columns = np.column_stack([v.where(mask).mean(axis=1) for v in (*pair, *drifts)])
        first, second, attack, noise = np.nanmean(columns, axis=0)
        resampler = draws(results, images, settings, seed, "shares")
        means = resampler.means(columns)
        quotients = np.column_stack([means[:, 0] / means[:, 1], means[:, 1]])
        low, high = statistics.interval(
            quotients, confidence=settings.confidence, clusters=resampler.clusters
        )
        if not low[1] > 0:
            low[0] = high[0] = np.nan
        flipped = _flip_rate(results, NEGATED, 0) if share == NEGATED else np.nan
        rows.append((share, len(images), int(decided.sum()), first, second, first / second, low[0],
                     high[0], flipped, attack, noise))  # fmt: skip
    return pd.DataFrame(rows, columns=SHARES)


def controls(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the similarity to the clean map under each control, by protocol and layer.

    Under the first protocol all variants at strength 1; under the others 'nothing' (the clean
    image compared with itself: how far the protocol is from identity) and 'unrelated' (clean
    images of other sources: the floor). 'mean' averages over the same layers for all variants of
    a protocol: those that are decided for each that pairs every image with itself. Columns:
    `protocol, target, variant, draw, layer, images, n, mean, low, high, least` (the smallest
    similarity), `flipped` (share of images whose class it flips; of raised noise, which holds those
    alone that it flips, of all).
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
        arms = {
            key: rows.pivot(index="image", columns="layer", values="value")[results.layers]
            for key, rows in values.groupby(["target", "variant", "draw"], observed=True)
        }
        of_some = (UNRELATED, RAISED, BELOW, ABOVE)
        whole = [w for (_, variant, _), w in arms.items() if variant not in of_some]
        decided = decided_layers(whole, flags)
        for (target, variant, draw), wide in arms.items():
            columns = with_mean(wide, decided, np.ones_like(decided))
            means, low, high = estimate(results, wide.index, columns, settings, seed, "controls")
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
                        "flipped": _flip_rate(results, str(variant), int(draw)),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _flip_rate(results: Results, variant: str, draw: int) -> float:
    if variant in (NOTHING, UNRELATED):
        return float("nan")
    flips = results.flipped.loc[results.first.recipe, variant, 1.0, draw]
    return flips.sum() / len(results.images)

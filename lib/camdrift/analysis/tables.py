"""A cell's results as tidy tables, the source of all figures and texts."""

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from tabulate import DataRow, TableFormat

from camdrift import storage
from camdrift.analysis import statistics
from camdrift.analysis.compromise import RULES, compromised, compromised_layers, counts
from camdrift.analysis.results import GROUPS, Results, Tables
from camdrift.analysis.statistics import Resampler
from camdrift.pipeline import randomness
from camdrift.settings import FlagSettings, StatisticsSettings

DIGITS = 3  # of a similarity or share in a table: more would change from machine to machine
TARGETS = ("own_top1", "seed_class")


# The content of a study's tables, one line each.
ABOUT = {
    "attacks": "one row for each cell: images, successes, rates, sizes in grey levels of 255",
    "noise": "difference of the noise's size from the attack's, by recipe and strength",
    "similarity": "distribution of similarity to the clean map, by layer, strength, variant, "
    "target and group; strength 0 pools all",
    "excess": "similarity under noise minus under attack by layer, with interval and Holm's p",
    "methods": "excess at strength 1, with the maps of each method",
    "curves": "mean similarity by protocol, strength and layer",
    "coverage": "share of covered neurons after each seed image",
    "compromised": "share of images whose map at a layer is compromised, by rule",
    "counts": "share of images with 0, 1, ... compromised layers, by rule",
    "groups": "excess by strength, of images flipped at that strength and of the others",
    "factorial": "drift by attack or noise, class flipped or not, on the same images",
    "boundary": "drift just below and just above the decision boundary, at nearly one size",
    "focus": "correlation of where maps change and where the perturbation is, by layer",
    "controls": "similarity under nothing, noise, the negated perturbation, unrelated images",
    "shares": "the share of the excess that remains with the class fixed, or the sign reversed",
    "flags": "conditions that limit the validity of a verdict, and the claims affected",
    "switches": "the finding of each protocol on each claim",
    "readings": "the finding on each claim, of some of the images or with maps of another class",
    "claims": "the published claims: statistic, threshold, value, verdict, published and corrected",
}


def cell_tables(
    results: Results,
    settings: StatisticsSettings,
    flags: FlagSettings,
    *,
    seed: int,
) -> Tables:
    """Returns the tables of a cell by name.

    attacks: one row: counts, rates, sizes.
    noise: difference of the noise's size from the attack's, by recipe and strength.
    similarity: distribution of each score by layer, strength, variant, target and group.
    excess: mean of noise minus attack, paired by image, with interval and Holm's p, by layer.
    curves: mean similarity under each protocol, by strength and layer.
    compromised: share of compromised layers, attack and held-out noise, by rule.
    counts: share of images with 0, 1, ... compromised layers, by rule.
    coverage: share of covered neurons after each seed.
    methods: `excess` at strength 1 with the maps of each method.
    """
    tables = {
        "attacks": attacks(results),
        "noise": noise_fit(results),
        "similarity": similarity(results),
        "excess": excess(results, results.main(), settings, flags, seed=seed),
        "methods": by_method(results, settings, flags, seed=seed),
        "curves": curves(results),
        "coverage": coverage(results),
    }
    shares, numbers = [], []
    for rule in RULES:
        for target in TARGETS:
            rows = compromised_layers(results, target, rule, settings)
            shares.append(compromised(rows).assign(rule=rule))
            numbers.append(counts(rows).assign(rule=rule))
    tables["compromised"] = pd.concat(shares, ignore_index=True)
    tables["counts"] = pd.concat(numbers, ignore_index=True)
    return tables


def attacks(results: Results) -> pd.DataFrame:
    """Returns one row of counts, rates and sizes; sizes in grey levels of 255."""
    rows = results.images
    correct = rows["clean"] == rows["label"]
    return pd.DataFrame(
        {
            "set": [results.cell.set],
            "attack": [results.cell.attack],
            "model": [results.cell.model],
            "source": [results.cell.source],
            "images": [len(rows)],
            "wrong_when_clean": [int((~correct).sum())],
            "accuracy": [correct.mean()],
            "successes": [int(rows["success"].sum())],
            "success_rate": [rows["success"].mean()],
            "success_rate_of_correct": [rows["success"][correct].mean()],
            "success_rate_8bit": [rows["success_8bit"].mean()],
            "rms_grey": [rows["rms"].mean() * 255],
            "linf_grey": [rows["linf"].mean() * 255],
            "evaluations": [rows["evaluations"].mean()],
        }
    )


def noise_fit(results: Results) -> pd.DataFrame:
    """Returns the largest relative difference of L2, and the means of the moments.

    By recipe and strength; moments in grey levels of 255.
    """
    scales = results.sizes
    keys = ["recipe", "strength"]
    size = scales["attack_l2"].replace(0, np.nan)
    table = scales.assign(difference=((scales["noise_l2"] - size) / size).abs())
    columns = [f"{arm}_{fact}" for arm in ("attack", "noise") for fact in ("mean", "std", "linf")]
    means = table.groupby(keys)[columns].mean().mul(255).add_suffix("_grey")
    means.insert(0, "largest_l2_difference", table.groupby(keys)["difference"].max())
    return means.reset_index()


def similarity(results: Results) -> pd.DataFrame:
    """Returns the distribution of each score, with counts of empty maps.

    Columns: `target, score, group, variant, strength, layer`, then `n`, `empty` (pairs left out),
    `mean`, `mean_empty_0` (with 0 in place of the empty), `std`, quartiles, and whiskers at the
    furthest value within 1.5 interquartile ranges. Strength 0 stands for all strengths pooled.
    """
    values = pd.concat([results.main(score) for score in results.measured_by])
    values = values[values["draw"] == 0]
    keys = ["target", "score", "variant", "strength", "layer"]
    tables = []
    for group, kinds in GROUPS.items():
        rows = values[values["success"].isin(kinds)]
        if rows.empty:
            continue
        pooled = rows.assign(strength=0.0)
        both = pd.concat([pooled, rows])
        table = _distribution(both.groupby(keys, observed=True, sort=False)["value"])
        tables.append(table.reset_index().assign(group=group))
    table = pd.concat(tables, ignore_index=True)
    order = ["target", "score", "group", *keys[2:]]
    return table[[*order, *table.columns.difference(order, sort=False)]]


def _distribution(groups: SeriesGroupBy) -> pd.DataFrame:
    quartiles = groups.quantile([0.25, 0.5, 0.75]).unstack()
    quartiles.columns = ["q1", "median", "q3"]
    table = pd.DataFrame({"n": groups.count(), "empty": groups.size() - groups.count()})
    table["mean"] = groups.mean()
    table["mean_empty_0"] = table["mean"] * table["n"] / (table["n"] + table["empty"])
    table["std"] = groups.std()
    table = table.join(quartiles)
    reach = 1.5 * (table["q3"] - table["q1"])
    values, place = groups.obj, groups.ngroup().to_numpy()
    low, high = ((table["q1"] - reach).to_numpy(), (table["q3"] + reach).to_numpy())
    table["low"] = values.where(values >= low[place]).groupby(place).min().to_numpy()
    table["high"] = values.where(values <= high[place]).groupby(place).max().to_numpy()
    return table


def by_method(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns `excess` at strength 1 with the maps of each method; the deciding method is first."""
    tables = []
    for method in results.methods:
        values = results.main(method=method)
        table = excess(results, values[values["strength"] == 1], settings, flags, seed=seed)
        tables.append(table.drop(columns=["strength", "low_by_image", "high_by_image"]))
        tables[-1].insert(0, "method", method)
    return pd.concat(tables, ignore_index=True)


def excess(
    results: Results,
    values: pd.DataFrame,
    settings: StatisticsSettings,
    flags: FlagSettings,
    *,
    seed: int,
) -> pd.DataFrame:
    """Returns the mean excess drift of the attack over noise, cosine, paired by image.

    `values` are as `Results.main` gives them.

    Columns: `target, group, strength, layer`, `n`, `mean`, `low`, `high` (percentile interval,
    resampled by source picture), `low_by_image`, `high_by_image` (resampled by image, as if tiles
    of a picture were independent), `effect` (mean over standard deviation of the paired
    differences, Cohen's d for pairs), `p_holm` (one-sided, over the layers), `empty_share`,
    `decided`. A layer with more empty maps than the settings allow is not decided; 'mean' is the
    average over the decided layers, and Holm's family holds these alone.
    """
    values = values[values["draw"] == 0]
    sources = values.drop_duplicates("image").set_index("image")[["source", "success"]]
    resamplers: dict[tuple[str, bool], Resampler] = {}
    tables = []
    for (target, strength), rows in values.groupby(["target", "strength"], observed=True):
        wide = rows.pivot(index="image", columns=["variant", "layer"], values="value")
        difference = wide["noise"][results.layers] - wide["adversarial"][results.layers]
        for group, kinds in GROUPS.items():
            member = sources.loc[difference.index, "success"].isin(kinds).to_numpy()
            part = difference[member]
            if not len(part):
                continue
            empty = part.isna().mean().to_numpy()
            decided = empty <= flags.empty_share
            columns = np.column_stack([part, part.loc[:, decided].mean(axis=1)])
            estimates = {}
            for by_image in (False, True):
                if (group, by_image) not in resamplers:
                    clusters = part.index if by_image else sources.loc[part.index, "source"]
                    resamplers[group, by_image] = Resampler.draw(
                        clusters.to_numpy(),
                        resamples=statistics.required_resamples(
                            settings.resamples,
                            comparisons=len(results.layers),
                            confidence=settings.confidence,
                        ),
                        rng=randomness.generator(seed, "excess", results.name, group, by_image),
                    )
                estimates[by_image] = resamplers[group, by_image].estimate(
                    columns, confidence=settings.confidence
                )
            source, image = estimates[False], estimates[True]
            spread = pd.DataFrame(columns).std().to_numpy()
            family = np.where(decided, source.p[:-1], np.nan)
            tables.append(
                pd.DataFrame(
                    {
                        "target": target,
                        "group": group,
                        "strength": strength,
                        "layer": [*results.layers, "mean"],
                        "n": source.n,
                        "mean": source.mean,
                        "low": source.low,
                        "high": source.high,
                        "low_by_image": image.low,
                        "high_by_image": image.high,
                        "effect": source.mean / np.where(spread > 0, spread, np.nan),
                        "p_holm": [*statistics.holm(family), np.nan],
                        "empty_share": [*empty, empty.mean()],
                        "decided": [*decided, decided.any()],
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def curves(results: Results) -> pd.DataFrame:
    """Returns the mean cosine of successfully attacked images under each protocol.

    For the protocol's own target, draw 0. Columns: `protocol, variant, strength, layer, n, mean`.
    """
    scores = results.scores
    arms = scores["variant"].isin([storage.ADVERSARIAL, storage.NOISE]) & (scores["draw"] == 0)
    scores = scores[arms & (scores["score"] == "cosine") & scores["success"]]
    parts = []
    for name, protocol in results.protocols.items():
        rows = scores[
            (scores["reading"] == protocol.reading) & (scores["target"] == protocol.target)
        ]
        groups = rows.groupby(["variant", "strength", "layer"], observed=True, sort=False)["value"]
        means = groups.agg(["count", "mean"]).reset_index().rename(columns={"count": "n"})
        means.insert(0, "protocol", name)
        parts.append(means)
    return pd.concat(parts, ignore_index=True)


def coverage(results: Results) -> pd.DataFrame:
    """Returns neuron coverage after each seed, the mean over all orders of the seeds.

    As in the paper, a seed counts together with its changed image. Columns: `arm, strength, seeds,
    coverage, neurons`.
    """
    clean = results.bits[storage.CLEAN, 0.0]
    steps = np.unique(np.geomspace(1, len(clean), 60).round().astype(int))
    tables = []
    for (variant, strength), bits in results.bits.items():
        if variant == storage.CLEAN:
            continue
        tables.append(
            pd.DataFrame(
                {
                    "arm": "attack" if variant == "adversarial" else "noise",
                    "strength": strength,
                    "seeds": steps,
                    "coverage": statistics.coverage_curve(clean | bits)[steps - 1],
                    "neurons": clean.shape[1],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def join_cells(parts: list[tuple[str, Tables]]) -> Tables:
    """Returns the tables of several cells as one each, rounded, with a first column `cell`."""
    tables_by_name: dict[str, list[pd.DataFrame]] = {}
    for cell, cell_parts in parts:
        for name, table in cell_parts.items():
            table.insert(0, "cell", cell)
            tables_by_name.setdefault(name, []).append(table)
    # A table without rows would change the types of the others' columns to object.
    whole = {
        name: pd.concat([t for t in same if len(t)] or same[:1], ignore_index=True)
        for name, same in tables_by_name.items()
    }
    return {name: rounded(table) for name, table in whole.items()}


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with its numbers rounded, and without a negative zero."""
    numbers = table.select_dtypes("floating").columns
    return table.assign(**{n: table[n].round(DIGITS) + 0.0 for n in numbers})


def as_text(value: float, low: float, high: float) -> str:
    """Returns a value with its interval as text, empty without a value."""
    if pd.isna(value):
        return ""
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


# A cell takes no more room than its text: columns of equal width would fill pages with spaces.
NARROW = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: f"| {' | '.join(['---'] * len(widths))} |",
    linebetweenrows=None,
    linebelow=None,
    headerrow=DataRow("| ", " | ", " |"),
    datarow=DataRow("| ", " | ", " |"),
    padding=0,
    with_header_hide=None,
)


def markdown(table: pd.DataFrame) -> str:
    """Returns a table as GitHub Markdown; a '|' in a text is escaped."""
    texts = table.astype(str).map(lambda text: text.replace("|", r"\|"))
    return texts.to_markdown(index=False, tablefmt=NARROW, disable_numparse=True, stralign=None)

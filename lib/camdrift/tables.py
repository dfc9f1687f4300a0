"""A study's artefacts as tidy tables: what its figures draw, and what stands in data/results."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from tqdm import tqdm

from camdrift import artifacts, randomness, statistics
from camdrift.artifacts import Attacked, Covered, Maps, Noise, Scores
from camdrift.settings import Cell, StatisticsSettings

Tables = dict[str, pd.DataFrame]

DIGITS = 3  # of a similarity or share in data/results: more would change from machine to machine
GROUPS = {"all": [True, False], "success": [True], "failure": [False]}
TARGETS = ("own_top1", "seed_class")


@dataclass(frozen=True)
class Results:
    """What the stages of one cell wrote."""

    name: str
    cell: Cell
    attacked: Attacked
    noise: Noise
    maps: Maps
    covered: Covered
    scores: pd.DataFrame


@dataclass(frozen=True)
class Example:
    """One attacked image to look at.

    pictures: uint8 (rows, h, w, 3), one a row of `labels`.
    maps: float32 (rows, h, w) a layer, each divided by its maximum.
    labels: of the rows, for people.
    layers: labels of the layers, in forward order.
    """

    pictures: np.ndarray
    maps: list[np.ndarray]
    labels: list[str]
    layers: list[str]


def read(study: str, name: str, cell: Cell) -> Results:
    """Returns what the stages of a cell wrote, its scores with `id`, `source` and `success`."""

    def part(kind: type[artifacts.T], stage: str) -> artifacts.T:
        return artifacts.read(kind, artifacts.cell_folder(study, name, stage))

    attacked = part(Attacked, "attack")
    facts = attacked.images.set_index("image")[["source", "success"]]
    scores = part(Scores, "score").values.join(facts, on="image")
    noise, maps = part(Noise, "noise"), part(Maps, "cam")
    return Results(name, cell, attacked, noise, maps, part(Covered, "coverage"), scores)


def of_study(
    study: str, cells: dict[str, Cell], *, statistics: StatisticsSettings, orders: int, seed: int
) -> Tables:
    """Returns the tables of a study by name, rounded; every table has a column `cell`.

    attacks: one row a cell: counts, rates, sizes.
    noise: how well the noise's size fits the attack's, by strength.
    similarity: distribution of each score by layer, strength, variant, target and group.
    excess: mean of noise minus attack, paired by image, with interval and Holm's p, by layer.
    compromised: share of compromised layers, attack and held-out noise.
    counts: share of images with 0, 1, ... compromised layers.
    coverage: share of covered neurons after each seed.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    for name, cell in tqdm(cells.items(), desc="tables", unit="cell"):
        results = read(study, name, cell)
        made = {
            "attacks": attacks(results),
            "noise": noise_fit(results),
            "similarity": similarity(results),
            "excess": excess(results, statistics, seed=seed),
            "coverage": covered(results, orders=orders, seed=seed),
        }
        rule = {target: _compromised(results, target) for target in TARGETS}
        made["compromised"] = pd.concat(map(compromised, rule.values()), ignore_index=True)
        made["counts"] = pd.concat(map(counts, rule.values()), ignore_index=True)
        for table, rows in made.items():
            rows.insert(0, "cell", name)
            parts.setdefault(table, []).append(rows)
    return {
        name: pd.concat(rows, ignore_index=True).round(DIGITS).replace(-0.0, 0.0)
        for name, rows in parts.items()
    }


def load(study: str) -> Tables:
    """Returns the tables of a study as its report wrote them.

    Raises:
        FileNotFoundError: there are none; the message says what to run.
    """
    folder = artifacts.results(study, "tables")
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"no tables in {folder}; run `make repro STUDY={study}`")
    # A cell may be called 'none' or 'nan': only an empty field is a missing value.
    return {
        file.stem: pd.read_csv(
            file, keep_default_na=False, na_values=[""], dtype={"cell": str, "layer": str}
        )
        for file in files
    }


def attacks(results: Results) -> pd.DataFrame:
    """Returns one row of counts, rates and sizes; sizes in grey levels of 255."""
    rows = results.attacked.images
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
    """Returns by strength the largest relative difference of L2, and the means of the moments."""
    scales = results.noise.scales
    size = scales["attack_l2"].replace(0, np.nan)
    table = scales.assign(difference=((scales["noise_l2"] - size) / size).abs())
    columns = [f"{arm}_{fact}" for arm in ("attack", "noise") for fact in ("mean", "std", "linf")]
    found = table.groupby("strength")[columns].mean().mul(255).add_suffix("_grey")
    found.insert(0, "largest_l2_difference", table.groupby("strength")["difference"].max())
    return found.reset_index()


def similarity(results: Results) -> pd.DataFrame:
    """Returns the distribution of each score, with counts of empty maps.

    Columns: `target, score, group, variant, strength, layer`, then `n`, `empty` (pairs left out),
    `mean`, `mean_empty_0` (with 0 in place of the empty), `std`, quartiles, and whiskers at the
    furthest value within 1.5 interquartile ranges. Strength 0 stands for all strengths pooled.
    """
    values = results.scores[results.scores["draw"] == 0]
    keys = ["target", "score", "variant", "strength", "layer"]
    tables = []
    for group, kinds in GROUPS.items():
        chosen = values[values["success"].isin(kinds)]
        if chosen.empty:
            continue
        pooled = chosen.assign(strength=0.0)
        both = pd.concat([pooled, chosen])
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


def excess(results: Results, chosen: StatisticsSettings, *, seed: int) -> pd.DataFrame:
    """Returns the mean excess drift of the attack over noise, cosine, paired by image.

    Columns: `target, group, strength, layer`, `n`, `mean`, `low`, `high` (percentile interval,
    resampled by source picture), `p_holm` (one-sided, over the layers), `empty_share`, `decided`.
    A layer with more empty maps than the settings allow is not decided; 'mean' is the average over
    the decided layers, and Holm's family holds these alone.
    """
    values = results.scores[(results.scores["score"] == "cosine") & (results.scores["draw"] == 0)]
    layers = list(results.maps.layers["label"])
    sources = values.drop_duplicates("image").set_index("image")[["source", "success"]]
    tables = []
    for (target, strength), rows in values.groupby(["target", "strength"], observed=True):
        wide = rows.pivot(index="image", columns=["variant", "layer"], values="value")
        difference = wide["noise"][layers] - wide["adversarial"][layers]
        for group, kinds in GROUPS.items():
            member = sources.loc[difference.index, "success"].isin(kinds).to_numpy()
            part = difference[member]
            if not len(part):
                continue
            empty = part.isna().mean().to_numpy()
            decided = empty <= chosen.empty_share
            found = statistics.bootstrap(
                np.column_stack([part, part.loc[:, decided].mean(axis=1)]),
                sources.loc[part.index, "source"].to_numpy(),
                resamples=chosen.resamples,
                confidence=chosen.confidence,
                rng=randomness.generator(seed, "excess", results.name, str(target), group),
            )
            family = np.where(decided, found.p[:-1], np.nan)
            tables.append(
                pd.DataFrame(
                    {
                        "target": target,
                        "group": group,
                        "strength": strength,
                        "layer": [*layers, "mean"],
                        "n": found.n,
                        "mean": found.mean,
                        "low": found.low,
                        "high": found.high,
                        "p_holm": [*statistics.holm(family), np.nan],
                        "empty_share": [*empty, empty.mean()],
                        "decided": [*decided, decided.any()],
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _compromised(results: Results, target: str) -> pd.DataFrame:
    rows = results.scores[
        (results.scores["score"] == "cosine") & (results.scores["target"] == target)
    ]
    return statistics.compromised(rows)


def compromised(rule: pd.DataFrame) -> pd.DataFrame:
    """Returns the share of compromised maps by `target, group, arm, strength, layer`, and `n`.

    Groups of the noise are those of the same images under attack.
    """
    return _by_group(rule, ["target", "arm", "strength", "layer"])


def counts(rule: pd.DataFrame) -> pd.DataFrame:
    """Returns the share of images by number of compromised layers, from 0 to all.

    Of images none of whose maps is empty at that strength: a layer whose map is empty can be
    called neither compromised nor not. `n` is their number.
    """
    layers = rule["layer"].nunique()
    size = rule.groupby(["target", "arm", "strength", "image"], observed=True)["layer"].transform(
        "size"
    )
    rule = rule[size == layers]
    keys = ["target", "arm", "strength", "image", "success"]
    totals = rule.groupby(keys, observed=True)["compromised"].sum().reset_index(name="layers")
    tables = [
        _by_group(totals.assign(compromised=totals["layers"] == k, layers=k),
                  ["target", "arm", "strength", "layers"])
        for k in range(layers + 1)
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def _by_group(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    tables = []
    for group, kinds in GROUPS.items():
        chosen = rows[rows["success"].isin(kinds)]
        if chosen.empty:
            continue
        found = chosen.groupby(keys, observed=True, sort=False)["compromised"].agg(["mean", "size"])
        found = found.rename(columns={"mean": "share", "size": "n"}).reset_index()
        found.insert(1, "group", group)
        tables.append(found)
    return pd.concat(tables, ignore_index=True)


def covered(results: Results, *, orders: int, seed: int) -> pd.DataFrame:
    """Returns neuron coverage after each seed, averaged over random orders of the seeds.

    As in the paper, a seed counts together with its changed image; both arms use the same seeds in
    the same orders. Columns: `arm, strength, seeds, coverage, neurons`.
    """
    neurons = results.covered.facts["neurons"]
    bits = np.unpackbits(results.covered.bits, axis=1, count=neurons).astype(bool)
    rows = results.covered.rows
    clean = bits[(rows["variant"] == "clean").to_numpy()]
    shuffles = [
        randomness.generator(seed, "order", i).permutation(len(clean)) for i in range(orders)
    ]
    shown = np.unique(np.geomspace(1, len(clean), 60).round().astype(int))
    tables = []
    for (variant, strength), part in _changed(rows):
        changed = bits[part]
        curves = [statistics.coverage_curve(clean, changed, order) for order in shuffles]
        tables.append(
            pd.DataFrame(
                {
                    "arm": "attack" if variant == "adversarial" else "noise",
                    "strength": strength,
                    "seeds": shown,
                    "coverage": np.mean(curves, axis=0)[shown - 1],
                    "neurons": neurons,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _changed(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, float], np.ndarray]]:
    changed = rows[rows["variant"] != "clean"]
    for key, part in changed.groupby(["variant", "strength"]):
        yield key, part.index.to_numpy()


def example(study: str, name: str) -> Example:
    """Returns the first kept example of a cell: clean, adversarial and noise at strength 1."""
    maps = artifacts.read(Maps, artifacts.cell_folder(study, name, "cam"))
    image = maps.examples["image"].iloc[0]
    shown = maps.examples[maps.examples["image"] == image].reset_index(drop=True)
    wanted = [("clean", 0.0, "clean"), ("adversarial", 1.0, "attack"), ("noise", 1.0, "noise")]
    places = [
        int(shown.index[(shown["variant"] == v) & (shown["strength"] == s)][0])
        for v, s, _ in wanted
    ]
    rows = maps.rows[(maps.rows["image"] == image) & (maps.rows["target"] == "own_top1")]
    rows = rows[rows["draw"] == 0].set_index(["variant", "strength"])["map"]
    chosen = [int(rows.loc[(v, s)]) for v, s, _ in wanted]
    stacks = [
        np.asarray(
            maps.values[chosen, layer.start : layer.start + layer.height * layer.width],
            dtype=np.float32,
        ).reshape(-1, layer.height, layer.width)
        for layer in maps.layers.itertuples()
    ]
    return Example(
        maps.pictures[0][places], stacks, [text for *_, text in wanted], list(maps.layers["label"])
    )


def metrics(tables: Tables, chosen: StatisticsSettings) -> dict:
    """Returns a study's summary, by cell: rates, excess drift at strength 1, flags."""
    found = {}
    for name, row in tables["attacks"].set_index("cell").iterrows():
        facts: dict = {key: row[key] for key in ("images", "accuracy", "successes", "success_rate")}
        facts["success_rate_8bit"] = row["success_rate_8bit"]
        facts["accuracy"] = row["accuracy"]
        excesses = tables["excess"].query("cell == @name and strength == 1 and layer == 'mean'")
        for group in ("success", "failure"):
            for target in TARGETS:
                part = excesses.query("group == @group and target == @target")
                if len(part) and not np.isnan(part["mean"].iloc[0]):
                    facts[f"excess_{group}_{target}"] = part["mean"].iloc[0]
        for arm in ("attack", "noise"):
            part = tables["compromised"].query(
                "cell == @name and arm == @arm and strength == 1 and group == 'success' "
                "and target == 'own_top1'"
            )
            if len(part):
                facts[f"compromised_{arm}"] = round(part["share"].mean(), DIGITS)
        facts["flags"] = len(flags(tables, str(name), chosen))
        found[str(name)] = {
            key: value.item() if hasattr(value, "item") else value for key, value in facts.items()
        }
    return found


def flags(tables: Tables, cell: str, chosen: StatisticsSettings) -> list[str]:
    """Returns what a reader must know before believing a cell's numbers."""
    row = tables["attacks"].set_index("cell").loc[cell]
    texts = []
    if row["attack"] != "none" and row["successes"] < chosen.minimum_successes:
        texts.append(
            f"only {row['successes']} successful adversarials, wanted {chosen.minimum_successes}"
        )
    undecided = tables["excess"].query("cell == @cell and not decided and strength == 1")
    if len(undecided):
        layers = ", ".join(name for name in undecided["layer"].unique() if name != "mean")
        texts.append(f"too many empty maps to decide layers {layers} in at least one group")
    fit = tables["noise"].query("cell == @cell")["largest_l2_difference"].max()
    if fit > 0.01:
        texts.append(f"the noise's L2 norm is off by up to {fit:.1%}, wanted 1 %")
    return texts

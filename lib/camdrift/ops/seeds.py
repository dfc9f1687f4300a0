"""How far a study's headline numbers spread over seeds: `make seeds` runs it with each.

A seed is that of the whole study: the split into training and test tiles, the initial weights and
batches, the attack's choices, the noise.
"""

import io
import json
from pathlib import Path

import pandas as pd

from camdrift import storage
from camdrift.papers.findings import NOT_RUN
from camdrift.settings import params
from camdrift.storage import files

PARTS = ("metrics.json", "tables/claims.csv")
METRICS = (
    "accuracy",
    "success_rate",
    "excess_success_own_top1",
    "excess_success_seed_class",
    "excess_failure_own_top1",
    "compromised_attack",
    "compromised_noise",
    "drift_own_top1",
    "drift_seed_class",
)


def file(study: str) -> Path:
    """Returns the path of a study's spread, kept in git."""
    return storage.RESULTS / "seeds" / f"{study}.csv"


def experiment(seed: int) -> str:
    """Returns the name of the DVC experiment with a seed."""
    return f"seed-{seed}"


def gather(study: str, seeds: list[int], own: int) -> pd.DataFrame:
    """Returns the metrics and claims of a study with these seeds.

    That with the seed `own` is in this folder, the others are experiments. Columns: `seed, cell,
    name, value, verdict`; a metric has no verdict, a claim has the corrected one.
    """
    parts = []
    for seed in seeds:
        metrics, claims = (_text(study, seed, own, part) for part in PARTS)
        for cell, facts in json.loads(metrics).items():
            rows = [(cell, name, facts.get(name)) for name in METRICS if name in facts]
            table = pd.DataFrame(rows, columns=["cell", "name", "value"])
            parts.append(table.assign(seed=seed, verdict=""))
        table = pd.read_csv(io.StringIO(claims))
        table = table[table["rests_on"].notna()].rename(columns={"id": "name"})
        parts.append(table[["name", "value", "verdict"]].assign(seed=seed, cell=""))
    table = pd.concat(parts, ignore_index=True)
    return table[["seed", "cell", "name", "value", "verdict"]]


def _text(study: str, seed: int, own: int, part: str) -> str:
    path = storage.results(study, part)
    if seed == own:
        return path.read_text(encoding="utf-8")
    import dvc.api  # half a second, which `read` does without

    return dvc.api.read(path.as_posix(), repo=".", rev=experiment(seed))


def table(spread: pd.DataFrame) -> pd.DataFrame:
    """Returns the headline numbers for people: a row a cell and number, a column a seed."""
    rows = spread[spread["verdict"] == ""]
    wide = rows.pivot(index=["cell", "name"], columns="seed", values="value").dropna(how="all")
    keys = rows[["cell", "name"]].drop_duplicates()
    wide = wide.reindex(pd.MultiIndex.from_frame(keys)).dropna(how="all")
    shown = wide.map("{:.3f}".format).rename(columns=lambda seed: f"seed {seed}")
    shown["range"] = (wide.max(axis=1) - wide.min(axis=1)).map("{:.3f}".format)
    return shown.reset_index().rename(columns={"name": "number"}).rename_axis(columns=None)


def verdicts(spread: pd.DataFrame) -> pd.DataFrame:
    """Returns the claims for people: value and verdict under each seed, and whether they agree."""
    rows = spread[~spread["verdict"].isin(["", NOT_RUN])]
    text = [
        row.verdict if pd.isna(row.value) else f"{row.value:.3f} {row.verdict}"
        for row in rows.itertuples()
    ]
    order = rows["name"].drop_duplicates()
    wide = rows.assign(text=text).pivot(index="name", columns="seed", values="text").loc[order]
    agree = rows.groupby("name")["verdict"].nunique().loc[order] == 1
    shown = wide.rename(columns=lambda seed: f"seed {seed}")
    shown["same verdict"] = agree.map({True: "yes", False: "no"})
    return shown.reset_index().rename(columns={"name": "claim"}).rename_axis(columns=None)


def read(study: str) -> pd.DataFrame | None:
    """Returns a study's spread, None where it has not been run."""
    if not file(study).exists():
        return None
    return pd.read_csv(file(study), dtype={"cell": str, "verdict": str}).fillna(
        {"cell": "", "verdict": ""}
    )


def main() -> None:
    """Gathers the experiments of `make seeds`, for every study of params.yaml."""
    plan = params.load()
    for study in plan.studies:
        files.write_csv(file(study), gather(study, plan.seeds, plan.seed))


if __name__ == "__main__":
    main()

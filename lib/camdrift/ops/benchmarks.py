"""What `make bench` found, as tables for its page."""

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.storage import files

PATH = storage.RESULTS / "benchmarks" / "races.json"
# Why a target that is missed is missed, by work and rival.
WHY = {
    ("Grad-CAM of 13 layers", "pytorch-grad-cam, all layers at once"): "The forward and backward "
    "of the network, which both need, are nearly all of our time (see the race against the limit): "
    "what is left cannot make up the difference.",
    ("Cosine of maps seen at 224 px", "upsampling first, in torch, pair by pair"): "Small maps "
    "gain the most; the maps of the first layers are as large as what they are seen at, and both "
    "ways have to read them from memory.",
}


def measurements() -> dict:
    """Returns what has been measured, by part; empty where nothing has."""
    return files.read_json(PATH) if PATH.exists() else {}


def summary(races: list[dict]) -> pd.DataFrame:
    """Returns a row for each piece of work, rival and target, over the sizes and batches raced.

    `theirs / ours` is the geometric mean of their time over ours, `worst` the least of the ratios;
    a target is met by the mean, and `races that met it` counts those that did by themselves.
    """
    rows = []
    table = pd.DataFrame(races).assign(where=[_place(race) for race in races])
    for (work, against, target), part in table.groupby(["work", "against", "target"], sort=False):
        mean = float(np.exp(np.log(part["ratio"]).mean()))
        worst = part.loc[part["ratio"].idxmin()]
        rows.append(
            {
                "work": work,
                "against": against,
                "theirs / ours": f"{mean:.2f}",
                "wanted": f"{target:.2f}",
                "met": "yes" if mean >= target else "no",
                "worst": f"{worst['ratio']:.2f} ({worst['where']})",
                "races that met it": f"{(part['ratio'] >= target).sum()} of {len(part)}",
            }
        )
    return pd.DataFrame(rows)


def missed(races: list[dict]) -> str:
    """Returns which targets are missed, by how much and why, as a list in Markdown; '' if none."""
    rows = summary(races).query("met == 'no'")
    return "\n".join(
        f"- {row['work']}, against {row['against']}: {row['theirs / ours']} of the "
        f"{row['wanted']} wanted; worst {row['worst']}. "
        + WHY.get((row["work"], row["against"]), "Not explained yet.")
        for _, row in rows.iterrows()
    )


def _place(race: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in race["place"].items())


def each(races: list[dict]) -> pd.DataFrame:
    """Returns a row a race: where, milliseconds, ratio, and whether it met its target by itself."""
    return pd.DataFrame(
        {
            "work": race["work"],
            "against": race["against"],
            "where": _place(race),
            "ours, ms": f"{1000 * race['ours_wall_minimum']:.2f}",
            "theirs, ms": f"{1000 * race['theirs_wall_minimum']:.2f}",
            "theirs / ours": f"{race['ratio']:.2f}",
            "wanted": f"{race['target']:.2f}",
            "met": "yes" if race["ratio"] >= race["target"] else "no",
        }
        for race in races
    )


def browsing(rows: list[dict]) -> pd.DataFrame:
    """Returns what pages of the dashboard take, a row a page and interaction: seconds."""
    table = pd.DataFrame(rows)
    wide = table.pivot(index=["page", "what"], columns="images", values=["first", "seconds"])
    order = table[["page", "what"]].drop_duplicates().apply(tuple, axis=1).tolist()
    names = {"first": "first view", "seconds": "then"}
    wide.columns = [f"{names[kind]}, {images} images" for kind, images in wide.columns]
    return (
        wide.loc[order].map("{:.2f}".format).reset_index().rename(columns={"what": "a change of"})
    )


def scaling(parts: dict) -> list[tuple[str, pd.DataFrame]]:
    """Returns what workers, images and sides of maps take, and plans: a title and a table each."""
    titles = {
        "workers": "The cam stage of the longest cell, each worker with one thread:",
        "growth": "Ten times the images, peak memory of a stage's process:",
        "sides": "Maps averaged down before they are stored, `cams.max_side`:",
        "papers": "The papers' own studies of 5,000 ImageNet images, as `make study-check` "
        "estimates them on this machine's CPU (not run):",
    }
    tables = {"workers": _workers, "growth": _growth, "sides": _sides, "papers": _papers}
    return [(titles[n], make(pd.DataFrame(parts[n]))) for n, make in tables.items() if n in parts]


def _workers(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "workers": rows["workers"],
            "images a second": rows["pace"].map("{:.2f}".format),
            "of one worker's": (rows["pace"] / rows["pace"].iloc[0]).map("{:.2f}".format),
            "seconds, start to end": rows["seconds"].map("{:.0f}".format),
        }
    )


def _growth(rows: pd.DataFrame) -> pd.DataFrame:
    wide = rows.pivot(index="stage", columns="images", values="peak_memory_mb")
    wide = wide.loc[rows["stage"].unique()]
    few, many = wide.columns
    return pd.DataFrame(
        {
            "stage": wide.index,
            f"MB, {few} images": wide[few],
            f"MB, {many} images": wide[many],
            "ratio": (wide[many] / wide[few]).map("{:.2f}".format),
        }
    )


def _sides(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "max_side, px": rows["side"],
            "of the bytes": rows["bytes"].map("{:.0%}".format),
            "a layer's mean cosine moves by, at most": rows["error"].map("{:.4f}".format),
            "a pair's cosine by, on average": rows["pair"].map("{:.4f}".format),
        }
    )


def _papers(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(hours=rows["seconds"] / 3600, gigabytes=rows["disk"] / 1000)
    wide = rows.pivot(index="stage", columns="preset", values=["hours", "gigabytes"])
    wide = wide.loc[rows["stage"].unique()]
    names = rows["preset"].unique()
    columns = {
        f"`{name}`, {kind}": wide[(kind, name)].map("{:,.1f}".format)
        for name in names
        for kind in ("hours", "gigabytes")
    }
    return pd.DataFrame(columns).reset_index().replace("nan", "")


def overhead(parts: dict) -> str:
    """Returns what stands between our time and the convolutions': their share, and the imports."""
    shares = ", ".join(
        f"{share['share']:.0%} at {share['px']} px and {share['images']} images"
        for share in parts["convolutions"]
    )
    slowest: dict[str, tuple[float, str]] = {}
    for stage, (kind, seconds) in parts["imports"].items():
        slowest[kind] = max(slowest.get(kind, (0.0, "")), (seconds, stage))
    starts = "; ".join(
        f"{kind} {seconds:.1f} s at most (`{stage}`)" for kind, (seconds, stage) in slowest.items()
    )
    return (
        f"Share of the time of Grad-CAM of 13 layers that convolutions take: {shares}. "
        f"Imports of a stage: {starts}."
    )

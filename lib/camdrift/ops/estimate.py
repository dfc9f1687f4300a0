"""Estimate: the cost of a study in seconds, memory and disk, before anything runs.

`python -m camdrift.ops.estimate [PRESET] [STUDY]` validates settings, images and weights, and runs
the study's own stages on a pinch of it, see `forecast`.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
import psutil

from camdrift.ops import build, forecast, needs, stages
from camdrift.ops.forecast import Estimate
from camdrift.ops.trial import MB
from camdrift.pipeline import run
from camdrift.settings import Settings, SettingsError, owners, params, presets
from camdrift.settings.studies import OWNERS


def table(estimates: Sequence[Estimate]) -> pd.DataFrame:
    """Returns a row for each group of stages, reports last, and the total.

    `stage`, `runs`, `seconds` and `disk` (sums), `peak` (the largest: stages run one by one).
    """
    order = list(params.read(params.PIPELINE)["stages"])
    order += [order.pop(0)]  # reports stand first there, so that each is written early
    ranked = sorted(estimates, key=lambda estimate: order.index(estimate.group))
    rows = pd.DataFrame([vars(e) | {"stage": e.group, "runs": 1} for e in ranked])
    sums = {"runs": "sum", "seconds": "sum", "peak": "max", "disk": "sum"}
    groups = rows.groupby("stage", sort=False).agg(sums).reset_index()  # type: ignore[arg-type]
    total = groups.agg(sums).to_frame().T.assign(stage="in all")
    return pd.concat([groups, total], ignore_index=True)[["stage", *sums]]


def duration(seconds: float) -> str:
    """Returns seconds as people say them: 40 s, 25 min, 3.5 h, 12 days."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 and unit == "h" else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def printed(costs: pd.DataFrame) -> list[str]:
    """Returns the table as lines of plain text."""
    lines = [f"{'stage':<12}{'runs':>5}{'time':>10}{'memory, MB':>12}{'disk, MB':>11}"]
    for row in costs.itertuples():
        lines.append(
            f"{row.stage:<12}{row.runs:>5.0f}{duration(row.seconds):>10}{row.peak:>12,.0f}"
            f"{row.disk:>11,.0f}"
        )
    return lines


def scarce(costs: pd.DataFrame) -> list[str]:
    """Returns a line for each of memory and disk that the study exceeds.

    Artefacts lie twice on the disk: in the copy in which stages run, and in DVC's cache.
    """
    total = costs.iloc[-1]
    memory = psutil.virtual_memory().available / MB
    disk = shutil.disk_usage(".").free / MB
    lines = []
    if total["peak"] > memory:
        lines.append(
            f"memory: wanted {total['peak']:,.0f} MB, {memory:,.0f} are free; lower micro_batch or "
            "the sets' limits"
        )
    if 2 * total["disk"] > disk:
        lines.append(
            f"disk: wanted {2 * total['disk']:,.0f} MB, as files lie in DVC's cache, too; "
            f"{disk:,.0f} are free; lower the sets' limits"
        )
    return lines


def narrowed(plan: Settings, names: Sequence[str]) -> Settings:
    """Returns a plan of some studies and of all that they depend on.

    Raises:
        SettingsError: there is none of a name.
    """
    stages.known(plan, names)
    if not names:
        return plan
    parts: dict[str, dict[str, Any]] = {
        part: {k: v for k, v in getattr(plan, part).items() if owners(v) & {*names}}
        for part in OWNERS
    }
    parts["studies"] = {k: v for k, v in plan.studies.items() if k in names}
    limiting = {cell.limiting for cell in parts["cells"].values()} - {None, *parts["cells"]}
    parts["cells"] |= {key: plan.cells[key] for key in plan.cells if key in limiting}
    for key, cell in parts["cells"].items():
        if cell.evaluation not in names:
            unseen = {"detect": [], "adaptive": False}
            parts["cells"][key] = cell.model_copy(update=unseen)
    ends = [value for part in OWNERS for value in parts[part].values()]
    used = {end.model for end in ends} | {end.source for end in parts["cells"].values()}
    parts["models"] = {k: v for k, v in plan.models.items() if k in used}
    sets = {end.set for end in ends} | {model.set for model in parts["models"].values()}
    parts["sets"] = {k: v for k, v in plan.sets.items() if k in sets}
    return plan.model_copy(update=parts)


def resolve(name: str, studies: Sequence[str], changes: Sequence[str]) -> tuple[Settings, dict]:
    """Returns the settings that a preset, or '' for params.yaml's own, and changes give.

    And what the preset needs from elsewhere.

    Raises:
        SettingsError: something is missing or not valid.
    """
    content, needed = None, {}
    if name:
        preset = presets.read(name)
        content = build.placed(preset, build.folders(preset))
        needed = dict(preset.needs)
    return narrowed(build.resolved(content, changes), studies), needed


def main() -> None:
    """Prints the needs and the costs of a study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="a preset, or its .yaml file")
    parser.add_argument("study", nargs="*", help="or another group of it, default all")
    parser.add_argument("-S", "--set", action="append", default=[], help="as of `dvc exp run`")
    arguments = parser.parse_args()
    plan, needed = resolve(arguments.name, arguments.study, arguments.set)
    write = sys.stdout.write
    write("settings: valid\n")
    counts = {}
    for name, image_set in plan.sets.items():
        images = needs.counted(name, image_set, seed=plan.seed, need=needed.get("DATA"))
        splits = ", ".join(f"{n:,} {split}" for split, n in images.splits.items())
        write(f"set {name}: {splits}; {images.classes:,} classes; {len(images.sample)} decoded\n")
        sys.stdout.writelines(f"  {line}\n" for line in images.notes)
        counts[name] = images
    for name, model in plan.models.items():
        needs.numbered(name, model, plan.sets[model.set])
        sys.stdout.writelines(f"{line}\n" for line in needs.weights(name, model))
    write(f"\nrunning the stages on a few images, {run.threads()} threads:\n")
    estimates = forecast.estimates(plan, counts)
    costs = table(estimates)
    write("\n" + "\n".join(printed(costs)) + "\n\n")
    sys.stdout.writelines(f"{line}\n" for line in [*faults(estimates), *scarce(costs)])
    write(
        "Each stage ran on a few images, and the costs of all are in proportion. Expect the total "
        "within a\nfactor of two, a single line within three. DVC's cache takes as much disk "
        "again.\n"
    )


def faults(estimates: Sequence[Estimate]) -> list[str]:
    """Returns a line for each group of stages that could not be tried."""
    first = {estimate.group: estimate for estimate in reversed(estimates) if estimate.fault}
    return [
        f"{estimate.stage} cannot run on so few images, and counts by its start alone: "
        f"{estimate.fault}"
        for estimate in first.values()
    ]


if __name__ == "__main__":
    try:
        main()
    except SettingsError as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")

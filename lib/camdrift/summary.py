"""A study's results in few words: on the terminal after a run, and in the README."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from camdrift import artifacts, params, report, results, settings, spread

README = Path("README.md")
RUN = artifacts.RESULTS / "run.json"
DASHBOARD = "make dashboard"


def terminal(study: str) -> str:
    """Returns what `make repro` ends with: the report, the headline table, the next command."""
    table = report.headline(results.load(study))
    lines = []
    for _, row in table.iterrows():
        lines.append(f"  {row['cell']}")
        lines += [f"    {name:<38} {row[name]}" for name in table.columns[1:]]
    return "\n".join(
        [
            f"\nStudy '{study}'. Excess = how much further the attack moves the maps than noise of",
            "the same size (cosine, mean over decided layers, with interval; 0 = no further):",
            *lines,
            f"\nReport:    {artifacts.report(study)}",
            f"Figures:   {artifacts.results(study, 'figures')}",
            f"Dashboard: {DASHBOARD}",
        ]
    )


def generated(study: str) -> dict[str, str]:
    """Returns the generated parts of the README by the name of their marker."""
    chosen = params.load()
    made = results.load(study)
    table = report.headline(made)
    figures = artifacts.results(study, "figures").as_posix()
    plan = chosen.studies[study]
    models = sorted({cell.model for cell in chosen.cells.values() if cell.study == study})
    cards = {name: artifacts.read_json(artifacts.model_card(name)) for name in models}
    facts = [
        f"`{name}` ({card['architecture']} at width {card['width']:g}, "
        f"{card['test_accuracy']:.1%} of the test images right)"
        for name, card in cards.items()
    ]
    headline = "\n".join(
        [
            f"![Drift by attack or noise, class flipped or not]({figures}/square_own.png)",
            "",
            f"![The same, every map for the clean image's class]({figures}/square_clean.png)",
            "",
            markdown(report.contrasts(made, plan.headline)),
            "",
            markdown(table),
            "",
            f"Model: {', '.join(facts)}. Written by `make readme` from "
            f"`{artifacts.results(study, 'tables').as_posix()}`.",
        ]
    )
    claims = report.claims(made).drop(columns=["statistic", "where", "behind it", "rests on"])
    run_here = made["claims"]["rests_on"] != ""
    rests_on = made["claims"]["rests_on"][run_here].unique()
    behind = report.claims(made)[["claim", "statistic", "behind it"]][run_here]
    claimed = "\n".join(
        [
            markdown(claims[run_here].drop(columns="of")),
            "",
            f"Rests on: {'; '.join(rests_on)}.",
            "",
            _folded("What stands behind each verdict", behind),
            "",
            _folded("The claims of the other papers", claims[~run_here][["claim", "of", "says",
                    "printed", "verdict"]]),
        ]
    )  # fmt: skip
    switched = "\n".join(
        [
            _folded("Every claim under every protocol", report.switches(made, plan.headline)),
            "",
            _folded("Controls", report.controls(made, plan.headline)),
        ]
    )
    parts = {"headline": headline, "claims": claimed, "switches": switched, "run": _run()}
    return parts | {"oddities": _oddities(made, plan.headline), "seeds": _seeds(study)}


def _folded(title: str, table: pd.DataFrame) -> str:
    return f"<details><summary>{title}</summary>\n\n{markdown(table)}\n\n</details>"


def _oddities(made: results.Tables, cell: str) -> str:
    """Returns whether the two oddities of the paper's figure 5 appear, protocol by protocol."""
    table = report.switches(made, cell).set_index("claim").loc[["A5", "A6"]].T.reset_index()
    names = ["protocol", "0.5 and 1 almost identical (< 0.01)", "0.25, 2 and 4 alike (< 0.03)"]
    return markdown(table.set_axis(names, axis=1))


def _seeds(study: str) -> str:
    found = spread.read(study)
    if found is None:
        return "not run here"
    return f"{markdown(spread.table(found))}\n\n" + _folded(
        "Claims under each seed", spread.verdicts(found)
    )


def _run() -> str:
    if not RUN.exists():
        return "not run here"
    facts = artifacts.read_json(RUN)
    stages = pd.DataFrame(facts["stages"])
    groups = stages.assign(stage=stages["stage"].str.partition("@")[0])
    table = groups.groupby("stage", sort=False).agg(
        runs=("seconds", "size"), seconds=("seconds", "sum"), peak=("peak_memory_mb", "max")
    )
    table = table.rename(columns={"peak": "peak memory, MB"}).round(0).astype(int).reset_index()
    machine = facts["environment"]
    return (
        f"{markdown(table)}\n\nIn all {stages['seconds'].sum() / 60:.1f} minutes of stages on "
        f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}, torch "
        f"{machine['packages']['torch']}."
    )


def markdown(table: pd.DataFrame) -> str:
    """Returns a table as GitHub Markdown; a '|' in a text is escaped."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join(
        f"| {' | '.join(str(v).replace('|', chr(92) + '|') for v in r)} |" for r in rows
    )


def filled(text: str, parts: dict[str, str]) -> str:
    """Returns the README with each part put between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    for name, part in parts.items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        before, marked, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not marked or not ended:
            raise ValueError(f"wanted the markers '{name}' in the README: {begin}...{end}")
        text = before + begin + part + end + after
    return text


def publish() -> None:
    """Copies seconds and memory of the plan's stages, and their environment, beside the results."""
    plan = params.load()
    keys = {*plan.sets, *plan.models, *plan.cells, *plan.studies}
    files = sorted(artifacts.RUNS.glob("*.json"), key=lambda file: file.stat().st_mtime)
    stages = [artifacts.read_json(file) for file in files if file.stem.partition("@")[2] in keys]
    if not stages:
        raise FileNotFoundError(f"no runs in {artifacts.RUNS}; run `make repro`")
    environments = [stage.pop("environment") for stage in stages]
    artifacts.write_json(RUN, {"environment": environments[-1], "stages": stages})


def main() -> None:
    """Shows a study, writes the README's generated parts, publishes the run, or lists seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["show", "readme", "publish", "seeds"])
    parser.add_argument("study", nargs="*", help="default: every study that is built")
    asked = parser.parse_args()
    studies = asked.study or list(params.load().studies)
    if asked.action == "show":
        for study in studies:
            sys.stdout.write(terminal(study) + "\n")
    elif asked.action == "readme":
        text = README.read_text(encoding="utf-8")
        artifacts.write_text(README, filled(text, generated(studies[0])))
    elif asked.action == "seeds":
        sys.stdout.write(" ".join(str(seed) for seed in params.load().seeds) + "\n")
    else:
        publish()


if __name__ == "__main__":
    try:
        main()
    except (settings.SettingsError, FileNotFoundError) as fault:
        sys.exit(str(fault))

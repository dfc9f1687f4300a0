"""A study's results in few words: on the terminal after a run, and in the READMEs."""

import argparse
import sys

from camdrift import settings, storage
from camdrift.analysis import results
from camdrift.ops import build, readme
from camdrift.papers import report
from camdrift.pipeline import run
from camdrift.settings import params
from camdrift.storage import files

DASHBOARD = "make dashboard"


def terminal(name: str) -> str:
    """Returns what `make repro` ends with: the report, the headline table, the next command.

    A hardening or a generalisation has no headline table.
    """
    made = results.load(name)
    verdicts = made["claims"]["verdict"].value_counts()
    lines = [f"\n'{name}'"]
    if "excess" in made:
        table = report.headline(made)
        lines = [
            f"\nStudy '{name}'. Excess = how much further the attack moves the maps than noise of",
            "the same size (cosine, mean over decided layers, with interval; 0 = no further):",
        ]
        for _, row in table.iterrows():
            lines.append(f"  {row['cell']}")
            lines += [f"    {column:<38} {row[column]}" for column in table.columns[1:]]
        lines.append("")
    return "\n".join(
        [
            *lines,
            "Claims:    " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()),
            f"Report:    {storage.report(name)}",
            f"Figures:   {storage.results(name, 'figures')}",
        ]
    )


def unusual() -> list[str]:
    """Returns a line for each model with convs that have no map, or one that no activation made."""
    lines = []
    for name in params.load().models:
        path = storage.model_card(name)
        card = files.read_json(path) if path.exists() else {}
        lines += [
            f"{name}: no map of {layer}: {reason}"
            for layer, reason in card.get("left_out", {}).items()
        ]
        own = card.get("own_output", [])
        if own:
            shown = ", ".join(own[:3]) + (", ..." if len(own) > 3 else "")
            lines.append(
                f"{name}: {len(own)} of {len(card['layers'])} maps at a conv's own output, as it "
                f"reaches no activation: {shown}; {path} names all"
            )
    return lines


def stage(name: str) -> str:
    """Returns the stage that reports a study, a hardening or a generalisation.

    Raises:
        SettingsError: there is none of that name; the message names those that are there.
    """
    known = build.stages(params.load())
    if name not in known:
        raise settings.SettingsError(f"no study '{name}'; there are: {', '.join(known)}")
    return known[name]


def publish() -> None:
    """Copies seconds and memory of the plan's stages, and their environment, beside the results."""
    plan = params.load()
    groups = (plan.sets, plan.models, plan.cells, plan.studies, plan.hardenings,
              plan.generalisations, plan.sources, plan.targets)  # fmt: skip
    runs = run.last_runs({key for group in groups for key in group})
    if runs is None:
        raise FileNotFoundError(f"no runs in {storage.RUNS}; run `make repro`")
    files.write_json(readme.RUN, runs)


def main() -> None:
    """Shows results, names a stage, writes the READMEs' parts, publishes the run, lists seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["show", "stage", "readme", "publish", "seeds"])
    parser.add_argument("study", nargs="*", help="or another group; default: all that are built")
    asked = parser.parse_args()
    studies = asked.study or list(build.stages(params.load()))
    if asked.action == "show":
        for study in studies:
            sys.stdout.write(terminal(study) + "\n")
        for line in unusual():
            sys.stdout.write(f"\n{line}")
        sys.stdout.write(f"\n\nDashboard: {DASHBOARD}\n")
    elif asked.action == "stage":
        sys.stdout.write(" ".join(stage(study) for study in studies) + "\n")
    elif asked.action == "readme":
        for page, text in readme.pages(studies[0]).items():
            files.write_text(page, text)
    elif asked.action == "seeds":
        sys.stdout.write(" ".join(str(seed) for seed in params.load().seeds) + "\n")
    else:
        publish()


if __name__ == "__main__":
    try:
        main()
    except (settings.SettingsError, FileNotFoundError) as fault:
        sys.exit(str(fault))

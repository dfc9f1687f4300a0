"""A study's results in few words: on the terminal after a run, and in the READMEs."""

import argparse
import sys

from camdrift import settings, storage
from camdrift.analysis import results
from camdrift.ops import combination, compare, publication, readme
from camdrift.papers import readme as papers_readme
from camdrift.settings import Settings, params
from camdrift.storage import files

DASHBOARD = "make dashboard"
MATRIX = storage.RESULTS / "claims.csv"  # each claim in each study


def terminal(name: str) -> str:
    """Returns the results of a study in few words, see `papers.readme.terminal`."""
    tables = results.load(name, storage.results)  # first: its message names the command
    return papers_readme.terminal(name, tables, readme.content(name, storage.results))


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


def write_pages(plan: Settings) -> None:
    """Writes the generated parts of the READMEs, and each claim in each published study."""
    for page, text in readme.pages().items():
        files.write_text(page, text)
    files.write_csv(MATRIX, combination.evidence(plan, readme.studies(plan)))


def main() -> None:
    """Shows, publishes or reanalyses results, writes READMEs, lists seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["show", "readme", "publish", "reanalyse", "seeds"])
    parser.add_argument("study", nargs="*", help="default: all")
    arguments = parser.parse_args()
    plan = params.load()
    studies = arguments.study or list(plan.studies)
    if arguments.action == "show":
        for study in studies:
            sys.stdout.write(terminal(study) + "\n")
        for line in unusual():
            sys.stdout.write(f"\n{line}")
        sys.stdout.write(f"\n\nDashboard: {DASHBOARD}\n{compare.report(studies)}\n")
    elif arguments.action == "readme":
        write_pages(plan)
    elif arguments.action == "reanalyse":
        for study in studies:
            sys.stdout.write(publication.reanalyse(study) + "\n")
        sys.stdout.write(f"\n{compare.report(studies)}\n")
    elif arguments.action == "seeds":
        sys.stdout.write(" ".join(str(seed) for seed in plan.seeds if seed != plan.seed) + "\n")
    else:
        publication.publish(plan, studies)
        write_pages(plan)


if __name__ == "__main__":
    try:
        main()
    except (settings.SettingsError, FileNotFoundError) as fault:
        sys.exit(str(fault))

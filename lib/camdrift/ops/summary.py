"""A study's results in few words: on the terminal after a run, and in the READMEs."""

import argparse
import sys
import textwrap

from camdrift import settings, storage
from camdrift.analysis import results
from camdrift.ops import build, readme
from camdrift.pipeline import run
from camdrift.settings import params, presets
from camdrift.storage import files

DASHBOARD = "make dashboard"
WIDTH = 100  # characters of a line


def terminal(name: str) -> str:
    """Returns what `make repro` ends with: the headline tables, verdicts, flags and files."""
    tables, content = results.load(name), readme.content(name)
    verdicts = tables["claims"]["verdict"].value_counts()
    lines = [f"\nStudy '{name}': {content.title}"]
    for text, table in content.headline:
        lines += ["", *textwrap.wrap(text.replace("*", ""), WIDTH)]
        for first, *rest in table.itertuples(index=False):
            lines.append(f"  {first}")
            lines += [
                f"    {column:<38} {value}"
                for column, value in zip(table.columns[1:], rest, strict=True)
            ]
    return "\n".join(
        [
            *lines,
            "",
            *(f"Flag:      {text}" for text in content.flags),
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


def publish() -> None:
    """Copies seconds and memory of the plan's stages, and their environment, beside the results."""
    plan = params.load()
    keys = {key for part in presets.PARTS for key in getattr(plan, part)}
    runs = run.last_runs(keys)
    if runs is None:
        raise FileNotFoundError(f"no runs in {storage.RUNS}; run `make repro`")
    files.write_json(readme.RUN, runs)


def main() -> None:
    """Shows results, names studies, writes the READMEs' parts, publishes the run, lists seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["show", "first", "readme", "publish", "seeds"])
    parser.add_argument("study", nargs="*", help="default: all; of `first`, the first")
    asked = parser.parse_args()
    plan = params.load()
    studies = asked.study or list(plan.studies)
    if asked.action == "show":
        for study in studies:
            sys.stdout.write(terminal(study) + "\n")
        for line in unusual():
            sys.stdout.write(f"\n{line}")
        sys.stdout.write(f"\n\nDashboard: {DASHBOARD}\n")
    elif asked.action == "first":
        build.known(plan, asked.study)
        sys.stdout.write(" ".join(asked.study or studies[:1]) + "\n")
    elif asked.action == "readme":
        for page, text in readme.pages().items():
            files.write_text(page, text)
    elif asked.action == "seeds":
        sys.stdout.write(" ".join(str(seed) for seed in plan.seeds) + "\n")
    else:
        publish()


if __name__ == "__main__":
    try:
        main()
    except (settings.SettingsError, FileNotFoundError) as fault:
        sys.exit(str(fault))

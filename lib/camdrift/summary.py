"""A study's results in few words: on the terminal after a run, and in the README."""

import argparse
import sys

from camdrift import artifacts, params, readme, report, results, run, settings

DASHBOARD = "make dashboard"


def terminal(study: str) -> str:
    """Returns what `make repro` ends with: the report, the headline table, the next command."""
    made = results.load(study)
    table = report.headline(made)
    verdicts = made["claims"]["verdict"].value_counts()
    lines = []
    for _, row in table.iterrows():
        lines.append(f"  {row['cell']}")
        lines += [f"    {name:<38} {row[name]}" for name in table.columns[1:]]
    return "\n".join(
        [
            f"\nStudy '{study}'. Excess = how much further the attack moves the maps than noise of",
            "the same size (cosine, mean over decided layers, with interval; 0 = no further):",
            *lines,
            "\nClaims:    " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()),
            f"Report:    {artifacts.report(study)}",
            f"Figures:   {artifacts.results(study, 'figures')}",
            f"Dashboard: {DASHBOARD}",
        ]
    )


def publish() -> None:
    """Copies seconds and memory of the plan's stages, and their environment, beside the results."""
    plan = params.load()
    found = run.taken({*plan.sets, *plan.models, *plan.cells, *plan.studies, *plan.hardenings})
    if found is None:
        raise FileNotFoundError(f"no runs in {artifacts.RUNS}; run `make repro`")
    artifacts.write_json(readme.RUN, found)


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
        text = readme.README.read_text(encoding="utf-8")
        artifacts.write_text(readme.README, readme.filled(text, readme.generated(studies[0])))
    elif asked.action == "seeds":
        sys.stdout.write(" ".join(str(seed) for seed in params.load().seeds) + "\n")
    else:
        publish()


if __name__ == "__main__":
    try:
        main()
    except (settings.SettingsError, FileNotFoundError) as fault:
        sys.exit(str(fault))

"""Comparison: how much of the published results the results of this machine reproduce.

`make repro` ends with it, and `make compare` prints it again.
"""

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from camdrift import settings, storage
from camdrift.analysis import results
from camdrift.analysis.tables import as_text
from camdrift.papers.findings import NOT_RUN
from camdrift.settings import params

COLUMNS = ["study", "verdicts", "same verdict", "values", "same value", "largest difference"]
NUMBERS = ["value", "low", "high"]


def compared(study: str, before: pd.DataFrame, now: pd.DataFrame) -> tuple[dict, list[str]]:
    """Returns how much of a study's published claims are the same now.

    Args:
        study: its name.
        before: its published claims table.
        now: this machine's.

    Returns:
        A row of `COLUMNS`: claims that were judged in either, how many have one verdict; those with
        a value, how many have one value, as rounded in the tables; and the largest difference of
        two values, in units of half the published interval. And a line for each claim whose verdict
        is another.
    """
    both = before.set_index("id").add_suffix("_before").join(now.set_index("id"), how="outer")
    both = both[(both[["verdict_before", "verdict"]] != NOT_RUN).any(axis=1)]
    is_same = both["verdict_before"] == both["verdict"]
    valued = both[both[["value_before", "value"]].notna().all(axis=1)]
    differences = (valued["value"] - valued["value_before"]).abs()
    half = (valued["high_before"] - valued["low_before"]) / 2
    units = (differences / half)[(half > 0)]
    row = {
        "study": study,
        "verdicts": len(both),
        "same verdict": int(is_same.sum()),
        "values": len(valued),
        "same value": int((differences == 0).sum()),
        "largest difference": units.max() if len(units) else 0.0,
    }
    lines = [
        f"{study} {claim}: {_text(row, '_before')}; here {_text(row, '')}"
        for claim, row in both[~is_same].iterrows()
    ]
    return row, lines


def _text(row: pd.Series, ending: str) -> str:
    verdict = row[f"verdict{ending}"]
    if pd.isna(verdict):
        return "no such claim"
    return f"{verdict} {as_text(*(row[f'{name}{ending}'] for name in NUMBERS))}".strip()


def report(studies: Sequence[str]) -> str:
    """Returns in words how much of the published results of studies this machine reproduces.

    Raises:
        FileNotFoundError: a study has no results here; the message names the command for them.
    """
    rows, lines, missing = [], [], []
    for study in studies:
        if not results.published(study, "tables").is_dir():
            missing.append(study)
            continue
        before, now = (results.load(study, at) for at in (results.published, storage.results))
        row, changed = compared(study, before["claims"], now["claims"])
        rows.append(row)
        lines += changed
    texts = []
    if rows:
        table = pd.DataFrame(rows, columns=COLUMNS)
        total = table[COLUMNS[1:5]].sum()
        texts.append(
            f"This machine reproduces {total['same verdict']} of {total['verdicts']} published "
            f"verdicts and {total['same value']} of {total['values']} values. The largest "
            f"difference is {table['largest difference'].max():.2f} of half an interval."
        )
        if (table["same value"] < table["values"]).any():
            texts.append(table.round(2).to_string(index=False))
        texts += [f"Verdicts that differ: {len(lines)}", *lines] if lines else []
    if missing:
        texts.append(f"Not compared, as no results are published: {', '.join(missing)}")
    return "\n".join(texts)


def main() -> None:
    """Prints the comparison of the studies named, or of all in params.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="*", help="default: all in params.yaml")
    studies = parser.parse_args().study
    known = list(params.load().studies)
    built = [name for name in known if storage.is_own(name)]
    strange = [name for name in studies or known[:1] if not storage.is_own(name)]
    if strange and (studies or not built):
        command = "make repro" if strange[0] in known else "make study NAME=<preset>"
        raise FileNotFoundError(
            f"this machine has no results of '{strange[0]}'; run `{command} STUDY={strange[0]}`"
        )
    sys.stdout.write(report(studies or built) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (settings.SettingsError, FileNotFoundError) as fault:
        sys.exit(str(fault))

"""The generated parts of the READMEs on speed."""

import pandas as pd

from camdrift.analysis.tables import markdown
from camdrift.ops import benchmarks
from camdrift.storage import files

NOT_RUN = "not run here"


def races() -> str:
    """Returns the races of `make bench`."""
    if not benchmarks.PATH.exists():
        return NOT_RUN
    measured = files.read_json(benchmarks.PATH)
    machine = measured["environment"]
    missed = benchmarks.missed(measured["races"])
    return "\n".join(
        [
            markdown(benchmarks.summary(measured["races"])),
            "",
            *(["Missed:", "", missed, ""] if missed else []),
            "Geometric means over sizes and batches, and the worst of them, of the minimum of the "
            f"rounds by the wall clock; {machine['threads']} threads of {machine['cores']} cores, "
            f"torch {machine['packages']['torch']}. {benchmarks.overhead(measured)}",
            "",
            folded("Every race", benchmarks.each(measured["races"])),
        ]
    )


def pages() -> str:
    """Returns what the dashboard's pages take."""
    measured = benchmarks.measurements()
    if "browsing" not in measured:
        return NOT_RUN
    return "\n".join(
        [
            "Seconds that a page's script takes, at first and after a choice, on the default study "
            "and on copies of its images; the browser draws after that:",
            "",
            markdown(benchmarks.browsing(measured["browsing"])),
        ]
    )


def workers() -> str:
    """Returns what workers and images take."""
    measured = benchmarks.measurements()
    if "scaling" not in measured:
        return NOT_RUN
    shown = benchmarks.scaling(measured["scaling"])
    return "\n\n".join(text for title, table in shown for text in (title, markdown(table)))


def folded(title: str, table: pd.DataFrame) -> str:
    """Returns a table that a reader must open."""
    return f"<details><summary>{title}</summary>\n\n{markdown(table)}\n\n</details>"

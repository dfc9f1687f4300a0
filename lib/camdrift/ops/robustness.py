"""The robust accuracies of `make robustness`, as the generated part of the benchmarks' README."""

import pandas as pd

from camdrift import storage
from camdrift.analysis.tables import markdown
from camdrift.ops.speeds import NOT_RUN
from camdrift.storage import files

PATH = storage.RESULTS / "benchmarks" / "robustness.json"


def text() -> str:
    """Returns `table` as Markdown, or that it was not run."""
    shown = table()
    return NOT_RUN if shown is None else markdown(shown)


def table() -> pd.DataFrame | None:
    """Returns the share of images that each network classifies right, clean and attacked, as texts.

    None where it has not been measured.
    """
    if not PATH.exists():
        return None
    rows = pd.DataFrame(files.read_json(PATH)["rows"])
    shares = {"clean": "clean", "ours": "here", "theirs": "torchattacks"}
    shown = rows[["network", "attack", "images", "eps"]].astype(str)
    for column, title in shares.items():
        shown[title] = [f"{100 * value:.1f} %" for value in rows[column]]
    for column in ("ours_seconds", "theirs_seconds"):
        shown[f"{shares[column.removesuffix('_seconds')]}, s"] = rows[column].astype(str)
    return shown

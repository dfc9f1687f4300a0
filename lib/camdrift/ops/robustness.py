"""The robust accuracies of `make robustness`, as the generated part of the benchmarks' README."""

import pandas as pd

from camdrift import storage
from camdrift.analysis.tables import markdown
from camdrift.ops.speeds import NOT_RUN
from camdrift.storage import files

PATH = storage.RESULTS / "benchmarks" / "robustness.json"


def text() -> str:
    """Returns the share of images that each network classifies right, clean and attacked."""
    if not PATH.exists():
        return NOT_RUN
    rows = pd.DataFrame(files.read_json(PATH)["rows"])
    shares = {"clean": "clean", "ours": "here", "theirs": "torchattacks"}
    table = rows[["network", "attack", "images", "eps"]].astype(str)
    for column, title in shares.items():
        table[title] = [f"{100 * value:.1f} %" for value in rows[column]]
    for column in ("ours_seconds", "theirs_seconds"):
        table[f"{shares[column.removesuffix('_seconds')]}, s"] = rows[column].astype(str)
    return markdown(table)

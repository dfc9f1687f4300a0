"""The matrix: every detector against every attack of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.detectors.families import families
from camdrift.settings import Cell, DetectionSettings
from camdrift.storage import ADAPTIVE, ATTACKS, GRADIENT_FREE, NON_ADAPTIVE, Detected

ABOUT = (
    "each detector against each attack: AUROC, TPR at 5 %, AUROC when trained on other attacks, "
    "and under a non-adaptive, an adaptive and a gradient-free attack within one eps; forward "
    "passes an image"
)
COLUMNS = [
    "cell", "attack", "detector", "trained_on", "passes", "n_positive", "n_negative", "auroc",
    "auroc_low", "auroc_high", "tpr_at_5", "elsewhere", "others", "non_adaptive", "adaptive",
    "adaptive_low", "adaptive_high", "fidelity", "gradient_free", "gradient_free_low",
    "gradient_free_high",
]  # fmt: skip


def table(
    cells: Mapping[str, tuple[Cell, Detected]], tables: Tables, detection: DetectionSettings
) -> pd.DataFrame:
    """Returns a row for each cell and detector, at strength 1.

    Attacked images whose class flips, against clean ones and noise of that attack's size; test
    images. Columns: see `COLUMNS`; `elsewhere`, the mean AUROC of the detector when it is trained
    on one of `others` other cells, missing where it is trained on no attack. Where the cell's
    detectors are attacked: `non_adaptive`, `adaptive` and `gradient_free`, the AUROC under an
    attack that does not know the detector and two that do, all within `detection.adaptive.eps`,
    not of the cell's size, and against noise of their own size; `fidelity`, see `adaptive.table`.

    Args:
        cells: each cell that names strengths for detectors, with its features.
        tables: `detectors`, `transfer` and `adaptive` of the study.
        detection: settings of the detection.
    """
    rates = tables["detectors"].query(
        "strength == 1 and positives == 'success' and negatives == 'both'"
    )
    rates = rates.drop_duplicates(["cell", "detector"])
    others = tables["transfer"].query(
        "strength == 1 and fitted_strength == 1 and fitted_cell != cell and trained_on != 'none' "
        "and trained_on != 'benign images'"
    )
    elsewhere = others.groupby(["cell", "detector"])["auroc"].agg(elsewhere="mean", others="count")
    arms = tables["adaptive"].set_index(["cell", "detector"])
    plain, adaptive, free = (_of_arm(arms, arm) for arm in ATTACKS)
    fidelity = arms.loc[arms["arm"] == ADAPTIVE, ["fidelity"]]
    owners = {name: each.name for each in families(detection) for name in each.readings()}
    passes = {key: detected.facts["passes"] for key, (_, detected) in cells.items()}
    whole = rates
    for columns in (elsewhere, plain[NON_ADAPTIVE], adaptive, fidelity, free):
        whole = whole.join(columns, on=["cell", "detector"])
    keys = zip(whole["cell"], whole["detector"], strict=True)
    return whole.assign(
        attack=whole["cell"].map({key: cell.attack for key, (cell, _) in cells.items()}),
        passes=[passes[key][owners[name]] for key, name in keys],
        others=whole["others"].fillna(0).astype(int),
    )[COLUMNS].reset_index(drop=True)


def _of_arm(arms: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Returns the AUROC under an attack on detectors, and its interval, with the attack's name."""
    names = {"auroc": arm, "low": f"{arm}_low", "high": f"{arm}_high"}
    return arms[arms["arm"] == arm].rename(columns=names)[[*names.values()]]


def seconds(
    stages: Sequence[Mapping[str, Any]], cell: str, detection: DetectionSettings
) -> dict[str, float]:
    """Returns the seconds an image that detectors take on a cell, as a run recorded them.

    Those of a detector are beyond what the detectors before it had computed.

    Args:
        stages: of the record; nothing is returned where they lack the cell's.
        cell: of the images.
        detection: settings of the detection.
    """
    known = {stage["stage"]: stage.get("seconds_an_image", {}) for stage in stages}
    measured = known.get(f"detect@{cell}", {})
    return {name: measured[family.name] for family in families(detection)
            for name in family.readings() if family.name in measured}  # fmt: skip


def texts(tables: Tables, seconds: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Returns the matrix as texts: a row for each detector, a column for each cell.

    A field holds the AUROC with its interval; then, for a detector that is trained on attacked
    images, its mean AUROC when trained on others; and, within another eps, those under a
    non-adaptive, an adaptive and a gradient-free attack.

    Args:
        tables: `matrix` of the study.
        seconds: an image, by detector; None for no column on them.
    """
    rows = []
    for name, part in tables["matrix"].groupby("detector", sort=False):
        first = part.iloc[0]
        attacked = first["trained_on"] not in ("none", "benign images")
        row = {
            "detector": name,
            "trained on": "attacked images" if attacked else first["trained_on"],
            "passes": first["passes"],
        }
        if seconds is not None:
            row["ms"] = f"{1000 * seconds[name]:.1f}" if name in seconds else ""
        for field in part.itertuples():
            text = as_text(field.auroc, field.auroc_low, field.auroc_high)
            if field.others:
                text += f", elsewhere {field.elsewhere:.3f}"
            free = getattr(field, GRADIENT_FREE, np.nan)  # results of earlier revisions lack it
            ends = (field.adaptive, "adaptively"), (free, "without gradients")
            known = [f"{value:.3f} {how}" for value, how in ends if pd.notna(value)]
            if known:
                text += f"; {field.non_adaptive:.3f} to {', '.join(known)}"
            row[field.cell] = text
        rows.append(row)
    return pd.DataFrame(rows)

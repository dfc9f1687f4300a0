"""Detectors under attacks that know them, along gradients and without, and under one that does not.

All are within the same eps. The adaptive attack takes steps along the gradient of a surrogate; the
gradient-free one is a random search that begins at the non-adaptive attack's result.
"""

import numpy as np
import pandas as pd

from camdrift.analysis import statistics
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.evaluation.evaluation import NOISE_OF, Evaluation, add_facts
from camdrift.papers.tan2023.darkness import Row
from camdrift.storage import ADAPTIVE, ATTACKS, CLEAN, GRADIENT_FREE, NOISE, NON_ADAPTIVE

ABOUT = (
    "AUROC under a non-adaptive, an adaptive and a gradient-free attack within one eps, against "
    "noise of either size; shares of images whose score they lower; fidelity of surrogates"
)
COLUMNS = [
    "detector", "arm", "images", "flipped", "auroc", "low", "high", "auroc_cell_noise",
    "cell_noise_low", "cell_noise_high", "attack_rms", "noise_rms", "cell_noise_rms", "lowered",
    "below_adaptive", "fidelity",
]  # fmt: skip
KNOWING = (ADAPTIVE, GRADIENT_FREE)
SHARES = (  # arm, column, title
    (ADAPTIVE, "fidelity", "fidelity"),
    (ADAPTIVE, "lowered", "lowered, adaptive"),
    (GRADIENT_FREE, "lowered", "lowered, gradient-free"),
    (GRADIENT_FREE, "below_adaptive", "below adaptive"),
)
NAMES = {
    NON_ADAPTIVE: "non-adaptive attack",
    ADAPTIVE: "adaptive attack",
    GRADIENT_FREE: "gradient-free attack",
}


def table(features: pd.DataFrame, images: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Returns each detector's AUROC under each attack on it.

    Attacked test images whose class flips are compared with clean ones and with noisy ones, whose
    noise is of each image's own change in size.

    Columns: `detector, arm` ('non_adaptive', 'adaptive' or 'gradient_free'), `images, flipped,
    auroc, low, high`; `auroc_cell_noise`, with `cell_noise_low` and `cell_noise_high`, where the
    noise is of the size of the cell's own attack, which stops as soon as the class flips;
    `attack_rms`, `noise_rms`, `cell_noise_rms`, mean root mean squares of the changes, in grey
    levels of 255; of images that both flip, `lowered`, the share whose score is lower than under
    the non-adaptive attack, and, of the gradient-free one, `below_adaptive`, the share whose score
    is lower than under the adaptive attack; `fidelity`, of the adaptive arm, the rank correlation
    of the surrogate with the detector's score, over images of this arm and of its noise.
    """
    rows: list[Row] = []
    test = evaluation.test
    clean = test[test["kind"] == CLEAN]
    for name, detector in evaluation.detectors.items():
        scores: dict[str, pd.Series] = {}  # of flipped images
        for arm in ATTACKS:
            mine = (features["against"] == name) | (arm == NON_ADAPTIVE)
            attacked = add_facts(features[mine & (features["variant"] == arm)], images)
            if not len(attacked) or detector.unfit:
                continue
            like = features[mine & (features["variant"] == NOISE_OF[arm])]
            noisy = add_facts(like.assign(variant=NOISE), images)
            row: Row = {"detector": name, "arm": arm, "images": len(attacked),
                        "flipped": float((attacked["kind"] == "success").mean())}  # fmt: skip
            negatives = {"auroc": noisy, "auroc_cell_noise": test[test["kind"] == NOISE]}
            for column, noise in negatives.items() if row["flipped"] else ():
                whole = pd.concat([clean, noise, attacked], ignore_index=True)
                part = Evaluation(
                    {name: detector}, whole, evaluation.confidence, evaluation.weights
                )
                ends = [column.removeprefix("auroc_") + end for end in ("_low", "_high")]
                ends = ["low", "high"] if column == "auroc" else ends
                values = part.interval(part.auroc(name, "success", "both"))
                row |= dict(zip((column, *ends), values, strict=True))
            arms = {"attack_rms": attacked, "noise_rms": noisy, "cell_noise_rms": negatives[
                "auroc_cell_noise"]}  # fmt: skip
            row |= {column: 255 * arm_rows["rms"].mean() for column, arm_rows in arms.items()}
            flipped = attacked[attacked["kind"] == "success"]
            scores[arm] = pd.Series(detector.score_samples(flipped), flipped["image"])
            for other, column in ((NON_ADAPTIVE, "lowered"), (ADAPTIVE, "below_adaptive")):
                if other in scores and other != arm:
                    change = (scores[arm] - scores[other]).dropna()
                    row[column] = float((change < 0).mean())
            if arm == ADAPTIVE and "surrogate" in features:  # not in results of earlier revisions
                both = pd.concat([attacked, noisy], ignore_index=True)
                pair = both["surrogate"].to_numpy(), detector.score_samples(both)
                once = np.ones((1, len(both)))
                row["fidelity"] = float(statistics.spearman(*pair, weights=once)[0])
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def texts(tables: Tables) -> pd.DataFrame:
    """Returns the rates of detectors under attacks on them as texts: one row for each detector.

    A detector is better than chance if its interval lies above 0.5. The columns of the
    gradient-free attack and of the fidelity are there where the study has them, see `reading`.
    """
    rows = []
    for (cell, name), part in tables["adaptive"].groupby(["cell", "detector"], sort=False):
        arms = part.set_index("arm")
        known = [arm for arm in NAMES if arm in arms.index]
        if known == [NON_ADAPTIVE]:
            continue
        row = {"cell": cell, "detector": name}
        row |= {f"flips, {_short(arm)}": f"{arms.loc[arm, 'flipped']:.0%}" for arm in known}
        for arm in known:
            row[f"AUROC, {_short(arm)}"] = as_text(*arms.loc[arm, ["auroc", "low", "high"]])
        if ADAPTIVE in known:
            row["AUROC, adaptive, noise of the cell's attack"] = _against_cell_noise(arms)
        for arm, column, title in SHARES:
            if column in arms and pd.notna(value := arms[column].get(arm)):
                row[title] = f"{value:.2f}"
        row |= {f"better than chance, {_short(arm)}": _better(arms["low"].get(arm))
                for arm in known}  # fmt: skip
        rows.append(row)
    order = [f"{kind}, {_short(arm)}" for kind in ("flips", "AUROC") for arm in NAMES]
    order += ["AUROC, adaptive, noise of the cell's attack", *(title for *_, title in SHARES)]
    order += [f"better than chance, {_short(arm)}" for arm in NAMES]
    whole = pd.DataFrame(rows)
    return whole[[c for c in ("cell", "detector", *order) if c in whole]].fillna("")


def reading(tables: Tables) -> str:
    """Returns sentences that say how to read the attacks of a study on its detectors."""
    text = (
        "All attacks are within the same eps; noise is of each attacked image's own size, and 0.5 "
        "is chance. The adaptive attack also lowers a surrogate of the detector's score."
    )
    if "fidelity" in tables["adaptive"]:
        text += " Fidelity: the rank correlation of the surrogate with the score."
    if (tables["adaptive"]["arm"] == GRADIENT_FREE).any():
        text += (
            " The gradient-free attack is a random search for a lower score, from the "
            "non-adaptive attack's result; below adaptive: the share of images whose score it "
            "leaves lower than the adaptive attack does. Where it does not win, it shows nothing."
        )
    return text


def _short(arm: str) -> str:
    return NAMES[arm].removesuffix(" attack")


def _against_cell_noise(arms: pd.DataFrame) -> str:
    names = ["auroc_cell_noise", "cell_noise_low", "cell_noise_high"]
    return as_text(*arms.loc[ADAPTIVE, names]) if set(names) <= set(arms) else ""


def _better(low: float | None) -> str:
    return "" if low is None or pd.isna(low) else "yes" if low > 0.5 else "not surely"

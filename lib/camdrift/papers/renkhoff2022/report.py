"""The report of a layer study: one HTML page that needs no network, and its tables as texts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup

from camdrift import scores
from camdrift.analysis import flags
from camdrift.analysis import page as pages
from camdrift.analysis.compromise import PAPERS_RULE
from camdrift.analysis.drawing import Figure
from camdrift.analysis.flips import FIXED, NEGATED
from camdrift.analysis.page import Part
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.papers import claims
from camdrift.papers.findings import RULES
from camdrift.papers.renkhoff2022.claims import CLAIMS
from camdrift.scores import movement
from camdrift.settings import LayerStudy, Settings


def headline(tables: Tables) -> pd.DataFrame:
    """Returns the headline table as texts: one row for each cell.

    Excess drift is the mean over layers of cosine under matched noise minus cosine under attack,
    at strength 100 %, with its interval.
    """
    rows = []
    for _, attack in tables["attacks"].iterrows():
        cell = attack["cell"]
        rule = tables["compromised"].query(
            "cell == @cell and strength == 1 and group == 'success' and target == 'own_top1' "
            f"and rule == '{PAPERS_RULE}'"
        )
        shares = rule.groupby("arm")["share"].mean()
        rows.append(
            {
                "cell": cell,
                "set": attack["set"],
                "images": attack["images"],
                "flipped": f"{attack['success_rate']:.0%}",
                "flipped after 8-bit": f"{attack['success_rate_8bit']:.0%}",
                "excess, flipped, own class": _excess(tables, cell, "success", "own_top1"),
                "excess, flipped, clean class": _excess(tables, cell, "success", "seed_class"),
                "excess, not flipped": _excess(tables, cell, "failure", "own_top1"),
                "layers compromised: attack / noise": (
                    f"{shares['attack']:.0%} / {shares['noise']:.0%}" if len(shares) == 2 else "-"
                ),
                "flags": "; ".join(flags.texts(tables, cell)) or "none",
            }
        )
    return pd.DataFrame(rows)


def _excess(tables: Tables, cell: str, group: str, target: str) -> str:
    rows = tables["excess"].query(
        "cell == @cell and group == @group and target == @target and strength == 1 "
        "and layer == 'mean'"
    )
    if not len(rows) or pd.isna(rows["mean"].iloc[0]):
        return "-"
    row = rows.iloc[0]
    if pd.isna(row["low"]):
        return f"{row['mean']:.3f} (n {row['n']}, one source: no interval)"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}] (n {row['n']})"


def by_method(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the excess drift with the maps of each method as texts: one row for each method."""
    rows = tables["methods"].query("cell == @cell")
    columns = {
        "flipped, own class": ("success", "own_top1"),
        "flipped, clean class": ("success", "seed_class"),
        "not flipped": ("failure", "own_top1"),
    }
    methods = []
    for method, part in rows.groupby("method", sort=False):
        part_tables = {"excess": part.assign(cell=cell, strength=1)}
        methods.append(
            {"method": method}
            | {name: _excess(part_tables, cell, *which) for name, which in columns.items()}
            | {"layers decided, of " + str(part["layer"].nunique() - 1): _decided(part)}
        )
    return pd.DataFrame(methods)


def by_score(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the mean of each score on flipped images as texts: one row for each score.

    Of maps explained for their own class at strength 100 %, mean over layers.
    """
    rows = tables["similarity"].query(
        "cell == @cell and strength == 1 and group == 'success' and target == 'own_top1'"
    )
    means = rows.groupby(["score", "variant"], sort=False)["mean"].mean().unstack()
    modules = scores.by_name()
    return pd.DataFrame(
        {
            "score": modules[name].LABEL,
            "maps are alike where it is": "high" if modules[name].HIGHER_IS_ALIKE else "low",
            "under attack": f"{row['adversarial']:.3f}",
            "under matched noise": f"{row['noise']:.3f}",
        }
        for name, row in means.iterrows()
    )


def _decided(rows: pd.DataFrame) -> str:
    own = rows.query("group == 'success' and target == 'own_top1' and layer != 'mean'")
    return f"{own['decided'].astype(bool).sum()}" if len(own) else "-"


def evidence(studies: Mapping[str, Tables]) -> pd.DataFrame:
    """Returns the evidence on the first question as texts, for each cell of some studies.

    One row for each cell with an attack, in the order of the studies. All values are at strength
    100 % and by the cosine, see `flips.shares`; the noise raised until it flips is compared with
    the attack at the lowest strength that flips, see `flips.factorial`.
    """
    rows = []
    for name, tables in studies.items():
        if "shares" not in tables:  # written by an earlier revision
            continue
        attacks = tables["attacks"].set_index("cell")
        for cell, parts in tables["shares"].groupby("cell", sort=False):
            facts, left = attacks.loc[cell], parts.set_index("share")
            fixed, negated = left.loc[FIXED], left.loc[NEGATED]
            factorial = tables["factorial"].query("cell == @cell and layer == 'mean'")
            drift = factorial.set_index(["target", "arm", "flipped"]).sort_index()
            row = {
                "images, network": f"{facts['set']}, {facts['model']} (`{name}`)",
                "attack": facts["attack"],
                "flipped": f"{facts['successes']} of {facts['images']}",
                "drift, attack / noise": drift_text(fixed["drift_attack"], fixed["drift_noise"]),
                "excess left, class fixed": share_text(fixed),
                "excess of the negated": f"{share_text(negated)}, flips {negated['flipped']:.0%}",
                "raised noise: size, drift beside the attack's": "-",
            }
            if len(drift):
                raised, attack = (drift.loc[("own_top1", arm, True)] for arm in ("noise", "attack"))
                means = raised["mean"], attack["mean"]
                row["raised noise: size, drift beside the attack's"] = (
                    f"{raised['size_grey'] / attack['size_grey']:.0f} times, "
                    + ("-" if np.isnan(means).any() else f"{means[0]:.3f} / {means[1]:.3f}")
                    + f" (n {raised['images']:.0f})"
                )
            rows.append(row)
    return pd.DataFrame(rows)


EMPTY = "too many empty maps"


def drift_text(attack: float, noise: float) -> str:
    """Returns two drifts and their ratio as text, with no more digits than are stored."""
    if np.isnan([attack, noise]).any():
        return EMPTY
    ratio = f" = {attack / noise:.1f}" if noise >= 0.01 else f", some {attack / noise:.0f}"
    return f"{attack:.3f} / {noise:.3f}{ratio}"


def share_text(row: pd.Series) -> str:
    """Returns a share with its interval as text, in per cent, or why it has none."""
    if pd.isna(row["value"]):
        return EMPTY
    if pd.isna(row["low"]):
        return f"{row['value']:.0%} (the attack's excess is not surely above 0)"
    return f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def controls(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the controls as texts: mean similarity over layers, and share of classes flipped.

    For the clean image's class, at strength 1, under the cell's first protocol; the last rows are
    the other protocols' distance from identity and floor.
    """
    rows = tables["controls"].query("cell == @cell and layer == 'mean'")
    first = rows["protocol"].iloc[0]
    rows = rows[(rows["protocol"] != first) | (rows["target"] == "seed_class")]
    rows = rows[(rows["variant"] != "unrelated") | (rows["draw"] == 0)]
    names = {"nothing": "nothing (identity)", "unrelated": "unrelated clean images (floor)",
             "noise": "matched noise", "adversarial": "attack",
             "raised_noise": "noise raised until it flips",
             "below_boundary": "attack, just too weak to flip",
             "above_boundary": "attack, just strong enough to flip"}  # fmt: skip
    rows = rows.drop_duplicates(["variant", "draw", "mean", "low", "high", "least"])
    draw = rows["draw"].map(lambda k: f", draw {k + 1}" if k else "")
    flipped = rows["flipped"].map(lambda share: "" if pd.isna(share) else f"{share:.0%}")
    return pd.DataFrame(
        {
            "protocol": rows["protocol"],
            "variant": rows["variant"].map(lambda name: names.get(name, name)) + draw,
            "similarity": [as_text(r.mean, r.low, r.high) for r in rows.itertuples()],
            "least": rows["least"].map("{:.3f}".format),
            "class flipped": flipped,
            "images": rows["images"],
        }
    ).reset_index(drop=True)


def contrasts(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the 2 x 2 factorial table as texts: mean drift and its paired differences."""
    rows = tables["factorial"].query("cell == @cell and layer == 'mean'")
    table_rows = []
    for (arm, flipped), part in rows.groupby(["arm", "flipped"], sort=False):
        texts = {row.target: as_text(row.mean, row.low, row.high) for row in part.itertuples()}
        state = "" if arm.startswith("flipped") else (", flipped" if flipped else ", not flipped")
        size = part["size_grey"].iloc[0]
        table_rows.append(
            {
                "arm": arm + state,
                "drift, own class": texts["own_top1"],
                "drift, clean image's class": texts["seed_class"],
                "root mean square, grey levels": "" if pd.isna(size) else f"{size:.2f}",
                "images": part["images"].iloc[0],
            }
        )
    return pd.DataFrame(table_rows)


def boundary(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the pairs at the decision boundary as texts: mean drift over layers, by class."""
    rows = tables["boundary"].query("cell == @cell and layer == 'mean'")
    names = {"own_top1": "each image's own", "seed_class": "the clean image's"}
    return pd.DataFrame(
        {
            "class explained": names[row.target],
            "drift just below": f"{row.below:.3f}",
            "drift just above": f"{row.above:.3f}",
            "difference": as_text(row.difference, row.low, row.high),
            "difference of size": f"{row.step:.1%}",
            "images": row.images,
        }
        for row in rows.itertuples()
    )


def moves(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the correlations of maps and perturbations as texts, mean over layers."""
    if "focus" not in tables:  # written by an earlier revision
        return pd.DataFrame()
    rows = tables["focus"].query("cell == @cell and layer == 'mean' and n > 0")
    kinds = {movement.MOVE: "the map's difference", movement.SIZE: "its size"}
    names = {"own_top1": "each image's own", "seed_class": "the clean image's"}
    return pd.DataFrame(
        {
            "correlation of": kinds[row.difference],
            "class explained": names[row.target],
            "attack": f"{row.r_attack:.3f}",
            "noise": f"{row.r_noise:.3f}",
            "attacks on other images": f"{row.r_floor:.3f}",
            "beyond noise": as_text(row.over_noise, row.low, row.high),
            "beyond other images": as_text(row.over_floor, row.floor_low, row.floor_high),
            "images": row.n,
        }
        for row in rows.itertuples()
    )


def page(name: str, settings: Settings, tables: Tables, figures: list[Figure]) -> str:
    """Returns the HTML of the report; class and file names in it are text, never markup."""
    study, confidence = settings.study(name, LayerStudy), settings.statistics.confidence
    lead = Markup(
        "Study <code>{}</code>. Headline cell: <code>{}</code>. Numbers rest on this study's own "
        "images and model, not on those of any paper."
    ).format(name, study.headline)
    parts = [
        Part(text=lead, table=headline(tables)),
        Part(text="Excess: cosine similarity to the clean map under matched noise minus that under "
             "attack, at strength 100 %, mean over decided layers, with a "
             f"{confidence:.0%} interval resampled by source picture. Layers "
             "compromised: by the paper's rule, on successfully attacked images; the second share "
             "applies the rule "
             "to a further draw of noise."),
        *(Part(text=f"{cell}: {text}", is_flag=True)
          for cell in tables["attacks"]["cell"] for text in flags.texts(tables, cell)),
        Part("Claims", Markup(
             f"{RULES} <i>As published</i> follows the public code, including its faults; "
             "<i>corrected</i> decides. A verdict applies to the images and the model of this "
             "study, not to those of the paper."),
             claims.texts(tables, CLAIMS)),
        Part("One switch at a time", "The statistic of each claim under the corrected protocol, "
             "under the published one, and under the corrected one with a single switch set as "
             "published.", claims.by_protocol(tables, study.headline)),
        Part("Other readings", "The same claims on some of the images, or with every map for one "
             "class over the same layers.", claims.by_reading(tables, study.headline)),
        Part("Controls", table=controls(tables, study.headline)),
        Part("Attack or noise, flipped or not", table=contrasts(tables, study.headline)),
        Part("At the decision boundary", "The same attack, just too weak and just strong enough to "
             "flip the class, on the same images: the difference of drift is that of the class.",
             boundary(tables, study.headline)),
        Part("Where the maps move", "Correlation, over the positions of a layer, of what a map "
             "gains and the energy of the perturbation, at strength 100 %, mean over layers and "
             "images. The attacks on other images stand for what is common to all perturbations "
             "and maps, such as a bright middle.", moves(tables, study.headline)),
        Part("By the method that makes the maps", table=by_method(tables, study.headline)),
        Part("By the score that compares them", table=by_score(tables, study.headline)),
        Part("Attacks", table=tables["attacks"]),
        Part("Noise against attack", table=tables["noise"]),
    ]  # fmt: skip
    return pages.page(study.title, parts, figures)

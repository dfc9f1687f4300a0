"""The report of a study of attacks on maps: one HTML page, and its tables as texts."""

import pandas as pd
from markupsafe import Markup

from camdrift.analysis import flags
from camdrift.analysis import page as pages
from camdrift.analysis.drawing import Figure
from camdrift.analysis.page import Part
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.papers import claims
from camdrift.papers.findings import RULES
from camdrift.papers.zhang2020.claims import CLAIMS
from camdrift.settings import ManipulationStudy, Settings
from camdrift.storage import ADVERSARIAL, NOISE, OWN, SEED

# Controls of an attack that share its size, as tables and figures name them.
ARMS = {
    NOISE: "noise", "negated": "negated", "sign_shuffled": "signs shuffled",
    "permuted": "pixels permuted", "phase_randomised": "phases randomised",
    "displaced": "colours at other places",
}  # fmt: skip
# The class that maps explain.
EXPLAINED = {OWN: "each image's own class", SEED: "the clean image's class"}
HEADLINE = (
    "*Drift*: 1 minus the cosine similarity to the clean map, at strength 100 %, mean over the "
    "layers that have few empty maps under every attack and control, with an interval resampled by "
    "source picture. Each map explains its image's own class, or all explain the clean image's. "
    "Noise and controls have the first attack's size."
)


def mean_drift(
    tables: Tables, cell: str, arm: str = ADVERSARIAL, *, target: str = OWN, group: str = "all"
) -> pd.Series:
    """Returns the row of `drift` that averages over layers; NaN where there is none."""
    rows = tables["drift"].query(
        "cell == @cell and arm == @arm and target == @target and group == @group "
        "and layer == 'mean'"
    )
    return rows.iloc[0] if len(rows) else pd.Series(dtype=float).reindex(tables["drift"].columns)


def shown(tables: Tables) -> list[tuple[str, str, str]]:
    """Returns cell, arm and name of the attacks, and of the first one's noise and controls."""
    pairs = tables["drift"][["cell", "arm"]].drop_duplicates()
    controlled = pairs.loc[pairs["arm"] != ADVERSARIAL, "cell"]
    controls = [
        (first, arm, f"{first}: {text}")
        for first in controlled.iloc[:1]
        for arm, text in ARMS.items()
        if arm in set(pairs.loc[pairs["cell"] == first, "arm"])
    ]
    return controls + [(cell, ADVERSARIAL, cell) for cell in pairs["cell"].unique()]


def headline(tables: Tables) -> pd.DataFrame:
    """Returns flips and drift of the attacks and of the first one's controls as texts."""
    attacks, rows = tables["attacks"].set_index("cell"), []
    for cell, arm, name in shown(tables):
        texts = {}
        for title, target, group in (
            ("drift, own class", OWN, "all"), ("drift, clean class", SEED, "all"),
            ("flipped, clean class", SEED, "flipped"),
            ("not flipped, clean class", SEED, "not flipped"),
        ):  # fmt: skip
            row = mean_drift(tables, cell, arm, target=target, group=group)
            text = as_text(row["drift"], row["low"], row["high"])
            texts[title] = f"{text} (n {row['images']:.0f})" if text else "-"
        eight = f"{attacks.loc[cell, 'success_rate_8bit']:.0%}" if arm == ADVERSARIAL else "-"
        flipped = mean_drift(tables, cell, arm)["flipped"]
        rows.append({
            "attack or control": name,
            "root mean square, grey levels": f"{attacks.loc[cell, 'rms_grey']:.2f}",
            "flipped": f"{flipped:.0%}", "flipped after 8-bit": eight, **texts,
        })  # fmt: skip
    return pd.DataFrame(rows)


def layers(tables: Tables) -> pd.DataFrame:
    """Returns the statistic of each claim in each layer as texts, a column for each class."""
    rows = tables["by_layer"].assign(
        text=[as_text(row.value, row.low, row.high) for row in tables["by_layer"].itertuples()],
        explained=tables["by_layer"]["target"].map(EXPLAINED),
    )
    wide = rows.pivot(index=["claim", "cell", "layer"], columns="explained", values="text")
    order = rows[["claim", "cell", "layer"]].drop_duplicates()
    wide = wide.reindex(pd.MultiIndex.from_frame(order)).reset_index().rename_axis(columns=None)
    return wide.replace("", "not decided")


def page(name: str, settings: Settings, tables: Tables, figures: list[Figure]) -> str:
    """Returns the HTML of the report; class and file names in it are text, never markup."""
    study = settings.study(name, ManipulationStudy)
    lead = Markup(
        "Study <code>{}</code>. How far do maps move without a change of class, and how little do "
        "they move with one? Numbers rest on this study's own images and model."
    ).format(name)
    parts = [
        Part(text=lead, table=headline(tables)),
        Part(text=HEADLINE.replace("*", "")),
        *(Part(text=f"{cell}: {text}", is_flag=True)
          for cell in tables["attacks"]["cell"] for text in flags.texts(tables, cell)),
        Part("Claims", Markup(f"{RULES} They are this study's own."), claims.texts(tables, CLAIMS)),
        Part("Layer by layer", "E1: the share of images that flip while the map is as similar to "
             "the clean one as under noise of the same size, or more so. E2: by how much the map "
             "drifts further than under DLFuzz, on images that keep their class.", layers(tables)),
        Part("Other readings", "The same claims on some of the images, or with every map for one "
             "class.", tables["readings"]),
        Part("Attacks", table=tables["attacks"]),
        Part("Noise against attack", table=tables["noise"]),
    ]  # fmt: skip
    return pages.page(study.title, parts, figures)

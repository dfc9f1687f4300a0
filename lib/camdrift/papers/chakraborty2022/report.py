"""The report of networks under transferred attacks, and its tables for people."""

import pandas as pd
from markupsafe import Markup

from camdrift.analysis import page as pages
from camdrift.analysis.drawing import Figure
from camdrift.analysis.page import Part
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.papers import claims
from camdrift.papers.chakraborty2022.claims import CLAIMS
from camdrift.papers.chakraborty2022.figures import EXPLAINED, study_figures
from camdrift.papers.chakraborty2022.flags import FEW
from camdrift.papers.chakraborty2022.panels import pictures
from camdrift.papers.chakraborty2022.reading import CLASSES
from camdrift.papers.chakraborty2022.readings import DECIDES
from camdrift.papers.chakraborty2022.tables import ABOUT
from camdrift.papers.findings import RULES
from camdrift.papers.readme import Content, by_flag, texts
from camdrift.settings import Settings, TransferStudy
from camdrift.storage import GIVEN, OWN

WIDE = ["preprocessing", "network"]
FEW_MARK = " (few)"


def accuracy(tables: Tables, attack: str = "transferred", of: str | None = None) -> pd.DataFrame:
    """Returns tables 1 and 2 of chakraborty2022 for people: a row a network, a column an eps.

    `of` is the range that eps is of; the first unless said.
    """
    rows = tables["accuracy"]
    first = rows["range"].iloc[0]
    shown = (rows["attack"] == attack) & (rows["range"] == (of or first))
    rows = rows[shown | (rows["attack"] == "clean")]
    return _wide(
        rows, [as_text(r.accuracy, r.low, r.high) + _n(r.images) for r in rows.itertuples()]
    )


def mod(
    tables: Tables, explains: str, attack: str = "transferred", group: str = "all"
) -> pd.DataFrame:
    """Returns table 3 for people: MOD, a row a network, a column an eps."""
    rows = tables["mod"]
    rows = rows[(rows["attack"] == attack) & (rows["explains"] == explains)]
    rows = rows[rows["group"] == group]
    texts = [
        as_text(r.mod, r.low, r.high) + _n(r.images)
        + (f" ({r.empty:.0%} empty)" if r.empty > 0.005 else "")
        for r in rows.itertuples()
    ]  # fmt: skip
    return _wide(rows, texts)


def _n(images: float) -> str:
    """Returns the number of images behind a cell, marked where they are few; '' where unknown."""
    if pd.isna(images):
        return ""
    return f", n {int(images)}{FEW_MARK * (images < FEW)}"


def matrix(tables: Tables, arm: str = "none") -> pd.DataFrame:
    """Returns accuracy lost at the largest eps for people: a row a source, a column a network."""
    rows = tables["matrix"]
    rows = rows[(rows["preprocessing"] == arm) & (rows["eps"] == rows["eps"].max())]
    wide = rows.pivot(index="made_on", columns="network", values="lost")
    wide = wide.loc[rows["made_on"].unique(), rows["network"].unique()]
    texts = wide.map(lambda value: "" if pd.isna(value) else f"{value:.3f}")
    return texts.rename_axis("made on", axis=0).rename_axis(None, axis=1).reset_index()


def controls(tables: Tables, explains: str) -> pd.DataFrame:
    """Returns noise and controls for people: a row a network and attack, a column a control."""
    rows = tables["controls"].query("explains == @explains and attack != 'none'")
    texts = [
        f"{r.flipped:.0%}" + ("" if pd.isna(r.mod) else f", {as_text(r.mod, r.low, r.high)}")
        for r in rows.itertuples()
    ]  # fmt: skip
    keys = ["network", "preprocessing", "attack"]
    wide = rows.assign(text=texts).pivot(index=keys, columns="control", values="text")
    order = list(rows[keys].drop_duplicates().itertuples(index=False, name=None))
    wide = wide.loc[order, rows["control"].unique()].rename(columns={"none": "the attack"})
    return wide.fillna("").reset_index().rename_axis(columns=None)


def vid(tables: Tables, explains: str) -> pd.DataFrame:
    """Returns VID for people: a row a network, a column a reading of its levels."""
    rows = tables["vid"].query("attack == 'transferred' and explains == @explains")
    texts = [as_text(r.vid, r.vid_low, r.vid_high) for r in rows.itertuples()]
    return _wide(rows, texts, columns="levels")


def _wide(rows: pd.DataFrame, texts: list[str], columns: str = "eps") -> pd.DataFrame:
    table = rows.assign(text=texts).pivot(index=WIDE, columns=columns, values="text")
    order = list(rows[WIDE].drop_duplicates().itertuples(index=False, name=None))
    table = table.loc[order].fillna("").reset_index().rename_axis(columns=None)
    named = {c: f"eps {c:g}" for c in table.columns if isinstance(c, float)}
    return table.rename(columns=named)[["network", "preprocessing", *(
        named.get(c, c) for c in table.columns if c not in WIDE)]]  # fmt: skip


def pairs(tables: Tables) -> pd.DataFrame:
    """Returns the paired comparison for people: a row a network, attack and eps."""
    rows = tables["pairs"]
    attack = {"attack": rows["attack"]} if "attack" in rows else {}  # of version 0.1 has none
    return pd.DataFrame(
        {
            "network": rows["network"], **attack, "eps": rows["eps"].map("{:g}".format),
            "plain": rows["plain"].map("{:.3f}".format),
            "preprocessed": rows["preprocessed"].map("{:.3f}".format),
            "difference": [as_text(r.difference, r.low, r.high) for r in rows.itertuples()],
            "right plain alone": rows["only_plain"],
            "right preprocessed alone": rows["only_preprocessed"],
        }
    )  # fmt: skip


def readings(tables: Tables) -> pd.DataFrame:
    """Returns the claims for people as all their readings have them; those of version 0.1 none."""
    if "readings" not in tables:
        return pd.DataFrame()
    rows = tables["readings"]
    return pd.DataFrame(
        {
            "claim": rows["claim"], "reading": rows["reading"], "networks": rows["network"],
            "value": [as_text(r.value, r.low, r.high) for r in rows.itertuples()],
            "n": [f"{n}{FEW_MARK * (n < FEW)}" if n else "" for n in rows["images"].astype(int)],
            "verdict": rows["verdict"], "standing": rows["standing"],
        }
    )  # fmt: skip


def beside(tables: Tables) -> pd.DataFrame:
    """Returns the readings that stand beside a claim and speak of all networks, in few words."""
    rows = readings(tables)
    rows = rows[(rows["networks"] == "all") & (rows["standing"] != DECIDES)]
    names = {f"maps of the {CLASSES[GIVEN]}": "given class", f"maps of the {CLASSES[OWN]}": "own"}
    names |= {"empty maps taken as blank": "blank maps", "unrelated pairs": "unrelated"}
    short = rows["reading"].replace(names, regex=True)
    return rows.assign(reading=short).drop(columns=["networks", "standing"])


READINGS = (
    "Each claim as it is decided, and beside it other readings: of another class, of an empty map "
    "taken as blank, relative to the MOD of unrelated pairs, at other eps, under noise. *Seen*: "
    "results on these images were known when the reading was named. A network is at its floor "
    "where less than a tenth of its lead over chance is left. n: the fewest images behind a mean."
)


BESIDE = (
    "Other readings of the claims, which decide nothing, most of them named when results on these "
    "images were known ([readings](tables/readings.csv) says which): of the given class, the "
    "set's, or the own top class; empty maps taken as blank; relative to the MOD of unrelated "
    "pairs; at other eps; under noise. n: the fewest images behind a mean."
)


def content(name: str, settings: Settings, tables: Tables) -> Content:
    """Returns the content of a study's README."""
    plan = settings.study(name, TransferStudy)
    networks = list(tables["networks"]["network"].unique())
    images = tables["networks"]["images"].max()
    arms = " With and without preprocessing." if len(tables["pairs"]) else ""
    return Content(
        title=plan.title,
        papers="Chakraborty et al. 2022",
        compared=f"{', '.join(networks)} on {images} test images under FGSM, made on each network "
        f"and, made on {plan.transferred}, transferred to the others; beside noise of its size."
        f"{arms}",
        headline=[
            (f"Accuracy under the attack made on {plan.transferred}, in brackets Wilson's "
             "interval, then the number of images.",
             accuracy(tables)),
            (f"MOD of maps of {EXPLAINED[plan.explains]}, last conv layer, in brackets intervals "
             "by source picture, then the number of pairs of maps.", mod(tables, plan.explains)),
        ],
        claims=CLAIMS,
        beside=[(BESIDE, beside(tables))] if "readings" in tables else [],
        flags=by_flag(tables),
        figures=texts(
            study_figures(tables, explains=plan.explains),
            pictures(networks, transferred=plan.transferred),
        ),
        about=ABOUT,
    )  # fmt: skip


def page(name: str, settings: Settings, tables: Tables, figures: list[Figure]) -> str:
    """Returns the HTML of the report of a study."""
    plan = settings.study(name, TransferStudy)
    shown = ["claim", "says", "printed", "corrected", "verdict", "after Holm", "images", "flags",
             "statistic", "behind it", "figures"]  # fmt: skip
    explains, scales = plan.explains, ", ".join(plan.ranges[1:])
    sections = [
        ("", "Numbers rest on this study's own images and networks, not on those of any "
         "paper.", None),
        ("Claims", RULES,
         claims.texts(tables, CLAIMS)[shown]),
        ("Readings", READINGS.replace("*", ""), readings(tables)),
        ("Networks", "Side of the input in px, conv layers and their mean number of channels.",
         tables["networks"]),
        ("Accuracy under the transferred attack", f"Made on {plan.transferred}, which meets its "
         "own; Wilson intervals.", accuracy(tables)),
        ("Accuracy under the attack made on each network itself", "", accuracy(tables, "own")),
        ("Accuracy under noise of the transferred attack's size", "", accuracy(tables, "noise")),
        *((f"Accuracy under the transferred attack, eps of the range {of}", "",
           accuracy(tables, of=of))
          for of in plan.ranges[1:]),
        ("Accuracy lost at the largest eps", "By the network that the attack was made on and the "
         "network that meets it.", matrix(tables)),
        ("MOD under the transferred attack", f"Maps of {EXPLAINED[explains]}, last conv layer at "
         "the input's size; in brackets intervals by source picture.", mod(tables, explains)),
        *((f"MOD under the transferred attack, maps of {EXPLAINED[other]}", "", mod(tables, other))
          for other in EXPLAINED if other != explains),
        ("MOD of images that keep their class", "", mod(tables, explains, group="class kept")),
        ("MOD under noise of the transferred attack's size", "", mod(tables, explains, "noise")),
        ("Noise and controls at the largest eps", "Share of images whose class changes, and MOD: "
         "under each attack, under noise of its size, and under its perturbation rearranged.",
         controls(tables, explains)),
        ("VID under the transferred attack", "Standard deviation of an image's NISSIM over the "
         "eps, mean over images.", vid(tables, explains)),
    ]  # fmt: skip
    if len(tables["pairs"]):
        sections.append(
            (
                "Preprocessing, image by image",
                "Under the transferred attack, and under noise of its size.",
                pairs(tables),
            )
        )
    lead = Markup("Study <code>{}</code>.").format(name)
    lead += f" Other ranges: {scales}." if scales else ""
    return pages.page(plan.title, [Part(text=lead), *(Part(*of) for of in sections)], figures)

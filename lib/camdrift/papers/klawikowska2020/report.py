"""The report of retrained models and signatures, and its tables for people."""

import pandas as pd
from markupsafe import Markup

from camdrift.analysis import page as pages
from camdrift.analysis.drawing import Figure
from camdrift.analysis.page import Part
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.papers import claims
from camdrift.papers.findings import RULES
from camdrift.papers.klawikowska2020.claims import CLAIMS
from camdrift.papers.klawikowska2020.figures import (
    LAST_LAYER,
    NAMES,
    PICTURES,
    attack_names,
    numbers,
    study_figures,
)
from camdrift.papers.klawikowska2020.tables import ABOUT, FEWEST
from camdrift.papers.readme import Content, by_flag, texts
from camdrift.settings import Settings, SignatureStudy


def sets(tables: Tables) -> pd.DataFrame:
    """Returns table 1 of klawikowska2020 and beyond, for people: a row a set, a column a model."""
    rows = tables["sets"]
    texts = [
        f"{as_text(row.accuracy, row.low, row.high)} "
        f"({row.right} of {row.images}{_few(row.images)})"
        for row in rows.itertuples()
    ]
    wide = rows.assign(text=texts).pivot(index="set", columns="model", values="text")
    wide = wide.loc[rows["set"].unique(), rows["model"].unique()]
    return wide.rename(columns=NAMES).reset_index().rename_axis(columns=None)


def attacks(tables: Tables) -> pd.DataFrame:
    """Returns every model attacked itself, for people: a row an attack, a column a model."""
    rows = tables["attacks"].query("split == 'test'")
    texts = [
        f"{as_text(row.rate, row.low, row.high)} of {row.images} right{_few(row.images)}"
        for row in rows.itertuples()
    ]
    if _rounds(tables):
        texts = [
            f"{text}; 8 bit {as_text(row.rate_8bit, row.low_8bit, row.high_8bit)}"
            for text, row in zip(texts, rows.itertuples(), strict=True)
        ]
    wide = rows.assign(text=texts).pivot(index="attack", columns="model", values="text")
    wide = wide.loc[rows["attack"].unique(), rows["model"].unique()].fillna("")
    wide.index = wide.index.map(attack_names(tables))
    return (
        wide.rename(columns=NAMES)
        .rename_axis("attack", axis=0)
        .rename_axis(None, axis=1)
        .reset_index()
    )


def controls(tables: Tables) -> pd.DataFrame:
    """Returns noise and controls for people: a row a model and attack, a column a control."""
    rows, keys = tables["controls"], ["model", "attack"]
    texts = [
        f"{as_text(row.rate, row.low, row.high)} of {row.images}{_few(row.images)}"
        for row in rows.itertuples()
    ]
    rows = rows.assign(text=texts)
    wide = rows.pivot(index=keys, columns="control", values="text")
    order = list(rows[keys].drop_duplicates().itertuples(index=False, name=None))
    wide = wide.loc[order, rows["control"].unique()].reset_index().rename_axis(columns=None)
    names = {"model": wide["model"].map(NAMES), "attack": wide["attack"].map(attack_names(tables))}
    return wide.assign(**names)


def _rounds(tables: Tables) -> bool:
    """Returns whether tables count success after rounding; those of version 0.2 do not."""
    return "low_8bit" in tables["attacks"]


def _few(images: int) -> str:
    """Returns a mark for a number that rests on few images."""
    return ", few" if images < FEWEST else ""


def content(name: str, settings: Settings, tables: Tables) -> Content:
    """Returns the content of a study's README."""
    study = settings.study(name, SignatureStudy)
    plan = settings.retrainings[study.retraining]
    images = tables["sets"].query("set == 'clean'")["images"].max()
    budgets = ", ".join(attack_names(tables).values())
    rounding = ""
    if _rounds(tables):
        rounding = " 8 bit: with attacked images rounded to 256 levels that are still changed."
    return Content(
        title=study.title,
        papers="Klawikowska et al. 2020",
        compared=f"[{plan.model}](../models/{plan.model}.json) and models retrained from it, on "
        f"{images} test images of [{plan.set}](../sets/{plan.set}.json): accuracy, LRP maps and "
        f"their signatures, clean and attacked ({budgets}).",
        headline=[
            ("Share right on clean test images, and with those added that an attack changed on the "
             f"baseline model; in brackets an interval by source picture.{rounding} Few: fewer "
             f"than {FEWEST} images.", sets(tables)),
            ("Every model attacked itself: share of the images that it gets right which the attack "
             "changes.", attacks(tables)),
        ],
        claims=CLAIMS,
        flags=by_flag(tables),
        figures=texts(study_figures(tables), PICTURES),
        about=ABOUT,
    )  # fmt: skip


def page(name: str, settings: Settings, tables: Tables, figures: list[Figure]) -> str:
    """Returns the HTML of the report of a study."""
    shown = ["claim", "says", "printed", "corrected", "verdict", "after Holm", "images", "flags",
             "statistic", "behind it", "figures"]  # fmt: skip
    sections = [
        ("", "Numbers rest on this study's own images and model, not on those of any paper.",
         None),
        ("Claims", RULES,
         claims.texts(tables, CLAIMS)[shown]),
        ("Accuracy", "The sets of the paper's table 1: the test images, and with those added that "
         "an attack changed successfully on the baseline model. In brackets an interval by source "
         "picture.", sets(tables)),
        ("Every model attacked itself", "Share of the images that a model gets right which an "
         "attack made for that model changes; those it gets wrong already are left out.",
         attacks(tables)),
        ("Which class became which", "On the baseline model.", tables["flips"]),
        ("Noise and controls", "Share of the images that a model gets right whose class changes "
         "under noise of the attack's size, and under its perturbation rearranged.",
         controls(tables)),
        ("Relevance", "Correlation of maps with the baseline model's of the clean image, over "
         "successes; 'growth' is how many times the share of relevance around the attacked pixel "
         "grew, 'tripled' the share of images where it grew more than three times; 'shrinkage' is "
         "that share over the baseline model's, 'halved' the share of images where it is less than "
         "half. 'Same class': both maps explain the clean image's class. 'Class swap': the same "
         "image's map of another class. 'No flip': images whose class the change leaves.",
         tables["relevance"]),
        ("Readings of the claims", "The rule of each claim, as stated and applied to controls and "
         "to other readings; those are 'seen', written when results were known.",
         tables["readings"]),
        ("The planes of signatures", f"{numbers(tables)}; {numbers(tables, of=LAST_LAYER)}.", None),
        ("Images that an attack adds to the training set", "", tables["budgets"]),
        ("Attacks in numbers", "", tables["attacks"]),
    ]  # fmt: skip
    lead = Markup("Study <code>{}</code>.").format(name)
    return pages.page(
        settings.studies[name].title, [Part(text=lead), *(Part(*of) for of in sections)], figures
    )

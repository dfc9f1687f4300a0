"""The dashboard: what the stages wrote, to browse. It computes nothing that a stage could write."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))
os.chdir(ROOT)  # artefacts are found from the root of the repository

from camdrift import (  # noqa: E402
    artifacts,
    detection_figures,
    drawing,
    figures,
    flags,
    generalisation_figures,
    generalisation_report,
    hardening_figures,
    hardening_report,
    params,
    report,
    results,
    settings,
)


@st.cache_data(max_entries=8)
def load(study: str, stamp: float) -> results.Tables:
    return results.load(study)


@st.cache_data(max_entries=32)
def examples(study: str, cell: str, stamp: float) -> tuple[pd.DataFrame, np.ndarray]:
    maps = artifacts.read(artifacts.Maps, artifacts.cell_folder(study, cell, "cam"))
    return maps.examples, np.asarray(maps.pictures)


def overview(made: results.Tables, plan: settings.Study) -> None:
    st.header(plan.title)
    st.write(
        "When an image is attacked, do the class-activation maps of each conv layer drift further "
        "than under the same amount of plain noise? Numbers rest on this study's own images and "
        "model, not on those of any paper."
    )
    square = figures.square(made, plan.headline, "own_top1")
    if square.table.empty:
        show(figures.drift(made, plan.headline))
    else:
        show(square)
        show(figures.square(made, plan.headline, "seed_class"))
    st.dataframe(report.headline(made), hide_index=True)
    st.caption(
        "Excess: cosine similarity to the clean map under matched noise minus that under attack, "
        "strength 100 %, mean over decided layers, with an interval resampled by source picture."
    )
    for cell in made["attacks"]["cell"]:
        for text in flags.texts(made, cell):
            st.warning(f"{cell}: {text}")


def claims(made: results.Tables, headline: str) -> None:
    table = report.claims(made)
    papers = st.multiselect("Paper", sorted(table["of"].unique()), key="papers",
                            bind="query-params")  # fmt: skip
    verdicts = st.multiselect("Verdict", sorted(table["verdict"].unique()), key="verdicts",
                              bind="query-params")  # fmt: skip
    shown = table
    if papers:
        shown = shown[shown["of"].isin(papers)]
    if verdicts:
        shown = shown[shown["verdict"].isin(verdicts)]
    st.caption(
        f"{len(shown)} of {len(table)} claims. Statistics and thresholds were set before any "
        "result; 'corrected' decides. A verdict speaks of the images and the model that it rests "
        "on, not of those of the paper."
    )
    first = ["claim", "of", "says", "as published", "corrected", "verdict"]
    order = [*first, *(name for name in shown.columns if name not in first)]
    st.dataframe(shown, hide_index=True, column_order=order)
    st.download_button("Claims as CSV", made["claims"].to_csv(index=False), "claims.csv")
    st.subheader("One switch at a time")
    st.caption(
        "Each claim's statistic under the corrected protocol, under the published one, and with a "
        "single switch set as published."
    )
    st.dataframe(report.switches(made, headline), hide_index=True)
    st.subheader("Controls")
    st.caption("Similarity to the clean map at strength 100 %, mean over layers.")
    st.dataframe(report.controls(made, headline), hide_index=True)


def layers(made: results.Tables, cells: list[str], headline: str) -> None:
    cell = st.selectbox("Cell", cells, index=cells.index(headline), key="cell", bind="query-params")
    views = {
        "Similarity by strength, attack": lambda: figures.lines(made, cell, "adversarial", "5a"),
        "Similarity by strength, as published": lambda: figures.published(made, cell),
        "Excess drift by layer": lambda: figures.drift(made, cell),
        "Excess drift by strength": lambda: figures.groups(made, cell),
        "Similarity by strength, noise": lambda: figures.lines(made, cell, "noise", "5b"),
        "Distribution, attack": lambda: figures.boxes(made, cell, "adversarial", "4a"),
        "Distribution, noise": lambda: figures.boxes(made, cell, "noise", "4b"),
        "Compromised layers": lambda: figures.compromised(made, cell),
        "Compromised layers of an image": lambda: figures.compromised_counts(made, cell),
        "Coverage, attack and noise": lambda: figures.coverage_by_arm(made, cell),
        "Coverage by strength": lambda: figures.coverage_by_strength(made, cell),
    }
    if "methods" in made:  # tables of before have none
        views["Excess drift by method"] = lambda: figures.methods(made, cell)
    view = st.selectbox("Figure", list(views), key="figure", bind="query-params")
    figure = views[view]()
    if figure.table.empty:
        st.info(
            "Nothing to show: no image was attacked with success, or the cell lacks a protocol."
        )
        return
    show(figure)
    st.download_button("Table as CSV", figure.table.to_csv(index=False), f"{figure.name}.csv")


def detectors(made: results.Tables, headline: str) -> None:
    cells = made["detectors"]["cell"].unique().tolist()
    if not cells:
        st.info("No cell of this study names strengths under `detect:` in params.yaml.")
        return
    first = cells.index(headline) if headline in cells else 0
    cell = st.selectbox("Cell", cells, index=first, key="detected", bind="query-params")
    strengths = made["detectors"].query("cell == @cell")["strength"].unique().tolist()
    strength = 1.0
    if len(strengths) > 1:
        strength = st.select_slider(
            "Strength", strengths, 1.0, key="detected_at", format_func=drawing.percent
        )
    st.dataframe(report.trial(made, cell, strength), hide_index=True)
    st.caption(
        "Each detector sees one image, never its clean twin. Attacked images whose class flips "
        "against clean and noisy ones; fitted, chosen and tested on different images."
    )
    for figure in detection_figures.of_study(made, cell):
        show(figure)
    if len(made["knowing"]):
        st.subheader("Against an attack that knows the detector")
        st.dataframe(report.knowing(made), hide_index=True)
    st.subheader("Is NoiseCAM the confidence in disguise?")
    st.dataframe(report.disguise(made, cell, strength), hide_index=True)
    st.caption(
        "Rank correlation of its number of clusters with 1 minus the model's top probability, on "
        "test images, and the difference of their AUROCs."
    )
    table = made["detectors"]
    st.download_button("Trial as CSV", table.to_csv(index=False), "detectors.csv")


def images(study: str, cells: list[str], headline: str) -> None:
    cell = st.selectbox("Cell", cells, index=cells.index(headline), key="pictured",
                        bind="query-params")  # fmt: skip
    folder = artifacts.cell_folder(study, cell, "cam")
    file = folder / "pictures.npy"
    if not file.exists():
        st.info(f"The images of '{cell}' are not built here. {how(study)}")
        return
    table, pictures = examples(study, cell, file.stat().st_mtime)
    number = st.slider("Image", 1, len(pictures), 1, key="image") if len(pictures) > 1 else 1
    shown = table.iloc[(number - 1) * pictures.shape[1] : number * pictures.shape[1]]
    columns = st.columns(4)
    for i, (row, picture) in enumerate(zip(shown.itertuples(), pictures[number - 1], strict=True)):
        name = row.variant if not row.strength else f"{row.variant}, {100 * row.strength:g} %"
        with columns[i % 4]:
            st.image(picture, caption=name, output_format="PNG", width="stretch")


def hardening(made: results.Tables, plan: settings.Hardening) -> None:
    st.header(plan.title)
    st.write(
        "What do attacks do to LRP relevance maps, do signatures give them away, and do models "
        "retrained on attacked images withstand attacks made for themselves? Numbers rest on this "
        "hardening's own images and model, not on those of any paper."
    )
    overview_tab, claims_tab, signatures_tab = st.tabs(["Models", "Claims", "Signatures"])
    drawn = {figure.name: figure for figure in hardening_figures.of_hardening(made)}
    with overview_tab:
        show(drawn.pop("accuracy"))
        st.dataframe(hardening_report.sets(made), hide_index=True)
        show(drawn.pop("anew"))
        st.dataframe(hardening_report.attacks(made), hide_index=True)
        st.caption(
            "Share of the images that a model gets right which an attack made for that model "
            "changes; in brackets an interval by source picture."
        )
        st.subheader("Which class became which")
        st.dataframe(made["flips"], hide_index=True)
        st.subheader("Images that an attack adds to the training set")
        st.dataframe(made["budgets"], hide_index=True)
    with claims_tab:
        table = report.claims(made)
        first = ["claim", "says", "corrected", "verdict", "behind it", "flags"]
        others = [n for n in table.columns if n not in first and "as published" not in n]
        st.dataframe(table, hide_index=True, column_order=[*first, *others])
    with signatures_tab:
        st.write(f"The plane of signatures: {hardening_figures.numbers(made)}.")
        for figure in drawn.values():
            show(figure)
        st.dataframe(made["relevance"], hide_index=True)
        st.caption(
            "Correlation of maps with the clear model's map of the clean image, over successes; "
            "'growth' is how many times the share of relevance around the attacked pixel grew."
        )
    for name in ("sets", "attacks", "points"):
        st.download_button(f"{name} as CSV", made[name].to_csv(index=False), f"{name}.csv")


def generalisation(made: results.Tables, plan: settings.Generalisation) -> None:
    st.header(plan.title)
    st.write(
        "Do other networks behave alike? An attack is made on one network and carried to the "
        "others; how much accuracy is lost, how far do maps shift, and does the one explain the "
        "other? Numbers rest on this generalisation's own images and networks, not on those of any "
        "paper."
    )
    names = ["Accuracy", "Shift of maps", "Claims"]
    accuracy_tab, shift_tab, claims_tab = st.tabs(names)
    known = generalisation_figures.EXPLAINED
    explains = shift_tab.radio(
        "Maps explain", list(known), index=list(known).index(plan.explains), key="explains",
        format_func=known.get, horizontal=True, bind="query-params",
    )  # fmt: skip
    drawn = generalisation_figures.of_generalisation(made, explains=explains)
    on_shift = {"cha_table_3", "mod_own", "cha_figure_4_nissim", "cha_figure_4_vid", "relation",
                "mod_groups", "depth"}  # fmt: skip
    with accuracy_tab:
        for figure in drawn:
            if figure.name not in on_shift:
                show(figure)
        arms = {"carried": f"made on {plan.carried}", "own": "made on each network itself",
                "noise": "noise of the carried attack's size"}  # fmt: skip
        attack = st.selectbox("Attack", list(arms), key="attack", format_func=arms.get,
                              bind="query-params")  # fmt: skip
        st.dataframe(generalisation_report.accuracy(made, attack), hide_index=True)
        st.caption("Share of test images right, with Wilson intervals, by eps.")
        if len(made["pairs"]):
            st.subheader("Preprocessing, image by image")
            st.dataframe(generalisation_report.pairs(made), hide_index=True)
        st.subheader("Networks")
        st.dataframe(made["networks"], hide_index=True)
    with shift_tab:
        for figure in drawn:
            if figure.name in on_shift:
                show(figure)
        st.dataframe(generalisation_report.mod(made, explains), hide_index=True)
        st.caption(
            "MOD under the carried attack, last conv layer at the input's size; in brackets "
            "intervals by source picture."
        )
    with claims_tab:
        table = report.claims(made)
        first = ["claim", "says", "corrected", "verdict", "behind it", "flags"]
        others = [n for n in table.columns if n not in first and "as published" not in n]
        st.dataframe(table, hide_index=True, column_order=[*first, *others])
    for name in ("accuracy", "mod", "matrix"):
        st.download_button(f"{name} as CSV", made[name].to_csv(index=False), f"{name}.csv")


def show(figure: drawing.Figure) -> None:
    st.plotly_chart(drawing.plotly(figure), key=figure.name)
    st.caption(figure.caption)


def how(study: str) -> str:
    chosen = params.load(ROOT / "params.yaml")
    presets = chosen.presets.items()
    of = [
        name for name, preset in presets
        if study in preset.studies | preset.hardenings | preset.generalisations
    ]  # fmt: skip
    if of and study not in chosen.studies | chosen.hardenings | chosen.generalisations:
        return f"It was built in a copy by: make study NAME={of[0]} STUDY={study}"
    return f"Run: make repro STUDY={study}"


def main() -> None:
    st.set_page_config("camdrift", layout="wide")
    try:
        chosen = params.load(ROOT / "params.yaml")
    except settings.SettingsError as fault:
        st.error(str(fault))
        return
    studies = chosen.studies | chosen.hardenings | chosen.generalisations
    studies |= results.of_presets(chosen)
    study = st.sidebar.selectbox("Study", list(studies), key="study", bind="query-params")
    st.sidebar.caption("Results of the stages in this folder; `make repro` rebuilds them.")
    folder = artifacts.results(study, "tables")
    if not folder.exists():
        st.info(f"Nothing is built yet for '{study}'. {how(study)}")
        return
    stamp = max(file.stat().st_mtime for file in folder.iterdir())
    made = load(study, stamp)
    plan = studies[study]
    if isinstance(plan, settings.Hardening):
        hardening(made, plan)
        return
    if isinstance(plan, settings.Generalisation):
        generalisation(made, plan)
        return
    cells = made["attacks"]["cell"].tolist()
    headline = plan.headline
    names = ["Overview", "Claims", "Layers", "Detectors", "Images"]
    overview_tab, claims_tab, layers_tab, detectors_tab, images_tab = st.tabs(names)
    with overview_tab:
        overview(made, plan)
    with claims_tab:
        claims(made, headline)
    with layers_tab:
        layers(made, cells, headline)
    with detectors_tab:
        detectors(made, headline)
    with images_tab:
        images(study, cells, headline)


main()

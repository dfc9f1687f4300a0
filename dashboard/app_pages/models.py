"""Models side by side: accuracy, shift of maps, layers, retraining."""

import address
import frame
import page
import streamlit as st
import tiles

from camdrift import storage
from camdrift.papers.chakraborty2022 import (
    figures,
    panels,
    report,
)
from camdrift.papers.klawikowska2020 import figures as retraining_figures
from camdrift.papers.klawikowska2020 import report as retraining_report
from camdrift.settings import CHAKRABORTY, KLAWIKOWSKA, TransferStudy
from camdrift.storage import Transferred

ARMS = {"transferred": "transferred from another network", "own": "made on each network itself",
        "noise": "noise of the transferred attack's size"}  # fmt: skip


def retraining(view: frame.View) -> None:
    """Shows the retrained models of a study."""
    tables = view.tables
    page.show(retraining_figures.table_1(tables))
    page.table(retraining_report.sets(tables), "sets", "Share of images classified "
                "correctly, with intervals by source picture.")  # fmt: skip
    page.show(retraining_figures.success_by_model(tables))
    page.table(retraining_report.attacks(tables), "attacks", "Share of a model's correctly "
                "classified images whose class an attack made for that model changes.")  # fmt: skip
    page.subheader("Which class became which")
    page.table(tables["flips"], "flips", "On the baseline model, test images.")
    page.subheader("Images that an attack adds to the training set")
    page.table(tables["budgets"], "budgets", "Successes on training images.")


def transfer(view: frame.View) -> None:
    """Shows the networks of a study under attacks that are transferred."""
    tables, plan = view.tables, view.settings.study(view.study, TransferStudy)
    policies = figures.EXPLAINED
    explains = st.radio("Maps explain", list(policies), index=list(policies).index(plan.explains),
                        key="explains", format_func=policies.get, horizontal=True,
                        bind="query-params")  # fmt: skip
    page.chose("Maps explain", policies[explains])
    drawings = {f.name: f for f in figures.study_figures(tables, explains=explains)}
    titles = {name: figure.title for name, figure in drawings.items()}
    name = address.choice(st, "Figure", list(titles), key="figure", format_func=titles.get)
    page.show(drawings[name])
    attack = address.choice(st, "Attack", list(ARMS), key="attack", format_func=ARMS.get)
    page.table(report.accuracy(tables, attack), "accuracy", "Share of test images "
                "classified correctly, with Wilson intervals, by eps.")  # fmt: skip
    page.subheader("MOD")
    page.table(report.mod(tables, explains), "mod", "Mean shift of maps under the "
                "transferred attack, last conv layer at the input's size, with intervals by source "
                "picture in brackets.")  # fmt: skip
    if len(tables["pairs"]):
        page.subheader("Preprocessing, image by image")
        page.table(report.pairs(tables), "pairs", "The same images with and without "
                    "preprocessing.")  # fmt: skip
    if "readings" in tables:  # results of version 0.1 have none
        page.subheader("Readings of the claims")
        page.table(report.readings(tables), "readings", report.READINGS)
    page.subheader("Networks")
    page.table(tables["networks"], "networks", "The compared networks.")
    page.subheader("Layers of a network")
    layers(view)


def layers(view: frame.View) -> None:
    """Shows the maps of the stored examples at every layer of a network."""
    ends = [key for key, target in view.settings.targets.items() if target.maps]
    if not ends:
        page.caption("No target of this study has maps.")
        return
    end = address.choice(st, "Target", ends, key="end")
    try:
        folder = storage.end_folder(view.study, "transferred", end)
        transferred = storage.read(Transferred, folder)
    except FileNotFoundError as fault:
        frame.show_missing(view, fault)
        return
    boxes = st.columns(2)
    names = {i: f"{i + 1}: {name}" for i, name in enumerate(transferred.shown["class_name"])}
    number = address.choice(boxes[0], "Example", list(names), key="example", format_func=names.get)
    variants = ["clean", *(f"{v.attack}, eps {v.eps:g}" for v in transferred.variants.itertuples())]
    variant = address.choice(boxes[1], "Variant", variants, key="variant")
    place = variants.index(variant)
    labels = transferred.layers["label"].tolist()
    places = frame.page_of(labels)
    with st.grid("auto", min_column_width=110):
        image = transferred.pictures[number, place]
        picture = tiles.enlarged(image)
        page.tile(picture, "image", alt=variant)
        for i in places:
            layer = panels.layer(transferred, number, place, i)
            heat = tiles.heat(layer, image.shape)
            page.tile(heat, labels[i], alt=f"map at layer {labels[i]}, {variant}")
    page.caption(
        "Maps of the image's own top class at each layer, from input to output, each divided by "
        "its own maximum: bright places support the class."
    )


SHOWS = {KLAWIKOWSKA: retraining, CHAKRABORTY: transfer}

view = frame.view(*SHOWS, subject="models to compare")
page.header("Models")
SHOWS[view.plan.paper](view)

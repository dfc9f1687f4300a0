"""Relevance maps as signatures: their plane, and the image behind a point."""

import address
import charts
import frame
import matplotlib as mpl
import numpy as np
import page
import pandas as pd
import streamlit as st
import tiles

from camdrift import storage
from camdrift.papers.klawikowska2020 import figures
from camdrift.papers.klawikowska2020.figures import ATTACKS
from camdrift.settings import EXTENDING, KLAWIKOWSKA, SignatureStudy
from camdrift.storage import CLEAN, Retrained, Signatures

COLOURS = {"class_before": "class before", "on": "attack", "attackable": "attackable or not",
           "class_after": "class predicted by the model"}  # fmt: skip
ON = {"clean": "clean", **ATTACKS}


def take_point() -> None:
    """Selects the point that was clicked."""
    points = st.session_state["plane"]["selection"]["points"]
    if len(points) == 1:
        on, image = points[0]["customdata"][:2]
        st.session_state["point"] = f"{on} {image}"


def look(on: str, image: int) -> np.ndarray:
    """Returns an image (h, w, c), clean or attacked."""
    place = places[image]
    if on == CLEAN:
        return np.asarray(signatures.pictures[place])
    changed = np.asarray(retrained.changed[EXTENDING.index(on), place])
    return np.moveaxis(changed, 0, -1).astype(np.float32)


def group(keys: list[tuple[str, int]]) -> None:
    """Shows the images of several points."""
    page.subheader(f"{len(keys)} images in the selection")
    shown = frame.thumbnails(pd.DataFrame(keys, columns=["on", "image"]), of=f"plane {keys}")
    with st.grid("auto", min_column_width=110):
        for row in shown.itertuples():
            small = tiles.enlarged(look(row.on, row.image), 128)
            page.tile(small, captions[f"{row.on} {row.image}"], alt=f"{row.on}, image {row.image}")


view = frame.view(KLAWIKOWSKA, subject="signatures")
tables = view.tables
page.header("Signatures")
points = tables["points"].dropna(subset=["x", "y"])
if points.empty:
    page.info("Too few points for a plane: see the figures of the Models page.")
    st.stop()
points = points.assign(
    attackable=np.where(points["success_fgsm"] | points["success_one_pixel"],
                        "an attack changes its class", "no attack does"),
)  # fmt: skip
boxes = st.columns(2)
colour = address.choice(boxes[0], "Coloured by", list(COLOURS), key="colour",
                      format_func=COLOURS.get)  # fmt: skip
address.forget_stale("on", set(points["on"]))
selection = boxes[1].multiselect("Images", list(points["on"].unique()), key="on",
                                 format_func=ON.get, bind="query-params",
                                 placeholder="all")  # fmt: skip
page.chose("Images", selection or ["all"])
visible = points[points["on"].isin(selection)] if selection else points
caption = (
    "Each point is an image's LRP map, placed by UMAP: near points have similar maps, and the axes "
    f"have no unit. {figures.numbers(tables)}. Click a point, or choose it below, to see its "
    "image; the chart's lasso shows those of many."
)
figure = charts.plane(visible, colour=colour, caption=caption)
page.plot(
    figure,
    charts.with_points(figure),
    key="plane",
    on_select=take_point,
    selection_mode=("points", "lasso"),
    alt="Plane of relevance signatures, a point an image",
)
page.read(figure, "plane_kept")

names = [f"{row.on} {row.image}" for row in points.itertuples()]
captions = {f"{row.on} {row.image}": f"{ON[row.on]}, image {row.image}: {row.class_before}"
        + (f" classified as {row.class_after}" if row.class_after != row.class_before else "")
        for row in points.itertuples()}  # fmt: skip
point = address.choice(st, "Point", names, key="point", format_func=captions.get)
on, image = point.split()
try:
    key = view.settings.study(view.study, SignatureStudy).retraining
    retrained = storage.read(Retrained, storage.cell_folder(view.study, key, "retrain"))
    signatures = storage.read(Signatures, storage.cell_folder(view.study, key, "signatures"))
except FileNotFoundError as fault:
    frame.show_missing(view, fault)
else:
    places = {number: place for place, number in enumerate(retrained.tests["image"])}
    marks = st.session_state["plane"]["selection"]["points"]
    if len(marks) > 1:
        group([(on, int(image)) for on, image, *_ in (one["customdata"] for one in marks)])
    place, picture = places[int(image)], look(on, int(image))
    page.line(captions[point])
    model_maps = [
        (k, model) for k, (model, kind) in enumerate(signatures.facts["shown"]) if kind == on
    ]
    with st.grid("auto", min_column_width=140):
        page.picture(tiles.enlarged(picture), ON[on], alt=f"the image, {ON[on]}")
        for k, model in model_maps:
            values = (np.asarray(signatures.maps[k, place], dtype=np.float32) + 1) / 2
            heat = tiles.enlarged(mpl.colormaps["RdBu_r"](values)[..., :3])
            name = figures.NAMES[model]
            page.picture(heat, name, alt=f"relevance, {name} model")
    page.caption(f"The image and its LRP maps, model by model. {figures.HEATS}")
page.subheader("Figures")
drawings = {figure.title: figure for figure in figures.study_figures(tables)[2:]}
page.show(drawings[address.choice(st, "Figure", list(drawings), key="figure")])
page.table(tables["relevance"], "relevance", "Correlation of maps with the baseline's map of the "
            "clean image, over successes; 'growth' is the factor by which the share of "
            "relevance around the attacked pixel grew.")  # fmt: skip

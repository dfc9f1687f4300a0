"""One image, its changed versions, and the drift of its maps."""

import address
import charts
import frame
import numpy as np
import page
import pandas as pd
import streamlit as st
import tiles

from camdrift.analysis.drawing import percent
from camdrift.ops import case
from camdrift.settings import RENKHOFF, ZHANG
from camdrift.storage import ADVERSARIAL, OWN

ORDERS = ("as in the set", "most drifted", "class flipped", "missed by the detector")
ALL = "all layers"
LOOKS = ("overlay", "map", "difference to the clean map")


def drift_at(layer: str) -> pd.Series:
    """Returns each image's drift at a layer, as `case.overview` has its mean over layers."""
    table = frame.pairs(view, cell, strength=1.0, layer=layer, target=OWN, score="cosine",
                        method=artefacts.maps.methods[0])  # fmt: skip
    return images["image"].map(1 - table.set_index("image")[ADVERSARIAL])


def image_order(images: pd.DataFrame, order: str, misses: pd.DataFrame | None) -> list[int]:
    """Returns the images to step through, in the chosen order."""
    if order == "most drifted":
        images = images.sort_values("drift", ascending=False, na_position="last")
    elif order == "class flipped":
        images = images[images["success"]].sort_values("drift", ascending=False)
    elif order == "missed by the detector":
        images = images[images["image"].isin([] if misses is None else misses)]
    return images["image"].tolist()


def missed_images(detector: str) -> pd.Series | None:
    """Returns the flipped test images that a detector misses, at strength 1."""
    rows = evaluated["judged"].query("cell == @cell and strength == 1 and kind == 'success'")
    limit = evaluated["limits"].query("cell == @cell and strength == 1 and detector == @detector")
    if rows.empty or limit.empty:
        return None
    return rows.loc[rows[detector] < limit["limit"].iloc[0], "image"]


def step(by: int) -> None:
    """Goes to the previous or the next image."""
    here = names.index(st.session_state["image"])
    st.session_state["image"] = names[(here + by) % len(names)]


view = frame.view(RENKHOFF, ZHANG, subject="images of a cell")
page.header("Image")
boxes = st.columns(3)
with boxes[0]:
    cell = frame.choose_cell(view, key="in_cell")
evaluated = frame.tables_of(view.cells[cell].evaluation)
artefacts = frame.open_case(view, cell)
images = frame.images(view, artefacts)
order = address.choice(boxes[1], "Images", ORDERS, key="order")
misses = None
labels = artefacts.maps.layers["label"].tolist()
if order == ORDERS[1]:
    layer = address.choice(boxes[1], "Most drifted at layer", [ALL, *labels], key="drifted_at")
    images = images if layer == ALL else images.assign(drift=drift_at(layer))
if order == ORDERS[-1]:
    detectors = [name for name in evaluated.get("judged", pd.DataFrame()).columns
             if name not in ("cell", "strength", "image", "kind", "chance")]  # fmt: skip
    if not detectors:
        page.info("There are no scores of detectors for the images of this cell.")
        st.stop()
    misses = missed_images(address.choice(boxes[1], "Detector", detectors, key="detector"))
ids = image_order(images, order, misses)
if not ids:
    page.info("No image of this kind in this cell.")
    st.stop()
texts = images.set_index("image")["id"].astype(str).to_dict()
names = [texts[image] for image in ids]
image_name = address.choice(boxes[2], "Image", names, key="image")
with boxes[2].container(horizontal=True):
    st.button("Previous", on_click=step, args=(-1,), icon=":material/arrow_back:")
    st.button("Next", on_click=step, args=(1,), icon=":material/arrow_forward:")
    page.caption(f"{names.index(image_name) + 1} of {len(names)}")
image = ids[names.index(image_name)]

boxes = st.columns(4)
strength = address.choice(boxes[0], "Strength", artefacts.strengths, key="at_strength", default=1.0,
                        format_func=percent)  # fmt: skip
times = boxes[1].slider("Change, times", 1, 50, 10, key="times", bind="query-params")
method = address.choice(boxes[2], "Method", artefacts.maps.methods, key="with_method")
target = address.choice(boxes[3], "Changed maps explain", list(address.POLICIES), key="explains",
                      format_func=address.POLICIES.get)  # fmt: skip

pixels = case.pixels(artefacts, image, strength)
rows = case.rows(artefacts, image, strength, method=method, target=target)
classes = artefacts.names()


def class_text(variant: str) -> str:
    """Returns the class that the model predicts for a variant, with its probability."""
    if variant not in rows.index:
        return ""
    row = rows.loc[variant]
    number = int(row["prediction"])
    return f"{classes.get(number, f'class {number}')}, {row['probability']:.0%}"


facts = images.set_index("image").loc[image]
page.line(
    f"{facts['id']}: labelled {facts['class_name']}; "
    + ("the attack flips its class" if facts["success"] else "the attack does not flip its class")
)
with st.grid("auto", min_column_width=100):
    for variant, name in frame.ARMS.items():
        page.picture(tiles.enlarged(pixels[variant]), f"{name}: {class_text(variant)}")
    for variant in ("adversarial", "noise"):
        picture = tiles.change(pixels["clean"], pixels[variant], times)
        page.picture(picture, f"{frame.ARMS[variant]}: the added change, {times} times as large")
page.caption(
    "Below each picture: the class that the model predicts, with its probability. A change is "
    "shown around grey. The pixels are the model's input, rounded for the screen."
)

page.subheader("Maps of all layers")
look = st.segmented_control("Shown as", LOOKS, default=LOOKS[0], key="look", required=True,
                            bind="query-params")  # fmt: skip
page.chose("Change, times", times)
page.chose("Maps shown as", look)
maps = case.maps(artefacts, rows)


def tile(variant: str, place: int) -> np.ndarray:
    """Returns the picture of a variant's map at a layer."""
    layer = maps[variant][place]
    if look == "overlay":
        return tiles.overlay(pixels[variant], layer)
    shape = pixels["clean"].shape
    if look == "map":
        return tiles.heat(layer, shape)
    return tiles.difference(layer, maps["clean"][place], shape)


places = frame.page_of(labels)
with st.grid("auto", min_column_width=300):
    for i in places:
        label = labels[i]
        with st.container(border=True):
            page.markdown(f"**{label}**")
            with st.grid("auto", min_column_width=80):
                for variant in maps:
                    text = frame.ARMS[variant] + ("" if maps[variant][i].any() else " (empty)")
                    page.tile(tile(variant, i), text, alt=f"{method} at layer {label}, {text}")
page.caption(
    "Each map is divided by its own maximum: bright places support the class. A difference is "
    "orange where the changed map is stronger than the clean one and purple where it is weaker. An "
    "empty map has no evidence for its class."
)
try:
    pairs = frame.pairs(view, cell, strength=strength, target=target, method=method, score="cosine")
except FileNotFoundError as fault:
    frame.show_missing(view, fault)
else:
    profile_rows = pairs[pairs["image"] == image].set_index("layer").reindex(labels).reset_index()
    page.show(charts.profile(profile_rows, title=f"Similarity by layer at {percent(strength)}"))
if "judged" in evaluated:
    detector_scores = evaluated["judged"].query("cell == @cell and strength == @strength")
    detector_scores = detector_scores[detector_scores["image"] == image]
    page.subheader("Scores of the detectors")
    if detector_scores.empty:
        page.caption(
            "This image is not a test image of the detectors' evaluation at this strength."
        )
    else:
        limits = evaluated["limits"].query("cell == @cell and strength == @strength")
        table = detector_scores.set_index("kind").drop(columns=["cell", "strength", "image"]).T
        table = table.join(limits.set_index("detector")["limit"].rename("threshold"))
        page.table(table.reset_index(names="detector"), "scores", "Scores of the clean, noisy and "
                    "attacked image; adversarial at or above the threshold.")  # fmt: skip

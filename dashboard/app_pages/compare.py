"""One image under two choices side by side: two methods, layers, cells, strengths or networks."""

from dataclasses import dataclass
from typing import Any

import address
import charts
import frame
import numpy as np
import page
import pandas as pd
import streamlit as st
import tiles

from camdrift import storage
from camdrift.analysis.drawing import percent
from camdrift.ops import case
from camdrift.settings import RENKHOFF, ZHANG, LayerStudy, ManipulationStudy
from camdrift.storage import OWN

ARMS = frame.ARMS | {"negated": "attack, negated"}


@dataclass(frozen=True)
class Side:
    """One of the two: a cell of a study, and what its maps are of."""

    artefacts: case.Case
    layer: str
    strength: float
    method: str
    target: str

    @property
    def text(self) -> str:
        """The choices in a line."""
        whose = "own class" if self.target == OWN else "clean class"
        return (f"{self.artefacts.name} ({self.artefacts.cell.model}), layer {self.layer}, "
                f"{percent(self.strength)}, {self.method}, {whose}")  # fmt: skip

    @property
    def images(self) -> pd.DataFrame:
        """The images that were attacked, by id."""
        return self.artefacts.attacked.images.assign(id=lambda t: t["id"].astype(str))

    def tiles(self, name: str) -> dict[str, dict[str, Any]]:
        """Returns what is shown of each variant of an image: `picture, map, text`."""
        table = self.images.set_index("id")
        image, artefacts = int(table.loc[name, "image"]), self.artefacts
        how = {"method": self.method, "target": self.target}
        rows = case.rows(artefacts, image, self.strength, arms=tuple(ARMS), **how)
        pictures = case.pixels(artefacts, image, self.strength, arms=tuple(ARMS))
        place = artefacts.maps.layers["label"].tolist().index(self.layer)
        classes = artefacts.names()
        try:
            cosines = case.similarity(artefacts, image, self.strength, layer=self.layer, **how)
        except FileNotFoundError:  # maps without scores
            cosines = {}
        shown = {}
        for arm, layers in case.maps(artefacts, rows).items():
            number = int(rows.loc[arm, "prediction"])
            text = f"{ARMS[arm]}: {classes.get(number, f'class {number}')}"
            text += f", {rows.loc[arm, 'probability']:.0%}"
            if not layers[place].any():
                text += "; empty map"
            elif not np.isnan(cosine := cosines.get(arm, np.nan)):
                text += f"; cosine {cosine:.2f}"
            shown[arm] = {"picture": pictures[arm], "map": layers[place], "text": text}
        return shown


def choose(side: str, left: Side | None) -> Side:
    """Shows the choices of one side and returns it.

    The right side opens with the second method of the left one's cell, or with another cell where
    that one has one method.
    """
    plans = frame.plans(frame.current_settings())
    there = [name for name, plan in plans.items()
             if plan.paper in (RENKHOFF, ZHANG)
             and all(storage.shown(name, part).exists()
                     for part in ("settings.json", "tables/attacks.csv"))]  # fmt: skip
    above, more = st.container(), st.expander(f"Strength, class, study, {side}")
    study = address.choice(more, f"Study, {side}", there, key=f"study_{side}", default=view.study)
    own = frame.view_of(study)
    assert isinstance(own.plan, LayerStudy | ManipulationStudy)
    cells = own.tables["attacks"]["cell"].tolist()
    first = own.plan.headline
    if left is not None and left.artefacts.study == study:
        first = left.artefacts.name
        if len(left.artefacts.maps.methods) == 1:
            others = (name for name in cells if name != first and own.cells[name].attack != "none")
            first = next(others, first)
    cell = address.choice(above, f"Cell, {side}", cells, key=f"cell_{side}", default=first)
    artefacts = frame.open_case(own, cell)
    labels = artefacts.maps.layers["label"].tolist()
    layer = address.choice(above, f"Layer, {side}", labels, key=f"layer_{side}", default=labels[-1])
    strength = address.choice(more, f"Strength, {side}", artefacts.strengths, default=1.0,
                            key=f"strength_{side}", format_func=percent)  # fmt: skip
    methods = artefacts.maps.methods
    same = left is not None and (study, cell) == (left.artefacts.study, left.artefacts.name)
    method = address.choice(above, f"Method, {side}", methods, key=f"method_{side}",
                          default=methods[min(int(same), len(methods) - 1)])  # fmt: skip
    target = address.choice(more, f"Changed maps explain, {side}", list(address.POLICIES),
                          key=f"target_{side}", format_func=address.POLICIES.get)  # fmt: skip
    return Side(artefacts, layer, strength, method, target)


view = frame.view(RENKHOFF, ZHANG, subject="images to compare")
page.header("Compare")
places = st.columns(2)
with places[0]:
    left = choose("left", None)
with places[1]:
    sides = [left, choose("right", left)]
others = set(sides[1].images["id"])
names = [name for name in sides[0].images["id"] if name in others]
if not names:
    page.info("The two cells attack no image that is in both; choose cells of one image set.")
    st.stop()
boxes = st.columns(2)
name = address.choice(boxes[0], "Image", names, key="image")
opacity = boxes[1].slider("Opacity of the maps, %", 0, 100, 60, key="opacity", bind="query-params")
page.chose("Opacity of the maps", f"{opacity} %")
for box, side in zip(st.columns(2), sides, strict=True):
    box.markdown(f"**{page.plain(side.text)}**")
shown = [side.tiles(name) for side in sides]
for side, of in zip(sides, shown, strict=True):
    page.record_line(side.text)
    for tile in of.values():
        picture = tiles.overlay(tile["picture"], tile["map"], opacity / 100)
        page.record_picture(picture, tile["text"], alt=f"{side.text}, {tile['text']}")
chart = charts.beside(shown, opacity=opacity / 100)
st.plotly_chart(chart, config={"displaylogo": False}, key="beside",
                alt=f"Maps of image {name}: left {sides[0].text}; right {sides[1].text}",
                )  # fmt: skip
page.caption(
    "Maps over the model's input, each divided by its own maximum: bright places support the "
    "class. Above each: the predicted class with its probability, and the cosine similarity to "
    "the clean map of the same side. Zoom with the chart's buttons: all tiles follow."
)

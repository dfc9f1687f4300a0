"""Figures, whoever draws them."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from camdrift.analysis import drawing
from camdrift.analysis.drawing import COLOURS, Figure


def lines(*names: str, **more) -> Figure:
    table = pd.DataFrame(
        [(name, x, y) for name in names for x, y in (("a", 1.0), ("b", 2.0))],
        columns=["series", "x", "y"],
    )
    return Figure("lines", "", "", more.pop("kind", "lines"), table, "x", "y", **more)


@pytest.mark.parametrize("kind", ["lines", "bars", "points"])
def test_a_series_of_fixed_colour_keeps_it_whatever_others_are_there(kind):
    fixed = {"late": "#123456"}
    for names in (("late",), ("early", "late"), ("early", "middle", "late")):
        drawn = drawing.plotly(lines(*names, kind=kind, colours=fixed)).data
        colours = {
            trace.name: (trace.line.color if kind == "lines" else trace.marker.color)
            for trace in drawn
        }
        assert colours["late"] == "#123456"
        others = [colours[name] for name in names if name != "late"]
        assert others == list(COLOURS[: len(others)])


def test_the_png_has_the_fixed_colour(tmp_path):
    figure = lines("early", "late", kind="bars", colours={"late": "#12CC56"})
    drawing.png(figure, tmp_path / "f.png")
    pixels = np.asarray(Image.open(tmp_path / "f.png").convert("RGB")).reshape(-1, 3)
    assert (pixels == (0x12, 0xCC, 0x56)).all(axis=1).any()


def test_a_figure_without_values_is_not_written(tmp_path):
    blank, empty = lines("a"), lines()
    blank.table["y"] = np.nan
    boxes = Figure("boxes", "", "", "boxes", pd.DataFrame(
        {"series": ["s"], "x": ["a"], "median": [np.nan], "q1": 0, "q3": 0, "low": 0, "high": 0}
    ), "", "")  # fmt: skip
    assert [f.is_blank for f in (blank, empty, boxes)] == [True] * 3
    tile = np.zeros((4, 4, 3), dtype=np.uint8)
    shown = [lines("a"), drawing.panel("panel", "", "", [[tile]], ["one"], ["one"])]
    figures = drawing.write([blank, shown[0], empty, boxes, shown[1]], tmp_path)
    assert figures == shown
    assert {file.stem for file in tmp_path.iterdir()} == {"lines", "panel"}


def test_long_names_below_an_axis_do_not_lie_over_one_another():
    names = [f"layer{i}.{j}.conv{k}" for i in range(1, 5) for j in (0, 1) for k in (1, 2)]
    table = pd.DataFrame({"series": "a", "x": names, "y": range(len(names))})
    canvas = drawing.canvas(Figure("lines", "", "", "lines", table, "x", "y"))
    labels = canvas.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == names
    assert {label.get_rotation() for label in labels} == {45}
    short = drawing.canvas(lines("early"))
    assert {label.get_rotation() for label in short.axes[0].get_xticklabels()} == {0}

"""Figures, whoever draws them."""

import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from camdrift.analysis import drawing, panels
from camdrift.analysis.drawing import COLOURS, Figure
from camdrift.analysis.results import Example
from camdrift.papers.renkhoff2022.figures import by_name, figure_3


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


DEEP = ["conv1", *(f"layer{i}.{j}.conv{k}" for i, count in enumerate((3, 4, 6, 3), 1)
                   for j in range(count) for k in (1, 2, 3))]  # fmt: skip
DEEP = [*DEEP, *(f"layer{i}.0.downsample.0" for i in range(1, 5)), "a", "b"][:55]


def deep_tables(layers) -> dict[str, pd.DataFrame]:
    """Tables of a network of these layers, with a value for each line of each figure."""
    rng = np.random.default_rng(0)
    strengths, targets = (0.25, 0.5, 1.0, 2.0, 4.0), ("own_top1", "seed_class")
    facts = {
        "similarity": [("adversarial", "noise"), (0.0, *strengths), targets],
        "curves": [("adversarial", "noise"), strengths],
        "excess": [("success", "failure"), (1.0,), targets],
        "methods": [("success",), ("GradCAM", "LayerCAM"), targets],
        "factorial": [("attack", "noise"), (True, False), targets],
        "boundary": [targets],
        "compromised": [("attack", "noise"), strengths],
        "groups": [("flipped_own_class", "flipped_seed_class", "not_flipped"), strengths],
        "counts": [("attack", "noise"), strengths],
        "coverage": [("attack", "noise"), strengths],
    }
    columns = {
        "similarity": ["variant", "strength", "target"], "curves": ["variant", "strength"],
        "excess": ["group", "strength", "target"], "methods": ["group", "method", "target"],
        "factorial": ["arm", "flipped", "target"], "boundary": ["target"],
        "compromised": ["arm", "strength"], "groups": ["group", "strength"],
        "counts": ["arm", "strength"], "coverage": ["arm", "strength"],
    }  # fmt: skip
    same = {
        "cell": "c", "score": "cosine", "protocol": "as_published", "decided": True, "images": 20,
        "rule": "layer_median", "size_grey": 1.0, "step": 0.01, "neurons": 100,
    }  # fmt: skip
    tables = {}
    for name, kinds in facts.items():
        groups = pd.MultiIndex.from_product([*kinds, layers], names=[*columns[name], "layer"])
        table = groups.to_frame(index=False)
        value = rng.uniform(0.4, 0.6, len(table))
        spread = {"mean": 0, "low": -0.1, "high": 0.1, "q1": -0.05, "q3": 0.05, "median": 0,
                  "below": 0, "above": 0.1, "excess": 0, "excess_low": -0.1, "excess_high": 0.1,
                  "share": 0, "coverage": 0}  # fmt: skip
        table = table.assign(**{k: value + v for k, v in spread.items()}, seeds=len(layers))
        table = table.assign(**{k: v for k, v in same.items() if k not in table})
        for column, only in (("group", "success"), ("target", "own_top1")):
            table = table if column in table else table.assign(**{column: only})
        if name == "groups":
            table = table.assign(variant="adversarial", layer="mean").drop_duplicates(
                ["group", "strength"]
            )
        if name == "counts":
            table["layers"] = table["layer"].map(list(layers).index)
        tables[name] = table
    return tables


def deep_example(layers) -> Example:
    rng = np.random.default_rng(0)
    maps = [rng.uniform(size=(3, 7, 7)).astype(np.float32) for _ in layers]
    pictures = np.zeros((3, 32, 32, 3), np.uint8)
    return Example(pictures, maps, ["clean", "attack", "noise"], list(layers))


def apart(labels, canvas) -> bool:
    """Whether no label lies over another: of bounding boxes, or at 45 degrees of lines of text."""
    renderer = canvas.canvas.get_renderer()
    shown = [label for label in labels if label.get_text()]
    if {label.get_rotation() for label in shown} == {45}:
        places = [label.get_transform().transform(label.get_position())[0] for label in shown]
        height = max(label.get_fontsize() for label in shown) * 1.2 * canvas.dpi / 72
        return bool((np.diff(places) / 2**0.5 >= height).all())
    boxes = [label.get_window_extent(renderer) for label in shown]
    return not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("layers", [DEEP, [f"block {i}" for i in range(110)], DEEP[:14]])
def test_no_label_lies_over_another_with_many_layers(layers):
    tables = deep_tables(layers)
    drawn = [*(draw() for draw in by_name(tables, "c").values()), figure_3(deep_example(layers))]
    assert len(drawn) == 16
    for figure in drawn:
        assert not figure.is_blank, figure.name
        canvas = drawing.canvas(figure)
        canvas.canvas.draw()
        renderer, page = canvas.canvas.get_renderer(), canvas.bbox
        for axes in canvas.axes:
            labels = axes.get_xticklabels()
            assert apart(labels, canvas), figure.name
            assert apart(axes.get_yticklabels(), canvas), figure.name
            boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
            below = axes.xaxis.label.get_window_extent(renderer)
            assert not axes.xaxis.label.get_text() or not any(b.overlaps(below) for b in boxes)
            assert all(b.y0 >= page.y0 for b in boxes), figure.name
            legend = axes.get_legend()
            if legend is not None:
                whole = legend.get_window_extent(renderer)
                assert not any(box.overlaps(whole) for box in boxes), figure.name
        title = canvas.axes[0].title.get_window_extent(renderer)
        assert page.y0 < title.y0 < title.y1 <= page.y1, figure.name


@pytest.mark.parametrize("layers", [DEEP, [f"block {i}" for i in range(110)], DEEP[:14]])
def test_the_maps_of_a_deep_network_are_large_enough_to_be_seen(layers):
    figure = figure_3(deep_example(layers))
    canvas = drawing.canvas(figure)
    canvas.canvas.draw()
    shown = [label.get_text() for axes in canvas.axes for label in axes.get_xticklabels()]
    assert shown == ["image", *layers]
    columns = len(canvas.axes[0].get_xticks())
    assert columns <= panels.MOST
    for axes in canvas.axes:
        wide = axes.get_window_extent().width / columns
        assert wide > 50  # px
    boxes = [axes.get_tightbbox(canvas.canvas.get_renderer()) for axes in canvas.axes]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))


def test_bands_hold_the_whole_panel():
    picture = np.random.default_rng(0).integers(0, 255, (6, 55 * 4, 3), dtype=np.uint8)
    names = [str(i) for i in range(55)]
    parts = panels.bands(picture, names, wrap=True)
    assert [len(part.columns) for part in parts] == [14, 14, 14, 13]
    assert [name for part in parts for name in part.columns] == names
    assert (np.concatenate([part.picture for part in parts], axis=1) == picture).all()
    assert parts[1].places[:2] == [2.0, 6.0]
    (whole,) = panels.bands(picture[:, : 4 * 16], names[:16], wrap=True)
    assert len(whole.columns) == 16
    (whole,) = panels.bands(picture, names, wrap=False)
    assert list(whole.columns) == names


def test_plotly_has_every_layer_and_its_legend_above():
    drawn = [
        *(draw() for draw in by_name(deep_tables(DEEP), "c").values()),
        figure_3(deep_example(DEEP)),
    ]
    for figure in drawn:
        chart = drawing.plotly(figure)
        if figure.panel is not None:
            texts = [axis.ticktext for axis in chart.select_xaxes()]
            assert [text for part in texts for text in part] == ["image", *DEEP]
            assert len(chart.data) == 4
            continue
        assert chart.layout.legend.y == 1
        assert chart.layout.legend.yanchor == "bottom"
        if figure.names == DEEP:
            assert (chart.layout.xaxis.dtick, chart.layout.xaxis.tickangle) == (1, -90)

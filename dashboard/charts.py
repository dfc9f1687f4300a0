"""Charts of the dashboard alone: those that react to a click or a slider."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.colors
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from camdrift import scores
from camdrift.analysis import drawing
from camdrift.analysis.drawing import COLOURS, Figure
from camdrift.papers.findings import HOLDS, NO_EFFECT, NOT, NOT_RUN, PARTLY, UNDECIDED, VERDICTS

MEASURES = {
    "excess": "excess drift",
    "adversarial": "similarity under attack",
    "noise": "similarity under noise",
}
# A verdict has the same colour in every chart, whichever verdicts the chart shows.
VERDICT_COLOURS = {
    HOLDS: COLOURS[2], PARTLY: COLOURS[6], NOT: COLOURS[1], NO_EFFECT: COLOURS[5],
    UNDECIDED: COLOURS[4], NOT_RUN: "#D0D0D0",
}  # fmt: skip


def light(colour: str) -> str:
    """Returns a colour, `#RRGGBB`, mixed with white until black letters on it are easy to read."""
    white, parts = (255, 255, 255), plotly.colors.hex_to_rgb(colour)
    mixed = plotly.colors.find_intermediate_color(white, parts, 0.45)
    return "#" + "".join(f"{round(part):02X}" for part in mixed)


def verdicts(table: pd.DataFrame) -> Figure:
    """Returns the number of claims of each paper with each verdict, corrected."""
    counts = table.groupby(["verdict", "paper"], sort=False).size().rename("y").reset_index()
    order = {verdict: place for place, verdict in enumerate(VERDICTS)}
    counts = counts.sort_values("verdict", key=lambda column: column.map(order), kind="stable")
    return Figure(
        "verdicts", "Published claims by verdict",
        "Each claim's statistic and threshold were fixed before any result, unless its source says "
        "'seen'; verdicts are those of the corrected experiment, on this study's own images and "
        "model.",
        "bars", counts.rename(columns={"verdict": "series", "paper": "x"}), "paper", "claims",
        colours=VERDICT_COLOURS,
    )  # fmt: skip


def strip(values: pd.DataFrame, *, title: str, measure: str) -> Figure:
    """Returns a strip, rows by strength, method or control, columns by layer.

    `values` are rows `row, layer, value`; `measure` is of `MEASURES`.
    """
    drift = measure == "excess"
    reach = float(np.nanmax(np.abs(values["value"]), initial=0.01))
    caption = "A column is a layer. " + (
        "Excess drift is the similarity to the clean map under noise of the attack's size minus "
        "that under attack; above 0 (orange) the attack moves maps further than noise. A field is "
        "blank where too many maps are empty."
        if drift
        else "Mean similarity to the clean map; 1 (bright) means that the map did not move."
    )
    table = values.rename(columns={"row": "series", "layer": "x", "value": "y"})
    return Figure("strip", title, caption, "matrix", table[["series", "x", "y"]],
                  "conv layer (block-conv, input to output)", "",
                  (-reach if drift else 0.0, reach if drift else 1.0))  # fmt: skip


def clickable(figure: Figure, counts: pd.Series) -> Any:
    """Returns a strip with `[row, layer]` in each field, which a click selects.

    `counts` are images by field, in the order of the figure's table.
    """
    wide, low, high = drawing.matrix(figure)
    drift = low < 0
    chart = go.Figure()
    chart.add_heatmap(
        z=wide.to_numpy(), x=list(wide.columns), y=list(wide.index), zmin=low, zmax=high,
        colorscale="PuOr_r" if drift else "Viridis", hoverinfo="skip",
        colorbar={"title": "excess" if drift else "similarity", "thickness": 12},
    )  # fmt: skip
    rows = figure.table
    texts = [
        f"{row.series}, layer {row.x}: "
        + (f"{row.y:.3f}, {count:.0f} images" if pd.notna(row.y) else "too many empty maps")
        for row, count in zip(rows.itertuples(), counts, strict=True)
    ]
    chart.add_scatter(
        x=rows["x"], y=rows["series"], mode="markers", customdata=rows[["series", "x"]].to_numpy(),
        marker={"size": 24, "opacity": 0.01, "symbol": "square"}, text=texts, hoverinfo="text",
        showlegend=False,
    )  # fmt: skip
    chart.update_layout(
        title={"text": figure.title, "font": {"size": 15}}, template="plotly_white",
        height=170 + 34 * len(wide), margin={"l": 60, "r": 10, "t": 50, "b": 50},
        xaxis={"title": figure.x, "type": "category"}, hovermode="closest", hoverdistance=-1,
        yaxis={"type": "category", "autorange": "reversed"}, clickmode="event+select",
    )  # fmt: skip
    return chart


def two_excesses(cells: Mapping[str, pd.DataFrame]) -> Figure:
    """Returns the excess drift of two cells by layer.

    `cells` hold rows `layer, mean, low, high, decided` in forward order, by the cell's name. Layers
    of one network have their names; those of two stand at their depth, from 0 to 1.
    """
    first, second = (rows["layer"].tolist() for rows in cells.values())
    parts = []
    for name, rows in cells.items():
        part = rows.rename(columns={"mean": "y"}).assign(series=name, x=rows["layer"])
        if first != second:
            part["x"] = np.linspace(0, 1, len(rows))
        part.loc[~part["decided"].astype(bool), ["y", "low", "high"]] = np.nan
        parts.append(part[["series", "x", "y", "low", "high"]])
    axis = "layer, input to output" if first == second else (
        "depth (0: first layer with a map, 1: last one)"
    )  # fmt: skip
    return Figure(
        "two_excesses", " and ".join(cells),
        "Excess drift at strength 100 %: similarity to the clean map under noise of the attack's "
        "size minus that under attack, with 95 % intervals by source picture. A layer with too "
        "many empty maps is left out.",
        "lines", pd.concat(parts, ignore_index=True), axis,
        "excess drift (difference of cosine)",
    )  # fmt: skip


def two_evaluations(cells: Mapping[str, pd.DataFrame]) -> Figure:
    """Returns the AUROC of detectors on two cells, of those that were tried on both.

    `cells` hold rows `detector, auroc, auroc_low, auroc_high` by the cell's name.
    """
    first, second = (set(rows["detector"]) for rows in cells.values())
    columns = {"detector": "x", "auroc": "y", "auroc_low": "low", "auroc_high": "high"}
    parts = [
        rows[rows["detector"].isin(first & second)].rename(columns=columns).assign(series=name)
        for name, rows in cells.items()
    ]
    return Figure(
        "two_evaluations", " and ".join(cells),
        "AUROC at strength 100 % of each detector that was tried on both, flipped images against "
        "clean and noisy ones, with 95 % intervals by source picture; 0.5 is chance.",
        "bars", pd.concat(parts, ignore_index=True)[["series", "x", "y", "low", "high"]],
        "detector", "AUROC", (0.0, 1.0),
    )  # fmt: skip


def spread(rows: pd.DataFrame, *, score: str, title: str) -> Figure:
    """Returns the distribution of a similarity over images, under attack and under noise."""
    module = scores.by_name()[score]
    values = rows[["adversarial", "noise"]].to_numpy()
    low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=module.RANGE[0])
    if module.RANGE[1] <= 1:
        first = int(np.floor(20 * low))
        edges, steps = np.linspace(first / 20, 1, 21 - first), "steps of 0.05"
    else:
        edges, steps = np.linspace(low, max(high, low + 1e-9), 21), "twenty steps"
    identity = module.RANGE[module.HIGHER_IS_ALIKE]
    parts = []
    for name, label in (("adversarial", "attack"), ("noise", "matched noise")):
        counts, _ = np.histogram(rows[name].dropna(), bins=edges)
        middles = [f"{x:.3f}" for x in (edges[:-1] + edges[1:]) / 2]
        parts.append(pd.DataFrame({"series": label, "x": middles, "y": counts}))
    return Figure(
        "spread", title,
        f"Number of images by the {module.LABEL} of their changed map and their clean one, in "
        f"{steps}; {identity:g} means that the map did not move. Images with an empty map are left "
        "out.",
        "bars", pd.concat(parts), f"{module.LABEL}, middle of the step", "images",
    )  # fmt: skip


def profile(rows: pd.DataFrame, *, title: str) -> Figure:
    """Returns one image's similarities by layer, under attack and under noise."""
    parts = [
        rows.assign(series=label, x=rows["layer"], y=rows[name])[["series", "x", "y"]]
        for name, label in (("adversarial", "attack"), ("noise", "matched noise"))
    ]
    return Figure(
        "profile", title,
        "Cosine similarity of this image's changed map to its clean map at each layer; 1 means "
        "that the map did not move. A layer with an empty map has no point.",
        "lines", pd.concat(parts), "conv layer (block-conv, input to output)",
        "cosine similarity", (0.0, 1.02),
    )  # fmt: skip


def bins(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Returns the edges of a histogram's 30 bins, and the number of each value's bin, from 0.

    A bin holds its lower edge; the last one holds its upper edge, too.
    """
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-6), 31)
    return edges, np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def histogram(rows: pd.DataFrame, detector: str) -> Figure:
    """Returns the histogram of a detector's scores of test images, by kind."""
    kinds = {"clean": "clean", "noise": "matched noise", "failure": "attack, class kept",
             "success": "attack, class flipped"}  # fmt: skip
    rows, parts = rows[rows[detector].notna()], []
    edges, places = bins(rows[detector])
    middles = [f"{x:.4g}" for x in (edges[:-1] + edges[1:]) / 2]
    for kind, label in kinds.items():
        part = places[rows["kind"] == kind]
        if len(part):
            counts = np.bincount(part, minlength=len(middles))
            parts.append(pd.DataFrame({"series": label, "x": middles, "y": counts}))
    return Figure(
        "histogram", f"Scores of {detector}, test images",
        "Number of test images by score; higher is more adversarial. The dashed line is the "
        "threshold: an image at or above it is called adversarial. It starts at the threshold "
        "that was chosen on other images, where there is one; a threshold that you move here is "
        "tuned on the test images, so its rates are no test.",
        "bars", pd.concat(parts), "score of the detector, no unit", "images",
        colours=dict(zip(kinds.values(), COLOURS, strict=False)),
    )  # fmt: skip


def with_threshold(figure: Figure, limit: float) -> Any:
    """Returns a histogram with a line at a threshold."""
    chart = drawing.plotly(figure)
    # A tick for each of many bins, as names have it, would be one for each whole number.
    chart.update_xaxes(type="linear", dtick=None, tickangle=None)
    # The bin, for a click: as lists, since Plotly's browser makes objects of rows of numbers.
    chart.update_traces(customdata=[[place] for place in range(len(chart.data[0].x))])
    chart.update_layout(barmode="stack")
    chart.add_vline(x=limit, line={"color": COLOURS[1], "dash": "dash"})
    return chart


def plane(points: pd.DataFrame, *, colour: str, caption: str) -> Figure:
    """Returns the plane of signatures, coloured by a column."""
    table = points.assign(series=points[colour].astype(str))[["series", "x", "y", "on", "image"]]
    return Figure(
        "plane", "Relevance signatures of images", caption, "points",
        table.sort_values("series", kind="stable"), "UMAP 1 (no unit)", "UMAP 2 (no unit)",
    )  # fmt: skip


def with_points(figure: Figure) -> Any:
    """Returns a plane with `[on, image]` in each mark, which a click selects."""
    chart = drawing.plotly(figure)
    for trace, (_, rows) in zip(
        chart.data, figure.table.groupby("series", sort=False), strict=True
    ):
        trace.customdata = rows[["on", "image"]].to_numpy()
        trace.hovertemplate = "%{customdata[0]}, image %{customdata[1]}"
    chart.update_layout(height=560, clickmode="event+select")
    return chart


def beside(sides: Sequence[dict[str, dict[str, Any]]], *, opacity: float) -> Any:
    """Returns two columns of pictures under their maps, which zoom together.

    `sides` hold, by variant, a `picture` (h, w, c) in [0, 1], a `map` (h, w) in [0, 1], a `text`.
    """
    arms = [arm for arm in sides[0] if arm in sides[1]]
    titles = [textwrap.fill(side[arm]["text"], 24).replace("\n", "<br>")
              for arm in arms for side in sides]  # fmt: skip
    chart = make_subplots(len(arms), 2, subplot_titles=titles, vertical_spacing=0.16 / len(arms),
                          horizontal_spacing=0.04)  # fmt: skip
    for row, arm in enumerate(arms, start=1):
        for column, side in enumerate(sides, start=1):
            levels = (255 * side[arm]["picture"]).round().astype(np.uint8)
            height, width = levels.shape[:2]
            picture = np.broadcast_to(levels, (height, width, 3))
            # Places are shares of the sides, so that images of two sizes zoom together.
            chart.add_image(z=picture, x0=0.5 / width, dx=1 / width, y0=0.5 / height,
                            dy=1 / height, hoverinfo="skip", row=row, col=column)  # fmt: skip
            values = side[arm]["map"]
            h, w = values.shape
            chart.add_heatmap(
                z=values, x0=0.5 / w, dx=1 / w, y0=0.5 / h, dy=1 / h, zmin=0, zmax=1,
                opacity=opacity, coloraxis="coloraxis", hovertemplate="%{z:.2f}<extra></extra>",
                row=row, col=column,
            )  # fmt: skip
    chart.update_xaxes(matches="x", range=[0, 1], showticklabels=False, constrain="domain")
    chart.update_yaxes(matches="y", range=[1, 0], showticklabels=False, constrain="domain")
    chart.update_annotations(font_size=12)
    chart.update_layout(
        template="plotly_white", height=120 + 330 * len(arms), dragmode=False,
        margin={"l": 5, "r": 5, "t": 50, "b": 70},
        coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": 1,
                   "colorbar": {"title": "map, share of its maximum", "thickness": 10,
                                "orientation": "h", "y": 0, "yanchor": "top"}},
    )  # fmt: skip
    return chart

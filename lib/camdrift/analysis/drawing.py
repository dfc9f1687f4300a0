"""Drawing: a `Figure`, independent of its library, and its rendering by Plotly and matplotlib.

Plotly serves the report and the dashboard; the PNG, for the README and `dvc plots`, is drawn by
matplotlib, since Plotly's own export requires a browser on the machine.
"""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from camdrift.analysis import layout, panels
from camdrift.settings.section import sides
from camdrift.storage import files

# Okabe and Ito's palette, distinct for people with any colour vision, with a grey for its black,
# which a dark page would hide; marks and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
MATPLOTLIB_DASHES = ("-", "--", ":", "-.", (0, (7, 2)), (0, (7, 2, 1, 2)), "-")
MARKS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
MATPLOTLIB_MARKS = ("o", "s", "D", "^", "x", "P", "*")


@dataclass(frozen=True)
class Figure:
    """The content of a figure, independent of the drawing library.

    name: of its files and its anchor.
    title: its content, in a few words.
    caption: how to read it, in plain sentences.
    kind: 'lines', 'points', 'bars', 'boxes', 'matrix' (rows are series) or 'panel'.
    table: columns `series, x, y` and, where known, `low, high`; for boxes `q1, median, q3, low,
        high` in place of `y`; for points also `from_x, from_y`, from where a line leads to the
        point; for a panel nothing.
    x, y: labels of the axes, with units.
    y_range: of the y axis, or None.
    log_x: whether the x axis is logarithmic.
    panel: a composed picture and the labels of its columns and rows, for a panel.
    wrap: whether the columns of a panel, if they are many, may stand in bands below each other.
    images: whether it holds images of the set, whose licence may forbid redistribution; its PNG
        is marked.
    colours: of series by name, for series with a fixed colour; the others are coloured by their
        place.
    """

    name: str
    title: str
    caption: str
    kind: str
    table: pd.DataFrame
    x: str
    y: str
    y_range: tuple[float, float] | None = None
    log_x: bool = False
    panel: tuple[np.ndarray, list[str], list[str]] | None = None
    wrap: bool = False
    images: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to draw: no picture, and no value of any series."""
        column = "median" if self.kind == "boxes" else "y"
        return self.panel is None and bool(self.table[column].isna().all())

    @property
    def names(self) -> list[str]:
        """The names below the axis, none where it has numbers, or of a panel."""
        if self.panel is not None or pd.api.types.is_numeric_dtype(self.table["x"]):
            return []
        return [str(name) for name in dict.fromkeys(self.table["x"])]

    def colour(self, name: str, place: int) -> str:
        """Returns the colour of a series by its name, or by its place among the series."""
        return self.colours.get(name, COLOURS[place % len(COLOURS)])


def panel(
    name: str,
    title: str,
    caption: str,
    tiles: list[list[np.ndarray]],
    columns: list[str],
    rows: list[str],
    *,
    x: str = "",
    images: bool = True,
    wrap: bool = False,
) -> Figure:
    """Returns a figure of pictures, uint8 (h, w, 3 or 1) of one size, in rows and columns."""
    tiles = [[in_colours(tile) for tile in row] for row in tiles]
    gap = max(2, tiles[0][0].shape[0] // 16)
    edge = ((0, gap), (0, gap), (0, 0))
    joined = [
        np.concatenate([np.pad(t, edge, constant_values=255) for t in row], axis=1) for row in tiles
    ]
    table = pd.DataFrame(columns=["series", "x", "y"])
    whole = np.concatenate(joined), columns, rows
    return Figure(
        name, title, caption, "panel", table, x, "", panel=whole, wrap=wrap, images=images
    )


def in_colours(picture: np.ndarray) -> np.ndarray:
    """Returns a picture (h, w, 3), or a grey one (h, w, 1), as (h, w, 3)."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def coloured(layer: np.ndarray, size: int | Sequence[int]) -> np.ndarray:
    """Returns a map in [0, 1] as a viridis picture, uint8 (height, width, 3), nearest pixels.

    `size` is the picture's side in px, or its height and width.
    """
    import matplotlib as mpl

    return (mpl.colormaps["viridis"](nearest(layer, sides(size)))[..., :3] * 255).astype(np.uint8)


def nearest(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Returns values (h, w, ...) at a height and a width by nearest pixels: (*size, ...)."""
    pairs = zip(values.shape[:2], size, strict=True)
    rows, columns = (np.arange(large) * small // large for small, large in pairs)
    return values[rows][:, columns]


def percent(strength: float) -> str:
    """Returns '25 %' for 0.25."""
    return f"{100 * strength:g} %"


def matrix(figure: Figure) -> tuple[pd.DataFrame, float, float]:
    """Returns the values of a matrix figure, a row for each series, and the ends of its colours."""
    table = figure.table
    wide = table.pivot(index="series", columns="x", values="y")
    wide = wide.loc[table["series"].unique(), table["x"].unique()]
    return wide, *(figure.y_range or (wide.min(axis=None), wide.max(axis=None)))


def plotly(figure: Figure) -> Any:
    """Returns a `plotly.graph_objects.Figure`."""
    import plotly.graph_objects as go

    chart = go.Figure()
    table = figure.table
    if len(table) and not pd.api.types.is_numeric_dtype(table["x"]):
        table = table.assign(x=table["x"].map(plain))
    series = [(str(name), rows) for name, rows in table.groupby("series", sort=False)]
    if figure.kind == "matrix":
        wide, low, high = matrix(figure)
        chart.add_heatmap(
            z=wide.to_numpy(), x=list(wide.columns.map(plain)), y=list(wide.index.map(plain)),
            zmin=low, zmax=high,
            colorscale="Viridis", texttemplate="%{z:.2f}",
        )  # fmt: skip
        chart.update_yaxes(autorange="reversed")
        series = []
    links = _links(figure)
    if links is not None:
        chart.add_scatter(
            x=links[0], y=links[1], mode="lines", line={"color": "#999999", "width": 0.8},
            hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    for i, (own, rows) in enumerate(series):
        name, colour = plain(own), figure.colour(own, i)
        if figure.kind == "boxes":
            chart.add_box(
                name=name, x=rows["x"], q1=rows["q1"], median=rows["median"], q3=rows["q3"],
                lowerfence=rows["low"], upperfence=rows["high"], marker_color=colour,
            )  # fmt: skip
        elif figure.kind == "bars":
            chart.add_bar(
                name=name, x=rows["x"], y=rows["y"], marker_color=colour,
                error_y=_bars(rows, color="#777777"),
            )  # fmt: skip
        elif figure.kind == "points":
            chart.add_scatter(
                name=name, x=rows["x"], y=rows["y"], mode="markers",
                marker={"color": colour, "symbol": MARKS[(i + i // len(COLOURS)) % len(MARKS)],
                        "size": 7, "opacity": 0.75},
            )  # fmt: skip
        else:
            many = len(rows) > 30
            # A layer between two that are left out has no line, so names always have marks.
            chart.add_scatter(
                name=name, x=rows["x"], y=rows["y"], error_y=_bars(rows),
                mode="lines" if many and not figure.names else "lines+markers",
                line={"color": colour, "dash": DASHES[i % len(DASHES)]},
                marker={"symbol": MARKS[i % len(MARKS)], "size": 4 if many else 7},
            )  # fmt: skip
    if figure.panel is not None:
        picture, columns, rows = figure.panel
        chart = panels.plotly(picture, _lines(columns), _lines(rows), x=figure.x, wrap=figure.wrap)
        return chart.update_layout(**_page(figure, top=50))
    if figure.kind != "matrix":
        categorical = not pd.api.types.is_numeric_dtype(figure.table["x"])
        chart.update_xaxes(type="category" if categorical else "log" if figure.log_x else "linear")
        chart.update_yaxes(range=figure.y_range)
    names = figure.names
    if not layout.fits(names):
        chart.update_xaxes(tickangle=-90, tickfont={"size": 9}, dtick=1)
    chart.update_xaxes(title=figure.x)
    chart.update_yaxes(title=figure.y)
    # Above the chart: below it, the legend would lie on the names of the layers.
    top = 50 + (22 * layout.legend_rows([name for name, _ in series]) if len(series) > 1 else 0)
    chart.update_layout(
        **_page(figure, top=top),
        height=390 + top,
        showlegend=len(series) > 1,
        boxmode="group",
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    )
    return chart


def _page(figure: Figure, *, top: int) -> dict:
    """Returns a chart's title, template and margins in Plotly's format; `top` in px."""
    return {
        "title": {"text": plain(figure.title), "font": {"size": 15}, "yref": "container",
                  "y": 1.0, "yanchor": "top", "pad": {"t": 12}},
        "template": "plotly_white",
        "margin": {"l": 60, "r": 20, "t": top, "b": 60},
    }  # fmt: skip


def plain(text: object) -> str:
    """Returns a text escaped for Plotly, which interprets some tags as markup."""
    return html.escape(str(text), quote=False)


def _lines(texts: list[str]) -> list[str]:
    return [plain(text).replace("\n", "<br>") for text in texts]


def _links(figure: Figure) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the lines that lead to points, one after another, separated by NaN."""
    if "from_x" not in figure.table:
        return None
    ends = figure.table[["from_x", "x", "from_y", "y"]].dropna().to_numpy(dtype=float)
    gap = np.full((len(ends), 1), np.nan)
    x, y = (np.concatenate([part, gap], axis=1).ravel() for part in (ends[:, :2], ends[:, 2:]))
    return x, y


def _reach(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series] | None:
    """Returns the distances from values to the lower and upper ends of their intervals."""
    return (rows["y"] - rows["low"], rows["high"] - rows["y"]) if "low" in rows else None


def _bars(rows: pd.DataFrame, **style: str) -> dict | None:
    """Returns intervals in Plotly's format; without a colour they have that of their line."""
    reach = _reach(rows)
    if reach is None:
        return None
    return {"type": "data", "array": reach[1], "arrayminus": reach[0], "thickness": 1} | style


def write(figures: Sequence[Figure], folder: Path) -> list[Figure]:
    """Writes figures as PNGs, named by the figure, and returns those that were written.

    Blank figures are left out: a cell may lack a protocol, or have no image of a kind.
    """
    visible = [figure for figure in figures if not figure.is_blank]
    for figure in tqdm(visible, desc="figures", unit="figure"):
        png(figure, folder / f"{figure.name}.png")
    return visible


def png(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG atomically."""
    with files.whole(path) as temporary:
        temporary.write_bytes(rendered(figure))


def rendered(figure: Figure, *, form: str = "png", dpi: int | None = None) -> bytes:
    """Returns the figure as a PNG or SVG, the same bytes for the same figure; `dpi` is a PNG's."""
    from matplotlib import rc_context

    content = io.BytesIO()
    note: dict[str, Any] = {"Description": HOLDS_IMAGES} if figure.images else {}
    note |= {"Software" if form == "png" else "Date": None}
    with rc_context({"svg.hashsalt": figure.name}):  # else ids of an SVG are drawn at random
        canvas(figure).savefig(content, format=form, dpi=dpi or "figure", metadata=note)
    return content.getvalue()


def canvas(figure: Figure) -> Any:
    """Returns the figure as a matplotlib figure, with title, axes and legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    if figure.panel is not None:
        picture, *texts = figure.panel
        columns, rows = ([_literal(text) for text in part] for part in texts)
        title = _literal(figure.title)
        return panels.canvas(picture, columns, rows, title=title, x=figure.x, wrap=figure.wrap)
    wide, high = layout.inches(figure.names)
    page = Canvas(figsize=(wide, high), dpi=110)
    FigureCanvasAgg(page)
    axes = page.add_subplot()
    _draw(figure, axes)
    axes.set_title(_literal(figure.title), fontsize=11)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    if figure.y_range is not None and figure.kind != "matrix":
        axes.set_ylim(*figure.y_range)
    if figure.log_x:
        axes.set_xscale("log")
    if figure.kind != "matrix":
        axes.grid(alpha=0.25)
        if figure.table["series"].nunique() > 1:
            many = figure.table["series"].nunique() > 9
            axes.legend(fontsize=6 if many else 8, framealpha=0.9, ncols=2 if many else 1)
    if figure.names:
        layout.turn_crowded(axes, wide)
    page.tight_layout()
    return page


def _literal(text: object) -> str:
    """Returns a text escaped for matplotlib: a dollar begins a formula, _ hides a line."""
    literal = str(text).replace("$", r"\$")
    return f" {literal}" if literal.startswith("_") else literal


HOLDS_IMAGES = "Holds images of the set."


def holds_images(file: Path) -> bool:
    """Returns whether a PNG that `png` wrote holds images of the set."""
    with Image.open(file) as picture:
        return picture.info.get("Description") == HOLDS_IMAGES


def _draw(figure: Figure, axes: Any) -> None:
    groups = list(figure.table.groupby("series", sort=False))
    # Series may have different places: each is where it first occurs.
    order = {name: i for i, name in enumerate(dict.fromkeys(figure.table["x"]))}
    names = [_literal(name) for name in order]
    if figure.kind == "matrix":
        wide, low, high = matrix(figure)
        axes.imshow(wide, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axes.set_xticks(range(wide.shape[1]), wide.columns.map(_literal), fontsize=8)
        axes.set_yticks(range(wide.shape[0]), wide.index.map(_literal), fontsize=8)
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            if not np.isnan(value):
                colour = "white" if value < (low + high) / 2 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
        return
    links = _links(figure)
    if links is not None:
        axes.plot(*links, color="#999999", linewidth=0.6, zorder=0)
    for i, (own, rows) in enumerate(groups):
        name, colour = _literal(own), figure.colour(str(own), i)
        if figure.kind == "boxes":
            stats = [
                {"med": r.median, "q1": r.q1, "q3": r.q3, "whislo": r.low, "whishi": r.high,
                 "label": _literal(r.x)}
                for r in rows.itertuples()
            ]  # fmt: skip
            alone, width = len(groups) == 1, 0.85 / len(groups)
            places = 1 + rows["x"].map(order) + (i - (len(groups) - 1) / 2) * width
            axes.bxp(stats, showfliers=False, patch_artist=True, manage_ticks=alone,
                     positions=None if alone else places, widths=None if alone else 0.8 * width,
                     boxprops={"facecolor": "#cfe4f3" if alone else f"{colour}55",
                               "edgecolor": colour},
                     medianprops={"color": COLOURS[1] if alone else colour, "linewidth": 1.6},
                     label=None if alone else str(name))  # fmt: skip
            if not alone:
                axes.set_xticks(np.arange(1, len(order) + 1), names)
        elif figure.kind == "bars":
            width = 0.85 / len(groups)
            places = rows["x"].map(order) + (i - (len(groups) - 1) / 2) * width
            axes.bar(places, rows["y"], width, label=name, color=colour, yerr=_reach(rows),
                     error_kw={"capsize": 2, "elinewidth": 1})  # fmt: skip
            rotation = {"rotation": 30, "ha": "right"} if max(map(len, names)) > 6 else {}
            axes.set_xticks(np.arange(len(order)), names, **rotation)
        elif figure.kind == "points":
            mark = MATPLOTLIB_MARKS[(i + i // len(COLOURS)) % len(MATPLOTLIB_MARKS)]
            axes.scatter(rows["x"], rows["y"], s=22, color=colour, marker=mark, label=name,
                         alpha=0.75, linewidths=0.8)  # fmt: skip
        else:
            many = len(rows) > 30
            mark = MATPLOTLIB_MARKS[i % len(MATPLOTLIB_MARKS)]
            style = {
                "color": colour, "label": name, "linewidth": 1.6,
                "markersize": 2.5 if many else 4.5,
                "linestyle": MATPLOTLIB_DASHES[i % len(MATPLOTLIB_DASHES)],
                "marker": None if many and not figure.names else mark,
            }  # fmt: skip
            reach = _reach(rows)
            axes.errorbar(rows["x"], rows["y"], yerr=reach, capsize=2, elinewidth=1, **style)

"""Panels: pictures in rows and columns, drawn in bands by Plotly and matplotlib.

Texts are those of the drawing library, escaped by the caller.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camdrift.analysis import layout

MOST = 16  # columns in one band of a panel that may stand in several
TEXT = 8  # points


@dataclass(frozen=True)
class Band:
    """A part of a panel that stands below the parts before it.

    picture: uint8 (h, w, 3).
    columns: its labels.
    places: of the middles of its columns, in px.
    """

    picture: np.ndarray
    columns: Sequence[str]
    places: list[float]


def bands(picture: np.ndarray, columns: Sequence[str], *, wrap: bool) -> list[Band]:
    """Returns a panel as one band or, to `wrap`, in bands of at most `MOST` columns, about equal.

    Maps of a deep network side by side in one row would be too small to see anything in them.
    """
    width = picture.shape[1] // len(columns)
    each = math.ceil(len(columns) / math.ceil(len(columns) / MOST)) if wrap else len(columns)
    parts = []
    for start in range(0, len(columns), each):
        own = columns[start : start + each]
        part = picture[:, start * width : (start + each) * width]
        parts.append(Band(part, own, [(i + 0.5) * width for i in range(len(own))]))
    return parts


def plotly(
    picture: np.ndarray, columns: Sequence[str], rows: Sequence[str], *, x: str, wrap: bool
) -> Any:
    """Returns a panel as a `plotly.graph_objects.Figure` with its height, without a title."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    parts = bands(picture, columns, wrap=wrap)
    high = sum(_pixels(band.picture, least=330 // len(parts)) for band in parts)
    # Names below a band take some 90 px, turned where they are long.
    gap = min(90 / high, 1 / len(parts)) if len(parts) > 1 else 0
    chart = make_subplots(rows=len(parts), cols=1, vertical_spacing=gap)
    places, longest = _middles(picture, rows), max(map(len, columns))
    turned = {"tickangle": -45} if longest * 7 > 800 / len(parts[0].columns) else {}
    for i, band in enumerate(parts, start=1):
        where = {"row": i, "col": 1}
        chart.add_trace(go.Image(z=band.picture, hoverinfo="skip"), **where)
        chart.update_xaxes(tickvals=band.places, ticktext=band.columns, **turned, **where)
        if i > 1:  # as wide as the first, so that its pictures are of one size
            chart.update_xaxes(range=[-0.5, parts[0].picture.shape[1] - 0.5], **where)
        chart.update_yaxes(tickvals=places, ticktext=rows, **where)
    chart.update_xaxes(title=x, row=len(parts), col=1)
    chart.update_layout(height=high)
    return chart


def canvas(
    picture: np.ndarray,
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    title: str,
    x: str,
    wrap: bool,
) -> Any:
    """Returns a panel as a matplotlib figure, with title and labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    parts = bands(picture, columns, wrap=wrap)
    wide, high = _inches(parts[0].picture)
    spacing = (wide - 1.5) * 72 / len(parts[0].columns)
    longest = max(len(line) for name in columns for line in name.splitlines())
    turned = longest * layout.LETTER * TEXT > spacing
    extra = layout.reach(longest) if turned else 0.0
    high = len(parts) * (high + extra) - 0.4 * (len(parts) - 1)
    page = Canvas(figsize=(wide, high), dpi=110)
    FigureCanvasAgg(page)
    for band, axes in zip(parts, page.subplots(len(parts), squeeze=False)[:, 0], strict=True):
        axes.imshow(band.picture, interpolation="nearest")
        axes.set_xlim(-0.5, parts[0].picture.shape[1] - 0.5)
        axes.set_xticks(band.places, band.columns, fontsize=TEXT)
        axes.set_yticks(_middles(picture, rows), rows, fontsize=TEXT)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if turned:
            layout.turn(axes.get_xticklabels(), spacing)
    page.axes[0].set_title(title, fontsize=11)
    page.axes[-1].set_xlabel(x)
    page.tight_layout()
    return page


def _middles(picture: np.ndarray, rows: Sequence[str]) -> list[float]:
    return [(i + 0.5) * picture.shape[0] / len(rows) for i in range(len(rows))]


def _inches(picture: np.ndarray) -> tuple[float, float]:
    """Returns width and height of a band in inches."""
    height, width = picture.shape[:2]
    return (10.5, 1.0 + 9.0 * height / width) if width > height else (6.0, 1.0 + 5 * height / width)


def _pixels(picture: np.ndarray, *, least: int) -> int:
    """Returns the height in px of a band about as wide as a page."""
    height, width = picture.shape[:2]
    return max(least, 130 + round(800 * height / max(width, 2 * height)))

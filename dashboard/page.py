"""The parts of a page: each is shown, and kept for the page's export."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import export
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import revisions
import streamlit as st
from pandas.io.formats.style import Styler
from streamlit.delta_generator import DeltaGenerator

from camdrift.analysis import drawing
from camdrift.analysis.drawing import Figure

MARKS = re.compile(r"[\\`*_\[\]$:<>~#]")  # with which Markdown and Streamlit mark a text
# Plotly selects the mark below the pointer's last move. A finger does not move before it taps, so
# that each tap selected the mark of the tap before.
TOUCH = """<script>
if (!window.camdriftTaps) {
  window.camdriftTaps = true;
  const move = event => {
    if (event.pointerType !== "touch" || !event.target.closest(".js-plotly-plot")) return;
    const {clientX, clientY} = event;
    event.target.dispatchEvent(new MouseEvent("mousemove", {clientX, clientY, bubbles: true}));
  };
  document.addEventListener("pointerdown", move, true);
}
</script>"""
DPI = 300  # of downloaded figures, as journals ask for


@dataclass
class Record:
    """The parts, choices and files of one run of a page.

    parts: each returns its HTML.
    choices: of the reader, by their labels.
    files: that were read, with the times of their last changes.
    address: of the page with these choices; "" until the run has ended.
    """

    parts: list[Callable[[], str]] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    files: dict[Path, float] = field(default_factory=dict)
    address: str = ""


def begin() -> Record:
    """Begins the record of a run, and returns it."""
    st.session_state["record"] = Record()
    return st.session_state["record"]


def _add(part: Callable[[], str]) -> None:
    st.session_state["record"].parts.append(part)


def end(record: Record) -> None:
    """Ends the record of a run: its widgets have written the address."""
    query = {key: st.query_params.get_all(key) for key in st.query_params}
    record.address = f"{st.context.url}?{urlencode(query, doseq=True)}"


def chose(label: str, choice: object) -> None:
    """Keeps a choice of the reader; several are a list."""
    text = ", ".join(map(str, choice)) if isinstance(choice, list) else str(choice)
    st.session_state["record"].choices[label] = text


def reads(paths: Iterable[Path]) -> None:
    """Keeps the paths of files that the page reads."""
    there = (path for path in paths if path.is_file())
    st.session_state["record"].files.update({path: path.stat().st_mtime for path in there})


def offer(record: Record, title: str) -> None:
    """Shows a button, in the sidebar, that downloads the page as one HTML file."""

    def content() -> str:
        here = revisions.workspace()
        facts = [f"{title}, camdrift's dashboard", f"Address: {record.address}",
                 f"Kept {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"]  # fmt: skip
        facts += [f"{label}: {text}" for label, text in record.choices.items()]
        if here is not None:
            facts.append(f"Checked out: revision {here.sha}, {here.state}")
        return export.document(title, facts, record.files, record.parts)

    name = re.sub(r"\W+", "_", title.lower())
    st.sidebar.download_button(
        "This page as HTML", content, f"{name}.html", "text/html", on_click="ignore",
        type="tertiary", icon=":material/download:",
    )  # fmt: skip


def plain(text: str) -> str:
    """Returns a text whose marks Markdown shows as they are."""
    return re.sub(MARKS, r"\\\g<0>", text)


def header(text: str) -> None:
    """Shows the page's heading."""
    st.header(text, anchor=False)
    _add(partial(export.heading, 1, text))


def subheader(text: str) -> None:
    """Shows the heading of a part."""
    st.subheader(text, anchor=False)
    _add(partial(export.heading, 2, text))


def markdown(text: str) -> None:
    """Shows a text in Markdown."""
    st.markdown(text)
    _add(partial(export.markdown, text))


def caption(text: str) -> None:
    """Shows a text in Markdown that says how to read what is above it."""
    st.caption(text)
    _add(partial(export.markdown, text, of="caption"))


def line(text: str, place: Any = st) -> None:
    """Shows a text as it is, with its line breaks."""
    place.text(text)
    _add(partial(export.line, text))


def info(text: str, place: Any = st) -> None:
    """Shows what is missing, in Markdown, and the command that makes it."""
    place.info(text)
    _add(partial(export.markdown, text))


def flag(text: str) -> None:
    """Shows a doubt, in Markdown."""
    st.warning(text, icon=":material/flag:")
    _add(partial(export.markdown, text, of="flag"))


def metric(
    place: DeltaGenerator, title: str, value: str, detail: str | None = None, **more: Any
) -> None:
    """Shows a number below its title, with a line of detail; `more` as of `st.metric`."""
    place.metric(title, value, detail, delta_color="off", delta_arrow="off", **more)
    _add(partial(export.line, f"{title}: {value}" + (f" ({detail})" if detail else "")))


def picture(pixels: np.ndarray, text: str, *, alt: str = "") -> None:
    """Shows a picture, uint8 (h, w, 3), as wide as its place, and a text below it."""
    with st.container(gap="xsmall"):
        st.image(pixels, output_format="PNG", width="stretch", alt=alt or text)
        st.text(text)
    record_picture(pixels, text, alt=alt or text)


def image(content: bytes, *, alt: str, place: Any = st) -> None:
    """Shows a PNG as wide as its place."""
    place.image(content, width="stretch", alt=alt)
    _add(partial(export.image, content, alt))


def tile(pixels: np.ndarray, text: str, *, alt: str) -> None:
    """Shows a small picture with a caption."""
    st.image(pixels, caption=text, output_format="PNG", width="stretch", alt=alt)
    record_picture(pixels, text, alt=alt)


def show(figure: Figure, *, key: str = "") -> None:
    """Shows a figure with its caption and its downloads."""
    if figure.is_blank:
        info(f"{figure.title}: nothing to show, there is no image of this kind.")
        return
    key = key or figure.name
    alt = f"{figure.title}. {figure.caption}"
    plot(figure, drawing.plotly(figure), key=key, alt=alt)
    read(figure, key)


def plot(figure: Figure, chart: go.Figure, **arguments: Any) -> None:
    """Shows a figure as Plotly drew it, its title as text above, which a phone breaks into lines.

    `arguments` are those of `st.plotly_chart`.
    """
    with st.container(gap=None):
        if "on_select" in arguments:
            st.html(TOUCH, unsafe_allow_javascript=True)
        st.markdown(f"**{plain(figure.title)}**")
        chart.update_layout(title=None, margin_t=20)
        st.plotly_chart(chart, config={"displaylogo": False}, **arguments)


def read(figure: Figure, key: str) -> None:
    """Shows the caption of a figure, and buttons to download it as CSV, PNG and SVG."""
    st.caption(figure.caption)
    _add(partial(export.figure, figure))
    with st.container(horizontal=True):
        if figure.panel is None:
            download(figure.table, figure.name, key=f"{key}_csv")
        for title, form, draw in (
            ("PNG", "png", partial(drawing.rendered, figure, dpi=DPI)),
            ("SVG", "svg", partial(drawing.rendered, figure, form="svg")),
        ):
            st.download_button(
                title, draw, f"{figure.name}.{form}", key=f"{key}_{form}", on_click="ignore",
                type="tertiary", icon=":material/download:",
            )  # fmt: skip


def download(table: pd.DataFrame, name: str, *, key: str = "") -> None:
    """Shows a button that downloads a table."""
    st.download_button(
        "CSV", lambda: table.to_csv(index=False), f"{name}.csv", key=key or f"{name}_csv",
        on_click="ignore", type="tertiary", icon=":material/download:",
    )  # fmt: skip


def table(rows: pd.DataFrame, name: str, alt: str) -> None:
    """Shows a table with a sentence on how to read it, and a button that downloads it."""
    st.dataframe(rows, hide_index=True, alt=alt)
    st.caption(alt)
    download(rows, name)
    record_table(rows, alt)


def record_line(text: str) -> None:
    """Keeps a text that the page shows by itself."""
    _add(partial(export.line, text))


def record_picture(pixels: np.ndarray, text: str, *, alt: str) -> None:
    """Keeps a picture that the page shows by itself, with the text below it."""
    _add(partial(export.picture, pixels, text, alt))


def record_table(rows: pd.DataFrame | Styler, caption: str) -> None:
    """Keeps a table that the page shows by itself."""
    _add(partial(export.table, rows, caption))

"""A page as one HTML file that needs no other: its parts, its address, revision and hashes."""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt
from pandas.io.formats.style import Styler
from PIL import Image

from camdrift.analysis import drawing
from camdrift.analysis.drawing import Figure
from camdrift.storage import files

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: 14px; display: block; overflow-x: auto }
th, td { border: 1px solid #ccc; padding: .2rem .5rem; text-align: left; vertical-align: top }
figure { margin: 1rem 0 } figure img { max-width: 100% }
.picture { display: inline-block; width: 9rem; margin: .3rem; vertical-align: top }
.picture img { width: 100%; image-rendering: pixelated }
.caption, figcaption, .picture figcaption { color: #555; font-size: 14px }
.flag { border-left: 4px solid #D55E00; padding-left: .7rem }
pre { white-space: pre-wrap; font: inherit }
"""


def heading(level: int, text: str) -> str:
    """Returns a heading, of which 1 is the page's."""
    return f"<h{level}>{escape(text)}</h{level}>"


def line(text: str) -> str:
    """Returns a text as it is, with its line breaks."""
    return f"<pre>{escape(text)}</pre>"


def markdown(text: str, *, of: str = "text") -> str:
    """Returns a text in Markdown; `of` is a class of the style sheet."""
    return f'<div class="{of}">{MARKDOWN.render(text)}</div>'


def figure(drawn: Figure) -> str:
    """Returns a figure as SVG with its caption, and its numbers, folded."""
    picture = base64.b64encode(drawing.svg_bytes(drawn)).decode()
    numbers = "" if drawn.panel is not None else (
        f"<details><summary>The numbers</summary>{table(drawn.table)}</details>"
    )  # fmt: skip
    return (
        f'<figure><img alt="{escape(drawn.title)}" src="data:image/svg+xml;base64,{picture}">'
        f"<figcaption>{escape(drawn.caption)}</figcaption>{numbers}</figure>"
    )


def image(content: bytes, alt: str) -> str:
    """Returns a PNG."""
    data = base64.b64encode(content).decode()
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def picture(pixels: np.ndarray, text: str, alt: str) -> str:
    """Returns a picture, uint8 (h, w, 3), with a text below it."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure class="picture"><img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def table(rows: pd.DataFrame | Styler, caption: str = "") -> str:
    """Returns a table, floats with four digits, with a sentence below it."""
    if isinstance(rows, Styler):
        text = rows.hide(axis="index").format(escape="html").to_html()
    else:
        text = rows.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
    return text + (f'<p class="caption">{escape(caption)}</p>' if caption else "")


def document(
    title: str, facts: Sequence[str], paths: Sequence[Path], parts: Sequence[Callable[[], str]]
) -> str:
    """Returns the page.

    Args:
        title: of the tab.
        facts: sentences on its origin.
        paths: of the files that it read, whose hashes are listed.
        parts: each returns its HTML.
    """
    hashes = pd.DataFrame(
        [(path.as_posix(), files.sha256(path)) for path in paths if path.is_file()],
        columns=["file", "sha256"],
    )
    body: list[Any] = [part() for part in parts]
    origin = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"{''.join(body)}<h2>Where this page is from</h2><ul>{origin}</ul>"
        f"<details><summary>The files behind it, and their hashes</summary>{table(hashes)}"
        "</details></body></html>"
    )

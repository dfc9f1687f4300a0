"""A page as one HTML file that needs no other: its parts, its address, revision and hashes."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
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

LARGEST = 2**26  # bytes of a file that is hashed: some maps have gigabytes
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


def figure(of: Figure) -> str:
    """Returns a figure as SVG with its title and caption, and its numbers, folded."""
    data = base64.b64encode(drawing.rendered(of, form="svg")).decode()
    source = f"data:image/svg+xml;base64,{data}"
    numbers = f"<details><summary>The numbers</summary>{_rows(of.table)}</details>"
    return (
        f'<figure class="chart"><img alt="{escape(of.title)}" src="{source}">'
        f"<figcaption><b>{escape(of.title)}</b>. {escape(of.caption)}</figcaption>"
        f"{'' if of.panel is not None else numbers}</figure>"
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
        plain = rows.hide(axis="index").format(escape="html")
        text = plain.to_html(table_attributes='class="shown"')
    else:
        text = _rows(rows, classes="shown")
    return text + (f'<p class="caption">{escape(caption)}</p>' if caption else "")


def _rows(table: pd.DataFrame, **how: str) -> str:
    return table.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format, **how)


def document(
    title: str, facts: Sequence[str], paths: Mapping[Path, float],
    parts: Sequence[Callable[[], str]],
) -> str:  # fmt: skip
    """Returns the page.

    Args:
        title: of the tab.
        facts: sentences on its origin.
        paths: of the files that it read, whose hashes are listed, and when each last changed.
        parts: each returns its HTML.
    """
    rows = [(path.as_posix(), _hash(path, stamp)) for path, stamp in paths.items()]
    hashes = pd.DataFrame(rows, columns=["file", "sha256"])
    body: list[Any] = [part() for part in parts]
    origin = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"{''.join(body)}<h2>Where this page is from</h2><ul>{origin}</ul>"
        f"<details><summary>The files behind it, and their hashes</summary>{_rows(hashes)}"
        "</details></body></html>"
    )


def _hash(path: Path, stamp: float) -> str:
    """Returns the sha256 of a file, or the reason why there is none."""
    if not path.is_file() or path.stat().st_mtime != stamp:
        return "changed after the page was shown"
    if path.stat().st_size > LARGEST:
        return "too large to be hashed here; dvc.lock has its folder's MD5"
    return files.sha256(path)

"""The page of a report: HTML of parts and figures that needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from camdrift.analysis import drawing
from camdrift.analysis.drawing import Figure


@dataclass(frozen=True)
class Part:
    """A heading, a text and a table, each of which may be missing.

    Texts are escaped unless they are `Markup`; those of a flag are set apart.
    """

    heading: str = ""
    text: str = ""
    table: pd.DataFrame | None = None
    is_flag: bool = False

    @property
    def html(self) -> Markup:
        """The table as HTML; its cells are escaped."""
        assert self.table is not None
        return Markup(self.table.to_html(index=False, border=0))


def page(title: str, parts: Sequence[Part], figures: Sequence[Figure]) -> str:
    """Returns the HTML of a report: its parts, then its figures with their captions."""
    # A fixed div id keeps the bytes the same from run to run.
    charts = [
        drawing.plotly(figure).to_html(full_html=False, include_plotlyjs=False, div_id=figure.name)
        for figure in figures
    ]
    return _template().render(
        title=title, parts=parts, plotly=Markup(get_plotlyjs()),
        charts=list(zip(figures, map(Markup, charts), strict=True)),
    )  # fmt: skip


@cache
def _template() -> Template:
    loader = PackageLoader("camdrift.analysis", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2")

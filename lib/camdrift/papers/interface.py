"""The interface of a paper to the report of a study: module `study` of the paper's package."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.papers.findings import Claim
from camdrift.papers.readme import Content
from camdrift.settings import Settings, Study

Artefacts = dict[str, tuple[type, Path]]


class Paper(Protocol):
    """The content of each paper's module `study`; `settings` are those that `READS` names.

    READS: the sections of params.yaml, beside the study's own, that its report reads.
    CLAIMS: of the paper.
    """

    READS: Sequence[str]
    CLAIMS: Sequence[Claim]

    def artefacts(self, name: str, settings: Settings) -> Artefacts:
        """Returns kind and folder of the artefacts that hold a study's results, by name."""

    def tables(self, name: str, settings: Settings) -> Tables:
        """Returns the tables of a study by name, from its records."""

    def by_name(self, plan: Study, tables: Tables) -> dict[str, Callable[[], Figure]]:
        """Returns functions that draw the figures which need tables alone, by figure name."""

    def panels(self, name: str, settings: Settings, tables: Tables) -> list[Figure]:
        """Returns the figures that show images or maps, from the artefacts of a study's stages."""

    def metrics(self, tables: Tables) -> dict[str, dict[str, float]]:
        """Returns a study's summary: numbers by cell, model or network, and by their names."""

    def page(self, name: str, settings: Settings, tables: Tables, figures: list[Figure]) -> str:
        """Returns the HTML of the report of a study."""

    def content(self, name: str, settings: Settings, tables: Tables) -> Content:
        """Returns the content of the README of a study."""


def paper(name: str) -> Paper:
    """Returns the module of a paper by its name, such as renkhoff2022."""
    return cast(Paper, importlib.import_module(f"camdrift.papers.{name}.study"))

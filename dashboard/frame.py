"""Functions that all pages share: the study on screen, its results, its images."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import address
import numpy as np
import page
import pandas as pd
import streamlit as st
import tiles
from evidence import gather

from camdrift import storage
from camdrift.analysis import results
from camdrift.analysis.results import Tables
from camdrift.ops import case
from camdrift.ops.case import Case
from camdrift.settings import (
    Cell,
    LayerStudy,
    ManipulationStudy,
    Protocol,
    Settings,
    SettingsError,
    Study,
    params,
    presets,
    protocols,
)
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE

LAYERS = 24  # at a time
THUMBNAILS = 24
ARMS = {CLEAN: "clean", ADVERSARIAL: "attacked", NOISE: "noise of its size"}


@dataclass(frozen=True)
class View:
    """The study on screen.

    plan: its settings.
    settings: the settings that its results rest on.
    tables: its tables.
    """

    study: str
    plan: Study
    settings: Settings
    tables: Tables

    @property
    def cells(self) -> dict[str, Cell]:
        """The study's cells."""
        return self.settings.cells

    def first(self, cell: str) -> Protocol:
        """The protocol that decides a cell's tables."""
        by_name = protocols(self.settings.protocols)
        return by_name[self.cells[cell].protocols[0]]


@st.cache_data(max_entries=4)
def _settings(stamp: float) -> Settings:
    return params.load()


@st.cache_data(max_entries=8)
def _tables(study: str, stamp: float) -> Tables:
    return results.load(study)


# Not copied, as cached data are: arrays stay on the disk.
@st.cache_resource(max_entries=4)
def _case(study: str, name: str, cell: Cell, first: Protocol, stamp: float) -> Case:
    return case.read(study, name, cell, first)


@st.cache_data(max_entries=8)
def _overview(_case: Case, study: str, name: str, stamp: float) -> pd.DataFrame:
    return case.overview(_case)


@st.cache_data(max_entries=32)
def _pairs(study: str, name: str, first: Protocol, stamp: float, **equal: object) -> pd.DataFrame:
    return case.pairs(study, name, first, **equal)  # type: ignore[arg-type]


def latest(*folders: Path) -> float:
    """Returns the time of the last change in folders, a key that keeps caches fresh."""
    newest = 0.0
    for file in (file for folder in folders for file in (folder, *folder.rglob("*"))):
        with contextlib.suppress(FileNotFoundError):  # a stage that runs renames its files
            newest = max(newest, file.stat().st_mtime)
    return newest


def stamp_of(*folders: Path) -> float:
    """Keeps the files in folders as those that the page reads, and returns `latest` of them."""
    page.reads(sorted(file for folder in folders for file in folder.rglob("*")))
    return latest(*folders)


def current_settings() -> Settings:
    """Returns the settings; shows a fault in them and ends the page."""
    if not params.PARAMS.exists():
        st.error("There is no params.yaml here: run this in a clone of the repository.")
        st.stop()
    try:
        return _settings(params.PARAMS.stat().st_mtime)
    except SettingsError as fault:
        st.error(str(fault))
        st.stop()


def plans(settings: Settings) -> dict[str, Study]:
    """Returns the studies of params.yaml, and other studies whose results are in this folder."""
    return settings.studies | results.elsewhere(settings)


@st.cache_data(max_entries=2)
def _evidence(stamps: list[tuple[str, float]], _settings: Settings) -> tuple:
    return gather(_settings)


def evidence() -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns what every study that is here says of every claim, see `evidence.gather`."""
    files = [
        file
        for root in (storage.RESULTS, storage.REPORTS)
        for part in ("*/settings.json", "*/tables/claims.csv")
        for file in root.glob(part)
    ]
    page.reads(sorted(files))
    stamps = [(str(file), latest(file)) for file in sorted([*files, params.PARAMS])]
    return _evidence(stamps, current_settings())


def choose_study() -> str:
    """Shows the choice of the study for all pages, and returns it."""
    studies = plans(current_settings())
    missing = address.unknown("study", "Study", studies)
    st.sidebar.selectbox("Study", list(studies), key="study", bind="query-params")
    study, origin = st.session_state["study"], ""
    page.chose("Study", study)
    if storage.shown(study, "tables").is_dir():
        own = storage.is_own(study)
        origin = f"The results are {'built here' if own else 'those that are published'}. "
    st.sidebar.caption(f"{origin}The address holds every choice: copy it to share the view.")
    if missing:
        st.warning(f"{missing} The study shown is {study}.")
    return study


def view(*papers: str, subject: str = "") -> View:
    """Returns the study on screen; ends the page with a message if unbuilt or not of `papers`.

    `subject` names the page's content in the message for studies that lack it.
    """
    settings = current_settings()
    studies = plans(settings)
    study = st.session_state["study"]
    plan = studies[study]
    if papers and plan.paper not in papers:
        others = [name for name, other in studies.items() if other.paper in papers]
        page.info(f"'{study}' is a study of {plan.paper}: it has no {subject}. These have: "
                  f"{', '.join(others)}.")  # fmt: skip
        for name in others:
            st.button(name, on_click=_choose, args=(name,))
        st.stop()
    folder = storage.shown(study, "tables")
    if not folder.is_dir() or not storage.shown(study, "settings.json").exists():
        page.info(f"Nothing is built yet for '{study}'. {build_hint(study)}")
        st.stop()
    return view_of(study)


class AbsentError(Exception):
    """Something is not built here; the message says what to run."""


def read_view(study: str) -> View:
    """Returns a study.

    Raises:
        AbsentError: it has no results here, or those of an earlier revision.
    """
    try:
        settings = results.settings_of(study)
    except FileNotFoundError as fault:
        raise AbsentError(f"Nothing is built yet for '{study}'. {build_hint(study)}") from fault
    except SettingsError as fault:
        raise AbsentError(f"{fault}. {build_hint(study)}") from fault
    return View(study, settings.studies[study], settings, tables_of(study))


def view_of(study: str) -> View:
    """Returns a study; if it has no results that can be read, says so and ends the page."""
    return _or_end(lambda: read_view(study))


def _or_end(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except AbsentError as fault:
        page.info(str(fault))
        st.stop()


def tables_of(study: str) -> Tables:
    """Returns the tables of a study, none where it is not built."""
    folder = storage.shown(study, "tables")
    page.reads([storage.shown(study, "settings.json"), *sorted(folder.glob("*.csv"))])
    return _tables(study, latest(folder)) if folder.is_dir() else {}


def _choose(study: str) -> None:
    st.session_state["study"] = study


def build_hint(study: str) -> str:
    """Returns a sentence with the command that builds a study."""
    if study in current_settings().studies:
        return f"Run: make repro STUDY={study}"
    preset = presets.builder(study)
    if preset is None:
        return "It was built in a copy of the repository, from a preset that is not in this folder."
    command = f"make study NAME={preset} STUDY={study}"
    return f"It was built in a copy of the repository, which keeps the artefacts: {command}"


def missing(view: View, fault: FileNotFoundError) -> str:
    """Returns a sentence that names the missing artefact, and one with the command."""
    return f"Not built here: {fault.args[0].split(',')[0]}. {build_hint(view.study)}"


def show_missing(view: View, fault: FileNotFoundError) -> None:
    """Names the missing artefact and the command that builds it."""
    page.info(missing(view, fault))


def choose_cell(view: View, *, key: str = "cell") -> str:
    """Shows the choice of a cell and returns its name."""
    names = view.tables["attacks"]["cell"].tolist()
    assert isinstance(view.plan, LayerStudy | ManipulationStudy)
    headline = view.plan.headline
    return address.choice(st, "Cell", names, key=key, default=headline)


def read_case(view: View, cell: str) -> Case:
    """Returns a cell's artefacts.

    Raises:
        AbsentError: one is missing.
    """
    stages = ("attack", "noise", "cam")
    stamp = stamp_of(*(storage.cell_folder(view.study, cell, name) for name in stages),
                     storage.set_folder(view.cells[cell].set))  # fmt: skip
    try:
        return _case(view.study, cell, view.cells[cell], view.first(cell), stamp)
    except FileNotFoundError as fault:
        raise AbsentError(missing(view, fault)) from fault


def open_case(view: View, cell: str) -> Case:
    """Returns a cell's artefacts; if one is missing, names the command and ends the page."""
    return _or_end(lambda: read_case(view, cell))


def read_images(view: View, artefacts: Case) -> pd.DataFrame:
    """Returns the images of a cell, see `case.overview`.

    Raises:
        AbsentError: the scores are missing.
    """
    stamp = stamp_of(*(storage.cell_folder(view.study, artefacts.name, name)
                       for name in ("attack", "cam", "score")))  # fmt: skip
    try:
        return _overview(artefacts, view.study, artefacts.name, stamp)
    except FileNotFoundError as fault:
        raise AbsentError(missing(view, fault)) from fault


def images(view: View, artefacts: Case) -> pd.DataFrame:
    """Returns the images of a cell; if scores are missing, names the command and ends the page."""
    return _or_end(lambda: read_images(view, artefacts))


def pairs(view: View, cell: str, **equal: object) -> pd.DataFrame:
    """Returns similarities image by image, see `case.pairs`.

    Raises:
        FileNotFoundError: the scores are not built here.
    """
    stamp = stamp_of(storage.cell_folder(view.study, cell, "score"))
    return _pairs(view.study, cell, view.first(cell), stamp, **equal)


def page_of(labels: list[str]) -> range:
    """Returns the places of the layers to show; with many layers, shows a choice of the page."""
    pages, start = -(-len(labels) // LAYERS), 0
    if pages > 1:
        start = LAYERS * (st.pagination(pages, key="page", bind="query-params") - 1)
    return range(start, min(start + LAYERS, len(labels)))


def thumbnails(rows: pd.DataFrame, *, of: str) -> pd.DataFrame:
    """Shows a choice of the page if rows are many, and returns those of its page.

    `of` names the rows' group; that of another one begins at its first page.
    """
    pages = -(-len(rows) // THUMBNAILS)
    last = st.session_state.get("gallery of", of)
    st.session_state["gallery of"] = of
    if last != of or st.session_state.get("thumbnails", 1) > pages:
        st.session_state["thumbnails"] = 1
    number = st.pagination(pages, key="thumbnails", bind="query-params") if pages > 1 else 1
    return rows.iloc[THUMBNAILS * (number - 1) : THUMBNAILS * number]


def gallery(artefacts: Case, rows: pd.DataFrame, choices: dict[str, Any], *, of: str) -> None:
    """Shows images with a line below each, which leads to the page of the image.

    Args:
        artefacts: of the cell.
        rows: `image, id, text, arm`, in the order to show; `arm` is the variant that is shown.
        choices: of the page of the image, beside the image; `at_strength` is the attack's.
        of: see `thumbnails`.
    """
    shown = thumbnails(rows, of=of).reset_index(drop=True)
    pictures: dict[Any, np.ndarray] = {}
    for arm, part in shown.groupby("arm"):
        images, strength = part["image"].tolist(), choices["at_strength"]
        looks = case.pictures(artefacts, images, strength, arm=str(arm))
        pictures |= dict(zip(part.index, looks, strict=True))
    with st.grid("auto", min_column_width=110):
        for row in shown.itertuples():
            with st.container(gap=None):
                small = tiles.enlarged(pictures[row.Index], 128)
                alt = f"{row.id}, {ARMS[row.arm]}"
                st.image(small, output_format="PNG", width="stretch", alt=alt)
                page.record_picture(small, row.text, alt=alt)
                address.link("image", row.text, **choices, image=str(row.id))

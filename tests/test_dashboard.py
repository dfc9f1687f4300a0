"""The dashboard without a browser: with results, without, with an artefact missing."""

import shutil

import pytest

from conftest import ROOT

testing = pytest.importorskip("streamlit.testing.v1")


@pytest.fixture
def built(tiny, tmp_path):
    """A copy of the tiny study with the dashboard beside it."""
    shutil.copytree(ROOT / "dashboard", tmp_path / "dashboard")
    for name in ("params.yaml", "lib"):
        (tmp_path / name).symlink_to(tiny.folder / name)
    shutil.copytree(tiny.folder / "data" / "results", tmp_path / "data" / "results")
    folder = "data/studies/tiny/tiny_dlfuzz/cam"
    shutil.copytree(tiny.folder / folder, tmp_path / folder)
    return tmp_path


def shown(folder, monkeypatch, **query):
    import streamlit as st

    st.cache_data.clear()
    monkeypatch.chdir(folder)
    app = testing.AppTest.from_file(str(folder / "dashboard" / "app.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def test_shows_figures_table_and_pictures(built, monkeypatch):
    app = shown(built, monkeypatch)
    assert app.header[0].value == "The whole study on digits"
    # Three of the layers, seven of the detectors.
    assert len(app.get("plotly_chart")) == 3 + 7
    assert list(app.dataframe[0].value["cell"]) == [
        "tiny_none", "tiny_fgsm", "tiny_pgd", "tiny_dlfuzz"
    ]  # fmt: skip
    assert len(app.get("image")) == 1 + 2 * 5


def test_every_figure_of_every_cell_is_shown(built, monkeypatch):
    app = shown(built, monkeypatch)
    for cell in app.selectbox(key="cell").options:
        app.selectbox(key="cell").set_value(cell)
        for figure in app.selectbox(key="figure").options:
            app.selectbox(key="figure").set_value(figure).run()
            assert not app.exception, (cell, figure)


def test_claims_are_filtered_by_paper_and_verdict(built, monkeypatch):
    app = shown(built, monkeypatch)
    assert len(app.dataframe[1].value) == 40
    app.multiselect(key="papers").set_value(["tan2023"]).run()
    assert set(app.dataframe[1].value["of"]) == {"tan2023"}
    app.multiselect(key="verdicts").set_value(["holds"]).run()
    assert not app.exception
    assert app.dataframe[1].value.empty


def test_a_link_restores_the_view(built, monkeypatch):
    app = shown(built, monkeypatch, cell="tiny_fgsm", figure="Compromised layers")
    assert app.selectbox(key="cell").value == "tiny_fgsm"
    assert app.selectbox(key="figure").value == "Compromised layers"
    app = shown(built, monkeypatch, cell="../../etc")
    assert app.selectbox(key="cell").value in app.selectbox(key="cell").options


def test_a_generalisation_is_shown_for_both_classes(built, monkeypatch):
    app = shown(built, monkeypatch, study="tiny_generalising")
    assert app.header[0].value == "Two networks on digits"
    # Two arms, PSNR, the matrix, the pairs; and seven of maps.
    assert len(app.get("plotly_chart")) == 5 + 7
    assert [*app.dataframe[0].value.columns[:2]] == ["network", "preprocessing"]
    before = app.dataframe[3].value
    app.radio(key="explains").set_value("own_top1").run()
    assert not app.exception
    assert not app.dataframe[3].value.equals(before)
    app.selectbox(key="attack").set_value("noise").run()
    assert not app.exception


def test_nothing_built_says_what_to_run(built, monkeypatch):
    shutil.rmtree(built / "data")
    app = shown(built, monkeypatch)
    assert "make repro STUDY=tiny" in app.info[0].value


def test_a_missing_artefact_says_what_to_run(built, monkeypatch):
    shutil.rmtree(built / "data" / "studies")
    app = shown(built, monkeypatch)
    assert "make repro STUDY=tiny" in app.info[0].value
    # Three of the layers, seven of the detectors.
    assert len(app.get("plotly_chart")) == 3 + 7

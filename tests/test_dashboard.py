"""The dashboard without a browser: every page with results, without, with an artefact missing."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from camdrift import settings, storage
from camdrift.analysis import drawing
from camdrift.ops import case
from camdrift.perturbations import variants
from camdrift.pipeline import run
from camdrift.storage import Attacked, ImageSet, Noise
from conftest import ROOT, inside

testing = pytest.importorskip("streamlit.testing.v1")

PAGES = sorted(path.stem for path in (ROOT / "dashboard" / "app_pages").glob("*.py"))
STUDIES = {
    "tiny": "renkhoff2022", "tiny_detectors": "tan2023", "tiny_inspecting": "klawikowska2020",
    "tiny_generalising": "chakraborty2022", "tiny_maps": "zhang2020",
}  # fmt: skip
# Which studies a page is about; others are offered those that it is about.
ABOUT = {
    "layers": ["tiny", "tiny_maps"], "image": ["tiny", "tiny_maps"],
    "compare": ["tiny", "tiny_maps"],
    "detectors": ["tiny_detectors"],
    "signatures": ["tiny_inspecting"], "models": ["tiny_inspecting", "tiny_generalising"],
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A copy of the tiny study with the dashboard beside it."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(ROOT / "dashboard", folder / "dashboard")
    (folder / "data").mkdir()
    for name in ("params.yaml", "lib", "data/studies", "data/sets", "data/reports"):
        (folder / name).symlink_to(tiny.folder / name)
    return folder


@pytest.fixture
def alone(whole, tmp_path):
    """The same with results that were published, and no artefact."""
    shutil.copytree(whole / "dashboard", tmp_path / "dashboard")
    for name in ("params.yaml", "lib"):
        (tmp_path / name).symlink_to(whole / name)
    shutil.copytree(whole / "data" / "reports", tmp_path / "data" / "results")
    return tmp_path


def shown(folder, monkeypatch, page="answer", **query):
    import streamlit as st

    st.cache_data.clear()
    st.cache_resource.clear()
    for module in (folder / "dashboard").glob("*.py"):
        sys.modules.pop(module.stem, None)
    monkeypatch.chdir(folder)
    app = testing.AppTest.from_file(str(folder / "dashboard" / "app.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if page != "answer":
        app.switch_page(f"app_pages/{page}.py").run()
    assert not app.exception, (page, app.exception)
    return app


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_the_studies_of_every_paper(whole, monkeypatch, page, study):
    app = shown(whole, monkeypatch, page, study=study)
    mine = ABOUT.get(page, [study])
    if study in mine:
        assert app.header
        assert not any("make repro" in box.value for box in app.info)
        assert app.get("plotly_chart") or app.dataframe or page == "revisions"
        nothing_is_lost(app, page)
    else:
        assert f"is a study of {STUDIES[study]}" in app.info[0].value
        assert [button.label for button in app.button] == mine
        app.button[0].click().run()
        assert not app.exception
        assert app.selectbox(key="study").value == mine[0]


def nothing_is_lost(app, page: str) -> None:
    """A page's export has all its texts, and as many tables, charts and pictures."""
    import export

    record = app.session_state["record"]
    document = export.document("a page", ["a fact"], record.files, record.parts)

    def words(text: str) -> str:
        return re.sub(r"[\W_]+", "", text)

    there = words(html.unescape(re.sub(r"<[^>]*>", "", document)))
    for kind in ("header", "subheader", "caption", "info", "warning", "text", "markdown"):
        for text in getattr(app.main, kind):
            assert words(text.value) in there, (kind, text.value)
    assert len(re.findall('class="(?:dataframe )?shown"', document)) == len(app.dataframe)
    if page != "compare":  # whose chart is kept as pictures
        assert document.count('class="chart"') == len(app.get("plotly_chart"))
        assert document.count("<img ") == len(app.get("plotly_chart")) + len(app.get("image"))
    assert record.files
    if page == "image":
        assert any("attack" in path.parts for path in record.files)
    assert all(str(path) in document for path in record.files)
    assert "<script" not in document


def test_an_export_shows_texts_as_they_are(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    import export

    whole = "".join([
        export.line("<b> & 'c'"), export.heading(1, "a < b"), export.markdown("*a* <i>b</i>"),
        export.table(pd.DataFrame({"<x>": ["<y>"], "z": [0.123456]}), "<w>"),
        export.picture(np.zeros((2, 2, 3), np.uint8), "<p>", '"q"'),
    ])  # fmt: skip
    assert not re.search("<(b|i|x|y|w)>", whole)
    assert "0.1235" in whole
    assert "<em>a</em>" in whole
    assert 'alt="&quot;q&quot;"' in whole


def test_an_export_has_the_hashes_of_the_files_that_were_shown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    import export

    kept, changed, large = (tmp_path / name for name in ("kept", "changed", "large"))
    for file in (kept, changed):
        file.write_text("abc", encoding="utf-8")
    with large.open("wb") as file:
        file.truncate(export.LARGEST + 1)
    stamps = {file: file.stat().st_mtime for file in (kept, large)} | {changed: 1.0}
    whole = export.document("a page", [], stamps, [])
    assert whole.count("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 1
    assert whole.count("changed after the page was shown") == 1
    assert whole.count("too large to be hashed here") == 1


def test_an_export_has_the_choices_of_what_it_shows(whole, monkeypatch):
    app = shown(whole, monkeypatch, "image", in_cell="tiny_dlfuzz")
    next(button for button in app.button if button.label == "Next").click().run()
    choices = app.session_state["record"].choices
    assert choices["Image"] == app.selectbox(key="image").value
    assert choices["Cell"] == "tiny_dlfuzz"
    app = shown(whole, monkeypatch, "claims", study="tiny")
    verdicts = app.multiselect(key="verdicts").options[:2]
    app.multiselect(key="verdicts").set_value(verdicts).run()
    assert app.session_state["record"].choices["Verdict"] == ", ".join(verdicts)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_built_says_what_to_run(alone, monkeypatch, page):
    shutil.rmtree(alone / "data")
    study = ABOUT.get(page, ["tiny"])[0]
    app = shown(alone, monkeypatch, page, study=study)
    assert f"make repro STUDY={study}" in app.info[0].value


@pytest.fixture(scope="module")
def cloned(published, tmp_path_factory):
    """A clone has the results in git, of presets too, some of an earlier revision."""
    folder = tmp_path_factory.mktemp("cloned")
    shutil.copytree(ROOT / "dashboard", folder / "dashboard")
    (folder / "data").mkdir()
    for name in ("params.yaml", "data/results"):
        (folder / name).symlink_to(published / name)
    for name in ("dvc.lock", "lib"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_every_study_in_git_is_shown(cloned, monkeypatch, page):
    app = shown(cloned, monkeypatch, page)
    studies = app.selectbox(key="study").options
    assert len(studies) >= 10
    for study in studies:
        app.selectbox(key="study").set_value(study).run()
        assert not app.exception, (study, app.exception)
        for cell in [box for box in app.selectbox if box.key == "cell"]:
            for name in cell.options:
                cell.set_value(name).run()
                assert not app.exception, (study, name, app.exception)


def test_a_missing_artefact_says_what_to_run(alone, monkeypatch):
    for page, study in (("image", "tiny"), ("layers", "tiny"), ("signatures", "tiny_inspecting"),
                        ("compare", "tiny"), ("models", "tiny_generalising")):  # fmt: skip
        app = shown(alone, monkeypatch, page, study=study)
        assert [box.value for box in app.info if f"make repro STUDY={study}" in box.value]
        assert page in ("image", "compare") or app.get("plotly_chart")


def test_an_unknown_study_or_cell_in_the_address_is_not_taken(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers", study="../../etc", cell="../none")
    assert app.selectbox(key="study").value in STUDIES
    assert app.selectbox(key="cell").value in app.selectbox(key="cell").options


def test_a_link_restores_the_view(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers", study="tiny", cell="tiny_fgsm", layer="1-1",
                figure="Compromised layers", measure="similarity under noise")  # fmt: skip
    assert app.selectbox(key="cell").value == "tiny_fgsm"
    assert app.selectbox(key="layer").value == "1-1"
    assert app.selectbox(key="figure").value == "Compromised layers"
    assert app.selectbox(key="measure").value == "noise"


def test_every_figure_of_every_cell_is_shown(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers")
    for cell in app.selectbox(key="cell").options:
        app.selectbox(key="cell").set_value(cell)
        for figure in app.selectbox(key="figure").options:
            app.selectbox(key="figure").set_value(figure).run()
            assert not app.exception, (cell, figure)


def test_every_choice_of_the_strip_is_shown(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers")
    for key, values in {
        "measure": ["adversarial", "noise", "excess"], "score": ["ssim", "cosine"],
        "target": ["seed_class", "own_top1"], "group": ["failure", "all", "success"],
        "method": app.selectbox(key="method").options, "rows": ["methods", "controls"],
    }.items():  # fmt: skip
        assert len(app.selectbox(key=key).options) == len(values) + (key == "rows")
        for value in values:
            app.selectbox(key=key).set_value(value).run()
            assert not app.exception, (key, value)


def test_every_network_with_maps_shows_its_layers(whole, monkeypatch):
    app = shown(whole, monkeypatch, "models", study="tiny_generalising")
    for end in app.selectbox(key="end").options:
        app.selectbox(key="end").set_value(end).run()
        assert not app.exception, end
        assert len(app.get("image")) > 3


def test_two_revisions_are_compared(alone, monkeypatch):
    """In a repository of its own: the second commit has another seed and another accuracy."""
    lib, settings_file = alone / "lib", alone / "params.yaml"
    text = settings_file.read_text()
    lib.unlink(), settings_file.unlink()
    settings_file.write_text(text)
    lib.symlink_to(ROOT / "lib")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def git(*words):
        subprocess.run(["git", *who, *words], cwd=alone, check=True, capture_output=True)

    git("init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=alone, check=True)
    git("add", ".dvc", "data/results", "params.yaml")
    git("commit", "-qm", "first")
    metrics = alone / "data" / "results" / "tiny" / "metrics.json"
    metrics.write_text(re.sub(r'"accuracy": [0-9.]+', '"accuracy": 0.123', metrics.read_text()))
    settings_file.write_text(re.sub("(?m)^seed: 1", "seed: 7", text))
    claims = alone / "data" / "results" / "tiny" / "tables" / "claims.csv"
    table = pd.read_csv(claims, dtype=str, keep_default_na=False)
    table.loc[table["id"] == "A1", "verdict"] = "turned"
    table.to_csv(claims, index=False)
    git("commit", "-qam", "second")
    app = shown(alone, monkeypatch, "revisions", study="tiny", with_metrics="true")
    assert any("dvc exp run" in box.value for box in app.caption)
    assert app.selectbox(key="after").value == "workspace"
    log = subprocess.run(["git", "log", "--format=%H"], cwd=alone, capture_output=True, text=True)
    second, first = log.stdout.split()
    app.selectbox(key="before").set_value(first)
    app.selectbox(key="after").set_value(second).run()
    table, settings, verdicts, metrics = (frame.value for frame in app.dataframe[:4])
    assert table["what"].tolist() == ["what is in this folder", "second", "first"]
    assert table["seed"].tolist() == [7, 7, 1]
    assert table["tiny_fgsm.accuracy"].iloc[1] == 0.123
    assert settings["name"].tolist() == ["seed"]
    assert verdicts[["name", "after"]].values.tolist() == [["A1", "turned"]]
    assert set(metrics["after"]) == {"0.123"}
    assert app.selectbox(key="png").options
    # The folder has the content of the last commit until a file changes.
    app.selectbox(key="before").set_value(second)
    app.selectbox(key="after").set_value("workspace").run()
    assert [box.value for box in app.caption].count("None.") == 3
    settings_file.write_text(re.sub("(?m)^seed: 1", "seed: 9", text))
    app.run()
    assert app.dataframe[1].value[["name", "after"]].values.tolist() == [["seed", "9"]]
    # A commit whose settings nobody can read has none.
    settings_file.write_text(f"<<<<<<< ours\n{text}")
    git("commit", "-qam", "third")
    settings_file.write_text(text)
    app = shown(alone, monkeypatch, "revisions", study="tiny", with_metrics="true")
    assert app.dataframe[0].value["seed"].isna().tolist() == [False, True, False, False]


def test_a_revision_whose_cache_is_not_here_shows_what_git_has(alone, monkeypatch):
    """As in a clone: dvc.lock names results of the machine that wrote it."""

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=alone, check=True, capture_output=True)

    for name in ("params.yaml", "lib"):
        (alone / name).unlink()
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, alone / name)
    for name in ("dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, alone / name)
    git("init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=alone, check=True)
    (alone / "data" / "results" / "tiny").rename(alone / "data" / "results" / "layers")
    git("add", ".dvc", "data/results", "params.yaml", "dvc.yaml", "dvc.lock")
    git("commit", "-qm", "first")
    monkeypatch.chdir(alone)
    import streamlit as st

    st.cache_data.clear()
    sys.modules.pop("revisions", None)
    monkeypatch.syspath_prepend(alone / "dashboard")
    import revisions

    sha = revisions.workspace().sha
    assert revisions.metrics(sha, "layers")["tiny_fgsm.accuracy"] > 0
    names = revisions.figures(sha, "layers")
    assert names
    assert revisions.figure(sha, "layers", names[0]).startswith(b"\x89PNG")


def test_results_of_an_earlier_revision_say_so(whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "whole", symlinks=True)
    reports = folder / "data" / "reports"
    source = reports.resolve()
    reports.unlink()
    shutil.copytree(source, reports)
    file = reports / "tiny" / "settings.json"
    file.write_text(file.read_text().replace('"strengths"', '"multiples"'))
    app = shown(folder, monkeypatch, study="tiny")
    assert "is of an earlier revision" in app.info[0].value
    assert "make repro STUDY=tiny" in app.info[0].value


def test_names_are_text_whatever_they_hold():
    names = ["<img src=x onerror=alert(1)>", "a $\\frac{$ b", "_hidden"]
    table = pd.DataFrame({"series": names, "x": ["p", "$q^2$", "p"], "y": [1.0, 2.0, 3.0]})
    figure = drawing.Figure("f", names[0], "", "bars", table, "x", "y")
    drawn = drawing.plotly(figure)
    assert drawn.data[0].name == "&lt;img src=x onerror=alert(1)&gt;"
    assert "<" not in drawn.layout.title.text
    assert drawing.rendered(figure).startswith(b"\x89PNG")
    assert drawing.rendered(figure, form="svg") == drawing.rendered(figure, form="svg")
    sides = [Image.open(io.BytesIO(drawing.rendered(figure, dpi=dpi))).size for dpi in (100, 300)]
    assert sides[1] == tuple(3 * side for side in sides[0])
    axes = Canvas().add_subplot()
    drawing._draw(figure, axes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["p", r"\$q^2\$"]
    assert len(axes.legend().get_texts()) == 3


def test_bars_stand_over_their_own_names():
    """Series may hold different places, as verdicts hold different papers."""
    table = pd.DataFrame({"series": ["a", "a", "b"], "x": ["p", "q", "r"], "y": [1.0, 2.0, 3.0]})
    axes = Canvas().add_subplot()
    drawing._draw(drawing.Figure("f", "t", "", "bars", table, "x", "y"), axes)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    by_height = {round(bar.get_height()): labels[round(bar.get_x() + bar.get_width() / 2)]
             for bar in axes.patches}  # fmt: skip
    assert by_height == {1: "p", 2: "q", 3: "r"}


def test_claims_are_filtered_and_opened(whole, monkeypatch):
    app = shown(whole, monkeypatch, "claims")
    assert len(app.dataframe[0].value) == 23
    app.multiselect(key="verdicts").set_value(["holds"]).run()
    assert set(app.dataframe[0].value["verdict"]) == {"holds"}
    # A filter that no claim of the other study meets is dropped.
    app.multiselect(key="verdicts").set_value(["does not hold"]).run()
    app.selectbox(key="study").set_value("tiny_detectors").run()
    assert set(app.dataframe[0].value["of"]) == {"tan2023"}
    app.multiselect(key="verdicts").set_value([]).run()
    assert len(app.dataframe[0].value) == 10
    for place in range(len(app.selectbox(key="claim").options)):
        app.selectbox(key="claim").select_index(place).run()
        assert not app.exception, place


def test_a_claim_shows_the_figures_that_its_paper_names(whole, monkeypatch):
    app = shown(whole, monkeypatch, "claims")
    for claim, charts, pictures in (("A2", 2, 0), ("A9", 1, 0), ("A15", 0, 0), ("B5", 0, 1)):
        if claim == "B5":
            app.selectbox(key="study").set_value("tiny_detectors").run()
        app.selectbox(key="claim").set_value(claim).run()
        assert len(app.get("plotly_chart")) == charts, claim
        assert len(app.get("image")) == pictures, claim


def test_the_image_page_steps_and_orders(whole, monkeypatch):
    app = shown(whole, monkeypatch, "image", cell="tiny_dlfuzz")
    before = app.selectbox(key="image").value
    buttons = {button.label: button for button in app.button}
    buttons["Next"].click().run()
    assert app.selectbox(key="image").value != before
    for order in ("most drifted", "class flipped", "missed by the detector"):
        app.selectbox(key="order").set_value(order).run()
        assert not app.exception, order
    app.selectbox(key="order").set_value("as in the set").run()  # the others may have no image
    for look in ("map", "difference to the clean map"):
        app.segmented_control(key="look").set_value(look).run()
        assert not app.exception, look


def test_provenance_names_the_date_and_the_processor_of_the_run(whole, tmp_path, monkeypatch):
    shutil.copytree(whole / "dashboard", tmp_path / "dashboard")
    (tmp_path / "data").mkdir()
    for name in ("params.yaml", "lib", "data/reports"):
        (tmp_path / name).symlink_to(whole / name)
    with inside(tmp_path):
        run._record(run.Stage("cam@tiny_fgsm"))
    app = shown(tmp_path, monkeypatch, "provenance", study="tiny")
    (text,) = [text.value for text in app.text if "cores" in text.value]
    assert re.search(r"Last stage ended \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n", text)
    assert run.environment()["cpu"] in text


def test_images_are_ordered_by_their_drift_at_a_layer(whole, tiny, monkeypatch):
    app = shown(whole, monkeypatch, "image", in_cell="tiny_dlfuzz", order="most drifted")
    orders = {}
    for layer in ("1-1", "2-1"):
        app.selectbox(key="drifted_at").set_value(layer).run()
        assert not app.exception
        orders[layer] = app.selectbox(key="image").options
    plan = tiny.settings
    with inside(tiny.folder):
        cell = plan.cells["tiny_dlfuzz"]
        first = settings.protocols(plan.protocols)[cell.protocols[0]]
        opened = case.read("tiny", "tiny_dlfuzz", cell, first)
        names = opened.attacked.images.set_index("image")["id"].astype(str)
        for layer, order in orders.items():
            rows = case.pairs("tiny", "tiny_dlfuzz", first, strength=1.0, score="cosine",
                              layer=layer, target="own_top1", method="GradCAM")  # fmt: skip
            alike = rows.set_index("image")["adversarial"].dropna()
            assert alike[names[names == order[0]].index[0]] == alike.min()
    assert orders["1-1"] != orders["2-1"]


def test_the_images_behind_a_bar_are_those_of_its_scores(whole, monkeypatch):
    app = shown(whole, monkeypatch, "detectors", study="tiny_detectors", cell="tiny_pgd")
    box = next(box for box in app.selectbox if str(box.key).startswith("bin_"))
    counts = []
    for place, option in zip(box.format_func.__self__, box.options, strict=True):
        low, high, count = re.fullmatch(r"(\S+) to (\S+) \((\d+)\)", option).groups()
        assert float(low) < float(high)
        counts.append(int(count))
        app.selectbox(key=box.key).set_value(place).run()
        assert not app.exception
        links = [link.proto.label for link in app.get("page_link")]
        assert len(links) == len(app.get("image")) == min(int(count), 24)
        assert all(label.split()[0] in ("clean", "noise", "kept", "flipped") for label in links)
    judged = pd.read_csv(whole / "data/reports/tiny_detectors/tables/judged.csv")
    own = judged.query("cell == 'tiny_pgd' and strength == 1")[app.selectbox(key="detector").value]
    assert sum(counts) == own.notna().sum()


def test_a_threshold_moves_the_rates(whole, monkeypatch):
    app = shown(whole, monkeypatch, "detectors", study="tiny_detectors", cell="tiny_dlfuzz")
    slider = next(slider for slider in app.slider if str(slider.key).startswith("limit_"))
    slider.set_value(slider.min).run()
    assert not app.exception
    assert [app.metric[0].value, app.metric[1].value] == ["100%", "100%"]


def test_a_rate_to_reach_sets_the_threshold(whole, monkeypatch):
    app = shown(whole, monkeypatch, "detectors", study="tiny_detectors", cell="tiny_pgd")
    name = app.selectbox(key="detector").value
    judged = pd.read_csv(whole / "data/reports/tiny_detectors/tables/judged.csv")
    judged = judged.query("cell == 'tiny_pgd' and strength == 1").dropna(subset=[name])
    for wanted in (100, 80, 1):
        app.number_input(key="tpr").set_value(wanted).run()
        limit = next(box for box in app.slider if str(box.key).startswith("limit_")).value
        hit = judged.loc[judged["kind"] == "success", name]
        assert (hit >= limit).mean() >= wanted / 100
        assert (hit > limit).mean() < wanted / 100
        benign = judged.loc[judged["kind"].isin(["clean", "noise"]), name]
        rates = (hit >= limit).mean(), (benign >= limit).mean()
        assert [metric.value for metric in app.metric[:2]] == [f"{rate:.0%}" for rate in rates]
        assert f"{len(benign)} images" in app.metric[1].delta
    # Another detector is shown at the same rate; a threshold that is moved by hand has none.
    app.number_input(key="tpr").set_value(80).run()
    app.selectbox(key="detector").set_value("energy").run()
    assert float(app.metric[0].value.rstrip("%")) >= 80
    slider = next(box for box in app.slider if str(box.key).startswith("limit_"))
    slider.set_value(slider.max).run()
    assert app.number_input(key="tpr").value is None


def test_the_best_detector_comes_first(whole, monkeypatch):
    app = shown(whole, monkeypatch, "detectors", study="tiny_detectors", cell="tiny_pgd")
    values = [float(text.split()[0]) for text in app.dataframe[0].value["AUROC"] if text]
    assert values == sorted(values, reverse=True)
    assert app.selectbox(key="detector").value == app.dataframe[0].value["detector"].iloc[0]


def test_the_answer_has_every_verdict_of_every_study(whole, monkeypatch):
    app = shown(whole, monkeypatch)
    assert app.header[0].value == "The answer so far"
    assert len(app.dataframe) == len(STUDIES)
    for study, paper in STUDIES.items():
        claims = pd.read_csv(whole / "data/reports" / study / "tables/claims.csv")
        run = claims[claims["verdict"] != "not run here"]
        table = next(frame.value for frame in app.dataframe if study in frame.value)
        assert len(table) == len(claims), paper
        fields = table.set_index("claim")[study]
        assert (fields != "").sum() == len(run)
        for row in run.itertuples():
            letter = {"holds": "H", "holds in part": "P", "does not hold": "N", "no effect": "0",
                      "not decided": "?"}[row.verdict]  # fmt: skip
            assert fields[row.id].startswith(letter)
            if pd.notna(row.value):
                assert f" {row.value:.3f} " in fields[row.id]
            if pd.notna(row.images):
                assert f"n={row.images:.0f}" in fields[row.id]


def test_two_choices_stand_side_by_side(whole, monkeypatch):
    app = shown(whole, monkeypatch, "compare", study="tiny")
    methods = [app.selectbox(key=f"method_{side}").value for side in ("left", "right")]
    assert methods[0] != methods[1]  # of one cell
    texts = titles(app)
    assert len(texts) == 2 * 3  # clean, attacked, noise; of one method alone the negation, too
    app.selectbox(key="method_right").set_value(methods[0]).run()
    texts = titles(app)
    assert len(texts) == 2 * 4
    for key, value in (("layer_left", "1-1"), ("cell_right", "tiny_pgd"), ("study_right", "tiny"),
                       ("strength_left", 2.0), ("target_right", "seed_class")):  # fmt: skip
        app.selectbox(key=key).set_value(value).run()
        assert not app.exception, key
        assert titles(app) != texts or key == "study_right", key
        texts = titles(app)
    app.selectbox(key="study_right").set_value("tiny_maps").run()
    assert not app.exception
    app.selectbox(key="study").set_value("tiny_maps").run()  # the left side was never chosen
    assert app.selectbox(key="study_left").value == "tiny_maps"


def test_two_cells_stand_in_one_figure(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers", study="tiny", cell="tiny_fgsm")
    options = app.selectbox(key="beside").options
    assert "tiny: tiny_none" not in options  # it flips no class
    assert any(option.startswith("tiny_maps: ") for option in options)
    for value in options:
        app.selectbox(key="beside").set_value(value).run()
        assert not app.exception
        drawn = next(json.loads(chart.proto.spec) for chart in app.get("plotly_chart")
                     if f"tiny: tiny_fgsm and {value}" in chart.proto.alt)  # fmt: skip
        cells = [name.split(": ") for name in ("tiny: tiny_fgsm", value)]
        for trace, (study, cell) in zip(drawn["data"], cells, strict=True):
            table = pd.read_csv(whole / f"data/reports/{study}/tables/excess.csv")
            rows = table[table["cell"] == cell].query(
                "strength == 1 and group == 'success' and target == 'own_top1' and "
                "layer != 'mean' and decided"
            )
            there = values(trace["y"])
            np.testing.assert_allclose(there[~np.isnan(there)], rows["mean"])


def test_detectors_of_two_cells_stand_in_one_figure(whole, monkeypatch):
    app = shown(whole, monkeypatch, "detectors", study="tiny_detectors", cell="tiny_pgd")
    assert app.selectbox(key="beside").options
    (figure,) = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")
                 if chart.proto.alt.startswith("tiny_detectors: tiny_pgd and ")]  # fmt: skip
    table = pd.read_csv(whole / "data/reports/tiny_detectors/tables/detectors.csv").query(
        "strength == 1 and positives == 'success' and negatives == 'both'"
    )
    for trace in figure["data"]:
        cell = trace["name"].removeprefix("tiny_detectors: ")
        own = table[table["cell"] == cell].groupby("detector")["auroc"]
        assert len(trace["x"]) == len(set(trace["x"])) == len(own)
        np.testing.assert_allclose(values(trace["y"]), own.first()[trace["x"]])


def test_layers_of_two_networks_stand_at_their_depth(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    import charts

    def rows(*labels: str) -> pd.DataFrame:
        return pd.DataFrame({"layer": labels, "mean": 0.5, "low": 0.4, "high": 0.6,
                             "decided": True})  # fmt: skip

    whole = charts.two_excesses({"one": rows("1-1", "1-2", "2-1"), "two": rows("0", "1")})
    assert whole.table["x"].tolist() == [0, 0.5, 1, 0, 1]
    same = charts.two_excesses({"one": rows("0", "1"), "two": rows("0", "1")})
    assert same.table["x"].tolist() == ["0", "1", "0", "1"]


def test_a_bar_counts_the_images_that_it_opens(monkeypatch):
    """On whole numbers, which lie on the edges of bins."""
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    import charts

    for greatest in (3, 30, 45):
        scores = np.arange(greatest + 1).repeat(2)
        rows = pd.DataFrame({"kind": ["clean", "success"] * (greatest + 1), "clusters": scores})
        edges, places = charts.bins(rows["clusters"])
        assert (edges[places] <= scores).all() and (scores <= edges[places + 1]).all()
        figure = charts.histogram(rows, "clusters")
        for _, part in figure.table.groupby("series"):
            np.testing.assert_array_equal(part["y"], np.bincount(places, minlength=30) // 2)
        assert (np.bincount(places)[places[scores == 1]] >= 2).all()


def test_a_browser_chooses_the_ticks_of_scores(monkeypatch):
    """One for each whole number up to a billion would keep it busy for minutes."""
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    import charts

    rows = pd.DataFrame({"kind": ["clean", "success"] * 50, "lid": np.geomspace(1, 1e9, 100)})
    axis = charts.with_threshold(charts.histogram(rows, "lid"), 5.0).layout.xaxis
    assert (axis.type, axis.dtick, axis.tickangle) == ("linear", None, None)


def test_without_a_case_the_detectors_page_shows_the_rest(whole, tmp_path, monkeypatch):
    """The gallery is of another study: its results, or its artefacts, may not be here."""
    shutil.copytree(whole / "dashboard", tmp_path / "dashboard")
    for name in ("params.yaml", "lib"):
        (tmp_path / name).symlink_to(whole / name)
    shutil.copytree(whole / "data" / "reports", tmp_path / "data" / "reports")
    for gone in (None, tmp_path / "data/reports/tiny/settings.json"):
        if gone is not None:
            gone.unlink()
        app = shown(tmp_path, monkeypatch, "detectors", study="tiny_detectors")
        assert [box for box in app.info if "make repro STUDY=tiny" in box.value]
        assert [box for box in app.subheader if box.value.startswith("Is NoiseCAM")]


def values(coded: list | dict) -> np.ndarray:
    """The numbers of a trace as Plotly writes them: a list, or the bytes of an array."""
    if isinstance(coded, dict):
        return np.frombuffer(base64.b64decode(coded["bdata"]), coded["dtype"]).astype(float)
    return np.array(coded, dtype=float)


def titles(app) -> list[str]:
    """The texts above the tiles."""
    chart = json.loads(app.get("plotly_chart")[0].proto.spec)
    return [each["text"] for each in chart["layout"]["annotations"]]


def test_the_similarity_beside_a_map_is_that_of_the_tables(tiny):
    plan, arms = tiny.settings, ("clean", "adversarial", "noise", "negated")
    with inside(tiny.folder):
        cell = plan.cells["tiny_pgd"]
        first = settings.protocols(plan.protocols)[cell.protocols[0]]
        opened, known_pairs = case.read("tiny", "tiny_pgd", cell, first), 0
        labels = opened.maps.layers["label"].tolist()
        for image in opened.attacked.images["image"].iloc[:8]:
            how = {"method": "GradCAM", "target": "seed_class"}
            maps = case.maps(opened, case.rows(opened, image, 1.0, arms=arms, **how))
            for place, layer in enumerate(labels):
                known = case.similarity(opened, image, 1.0, layer=layer, **how)
                assert all(maps[arm][place].any() for arm in arms) or any(
                    np.isnan(value) for value in known.values()
                )
                pairs = case.pairs("tiny", "tiny_pgd", first, strength=1.0, score="cosine",
                                   layer=layer, **how).set_index("image").loc[image]  # fmt: skip
                for arm in ("adversarial", "noise"):
                    assert known[arm] == pytest.approx(pairs[arm], nan_ok=True)
                known_pairs += not np.isnan(known["negated"])
        assert known_pairs > 30


def test_a_gallery_shows_the_images_of_a_field_in_their_order(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers", study="tiny", cell="tiny_fgsm", layer="2-1")
    rows = app.dataframe[0].value
    assert len(rows) > 24
    assert len(app.get("image")) == 24
    links = [link.proto.label for link in app.get("page_link")]
    assert len(links) == 24
    for link, row in zip(links, rows.itertuples(), strict=False):
        kept, value, name = re.fullmatch(r"(kept )?(empty|-?[\d.]+) (.+)", link).groups()
        assert bool(kept) != row.success
        assert name == str(row.class_name)
        assert (value == "empty") == np.isnan(row.excess)
        assert value == "empty" or float(value) == pytest.approx(row.excess, abs=0.0056)


def test_a_link_opens_what_it_says_whatever_was_chosen_before(whole, monkeypatch):
    app = shown(whole, monkeypatch, "claims", study="tiny_maps", verdicts="does not hold")
    del app.query_params["verdicts"]
    choices = {"study": "tiny", "claim": "A2"}
    for key, value in (choices | {"open": json.dumps(choices | {"verdicts": []})}).items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    assert app.selectbox(key="study").value == "tiny"
    assert app.selectbox(key="claim").value == "A2"
    assert app.multiselect(key="verdicts").value == []
    assert "open" not in app.query_params
    for text in ("{", '{"record": 1}', "[]"):  # not of ours
        app.query_params["open"] = text
        app.run()
        assert not app.exception, text


def test_a_gallery_begins_anew_with_another_field(whole, monkeypatch):
    app = shown(whole, monkeypatch, "layers", study="tiny", cell="tiny_fgsm", thumbnails="2")
    second = [link.proto.label for link in app.get("page_link")]
    app.selectbox(key="layer").set_value("1-1").run()
    rows = app.dataframe[0].value
    assert app.get("page_link")[0].proto.label.endswith(f" {rows['class_name'].iloc[0]}")
    assert [link.proto.label for link in app.get("page_link")] != second


def test_the_pictures_of_a_gallery_are_the_attacked_images(tiny):
    plan = tiny.settings
    with inside(tiny.folder):
        cell = plan.cells["tiny_fgsm"]
        first = settings.protocols(plan.protocols)[cell.protocols[0]]
        opened = case.read("tiny", "tiny_fgsm", cell, first)
        images = opened.attacked.images["image"].iloc[[5, 0, 3]].tolist()
        for image, picture in zip(images, case.pictures(opened, images, 2.0), strict=True):
            expected = case.pixels(opened, image, 2.0)["adversarial"]
            np.testing.assert_array_equal(picture, expected)
        for arm in ("clean", "noise"):
            for image, picture in zip(
                images, case.pictures(opened, images, 2.0, arm=arm), strict=True
            ):
                expected = case.pixels(opened, image, 2.0)[arm]
                np.testing.assert_array_equal(picture, expected)
        with pytest.raises(ValueError, match="wanted one of the strengths"):
            case.pictures(opened, images, 3.0)


def test_a_filter_of_verdicts_rules_the_claim_and_its_table(whole, monkeypatch):
    app = shown(whole, monkeypatch, "claims", study="tiny", verdicts="does not hold")
    table = pd.read_csv(whole / "data/reports/tiny/tables/claims.csv")
    mine = table.loc[table["verdict"] == "does not hold", "id"].tolist()
    assert app.selectbox(key="claim").options == mine
    assert app.subheader[0].value.startswith(f"{mine[0]}: ")


def test_an_address_that_names_what_is_not_here_says_so(whole, monkeypatch):
    app = shown(whole, monkeypatch, study="nowhere")
    assert "Study: the address asks for nowhere" in app.warning[0].value
    app = shown(whole, monkeypatch, "layers", study="tiny", cell="[elsewhere](http://x)")
    assert any(r"Cell: the address asks for \[elsewhere\](http" in box.value for box in app.warning)
    app.run()
    assert not any("elsewhere" in box.value for box in app.warning)


def test_a_threshold_as_chosen_gives_the_table_s_rates(whole):
    """The page first shows the rates of the evaluation."""
    tables = whole / "data" / "reports" / "tiny_detectors" / "tables"
    judged, limits, detectors = (
        pd.read_csv(tables / f"{name}.csv") for name in ("judged", "limits", "detectors")
    )
    keys = ["cell", "strength", "detector"]
    rows = detectors.query("positives == 'success' and negatives == 'both' and rule == 'chosen'")
    rows = rows.dropna(subset=["tpr"]).merge(limits.dropna(), on=keys)
    assert len(rows)
    for row in rows.itertuples():
        mine = judged[(judged["cell"] == row.cell) & (judged["strength"] == row.strength)]
        called = mine[row.detector] >= row.limit
        # Scores in the table are rounded: one at the threshold may fall to either side.
        close = (mine[row.detector] - row.limit).abs() < 1e-3
        hit = mine["kind"] == "success"
        assert abs(called[hit].mean() - row.tpr) <= close[hit].mean() + 5e-4


def test_pictures_are_those_that_the_model_was_given(tiny):
    plan = tiny.settings
    with inside(tiny.folder):
        for name, cell in plan.cells.items():
            known = settings.protocols(plan.protocols)
            protocols = [known[key] for key in cell.protocols]
            for first in protocols:
                opened = case.read(cell.study, name, cell, first)
                images = storage.read(ImageSet, storage.set_folder(cell.set))
                folder = storage.cell_folder
                attacked = storage.read(Attacked, folder(cell.study, name, "attack"))
                noise = storage.read(Noise, folder(cell.study, name, "noise"))
                composition = variants.compose(images, attacked, noise, protocols)
                image = int(attacked.images["image"].iloc[1])
                for variant in composition:
                    table = variant.table
                    alike = table["recipe"].iloc[0] == first.recipe and table["draw"].iloc[0] == 0
                    if variant.name not in ("adversarial", "noise") or not alike:
                        continue
                    pictures = case.pixels(opened, image, table["strength"].iloc[0])[variant.name]
                    assert np.array_equal(pictures, np.moveaxis(variant.pixels()[1], 0, -1))


def test_the_dashboard_imports_no_torch(whole):
    code = (
        "import sys; sys.path[:0] = ['lib', 'dashboard']; import frame, charts, tiles, lineage, "
        "revisions; from camdrift.papers import interface; from camdrift.analysis import flags; "
        "from camdrift.settings import PAPERS; [interface.paper(name) for name in PAPERS]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=whole, check=False).returncode == 0

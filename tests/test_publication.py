"""Publication: results brought into git, without images that not everybody may pass on."""

import shutil

import numpy as np
import pytest
from PIL import Image

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.ops import build, publication
from camdrift.settings import params, presets
from camdrift.storage import files
from conftest import ROOT, inside


@pytest.fixture
def folder(tmp_path):
    for name in ("params.yaml", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    with inside(tmp_path):
        yield tmp_path


def write(name, plan):
    """Writes the settings of a study, a table, two figures and the card of its set."""
    results.write_settings(name, params.holding({part: getattr(plan, part) for part in PARTS}))
    files.write_text(storage.results(name, "tables") / "claims.csv", "id\nA1\n")
    tile = [[np.zeros((16, 16, 3), dtype=np.uint8)]]
    for image in (True, False):
        drawn = drawing.panel(f"images_{image}", "", "", tile, ["one"], ["one"], images=image)
        drawing.png(drawn, storage.results(name, "figures") / f"{drawn.name}.png")
    cell = next(cell for cell in plan.cells.values() if cell.study == name)
    files.write_text(storage.set_datasheet(cell.set), "{}")
    files.write_text(storage.model_card(cell.model), "{}")
    return cell


PARTS = ("seed", "cells", "protocols", "statistics", "flags", "studies")
FIGURES = {"images_False"}


@pytest.mark.parametrize(
    ("name", "preset", "figures"),
    [("nips17_resnet18", "nips17", FIGURES), ("public_code", "public_code", None)],
)
def test_a_presets_results_are_published_without_images_of_others(folder, name, preset, figures):
    whole = presets.read(preset)
    parts = params.parse(whole.content).model_dump(mode="json", include=set(presets.PARTS))
    build.write(whole.content | parts, storage.COPIES / preset / "params.yaml")
    cell = write(name, whole.settings)
    files.write_json(storage.results(name, "run.json"), {"stages": []})
    before = results.published(name, "tables") / "of_before.csv"
    files.write_text(before, "of a revision whose tables had other names")
    publication.publish(params.load(), [name])
    there = {path.stem for path in results.published(name, "figures").iterdir()}
    assert there == (figures or {"images_False", "images_True"})
    for part in ("run.json", "settings.json", "tables/claims.csv"):
        own, published = storage.results(name, part), results.published(name, part)
        assert own.read_bytes() == published.read_bytes()
    assert storage.published(storage.set_datasheet(cell.set)).is_file()
    assert storage.published(storage.model_card(cell.model)).is_file()
    assert not before.exists()
    assert not (storage.RESULTS / "run.json").exists()


@pytest.mark.parametrize("images", [True, False])
def test_a_published_picture_has_fewer_colours_and_all_that_it_says_of_itself(folder, images):
    ramp = np.arange(200)[None, :, None] + np.random.default_rng(1).integers(30, size=(64, 200, 3))
    tile = [[ramp.astype(np.uint8)]]
    own, light = folder / "own.png", folder / "light.png"
    drawing.png(drawing.panel("one", "", "", tile, ["x"], ["y"], images=images), own)
    publication.lighten(own, light)
    assert light.stat().st_size < own.stat().st_size
    assert drawing.holds_images(light) == drawing.holds_images(own) == images
    before, after = (np.asarray(Image.open(file).convert("RGB"), float) for file in (own, light))
    assert before.shape == after.shape
    assert 0 < np.abs(before - after).mean() < 4


def test_a_default_study_is_published_with_what_its_stages_took(folder):
    write("layers", params.load())
    environment = {"cores": 2}
    run = {"stage": "cam@fgsm", "seconds": 1.5, "environment": environment}
    files.write_json(storage.RUNS / "cam@fgsm.json", run)
    publication.publish(params.load(), ["layers"])
    assert not (storage.RESULTS / "run.json").exists()  # it is of all studies
    studies = params.load().studies
    for name in studies.keys() - {"layers"}:
        shutil.copytree(
            storage.results("layers", ""), storage.results(name, ""), dirs_exist_ok=True
        )
    publication.publish(params.load(), list(studies))
    facts = files.read_json(storage.RESULTS / "run.json")
    assert facts["environment"] == environment
    assert [stage["seconds"] for stage in facts["stages"]] == [1.5]


def test_results_are_shown_from_here_or_else_from_git(folder):
    name = "layers"
    files.write_text(results.published(name, "settings.json"), "published")
    assert storage.shown(name, "tables") == results.published(name, "tables")
    write(name, params.load())
    assert storage.shown(name, "tables") == storage.results(name, "tables")
    assert list(results.load(name)["claims"]["id"]) == ["A1"]
    with pytest.raises(FileNotFoundError, match="no tables in data/results/layers"):
        results.load(name, results.published)


def test_a_study_without_results_is_refused_before_any_is_published(folder):
    write("layers", params.load())
    with pytest.raises(FileNotFoundError, match="make repro STUDY=detectors"):
        publication.publish(params.load(), ["layers", "detectors"])
    with pytest.raises(FileNotFoundError, match="make study NAME=<preset> STUDY=mine"):
        publication.publish(params.load(), ["mine"])
    assert not storage.RESULTS.exists()

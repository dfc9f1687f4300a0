"""Presets: what they need from elsewhere, the params.yaml they become, and what comes back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camdrift import attacks, storage
from camdrift.datasets import numbering
from camdrift.ops import build, needs
from camdrift.pipeline import run
from camdrift.settings import SettingsError, params, presets
from camdrift.settings.presets import Need
from camdrift.storage import files
from conftest import ROOT, TINY, inside

with inside(ROOT):
    CHOSEN = {name: presets.read(name) for name in [*presets.names(), TINY]}
NEEDY = [name for name, preset in CHOSEN.items() if preset.needs]
NEED = Need(what="photographs", where="a shelf", terms="none")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)
    for variable in build.FOLDERS.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def places(tmp_path, monkeypatch):
    root = tmp_path / "it's a path, = \\ with [everything]"
    root.mkdir()
    for preset in CHOSEN.values():
        for model in preset.settings.models.values():
            if str(model.weights).startswith("WEIGHTS/"):
                (root / model.weights.partition("/")[2]).touch()
    monkeypatch.setattr(files, "sha256", lambda file: file.stem.rpartition("-")[2].ljust(64, "0"))
    return dict.fromkeys(["DATA", "WEIGHTS"], root)


@pytest.fixture
def built(places, tmp_path):
    """A function: the name of a preset -> the settings in the params.yaml that is written."""

    def write(name):
        file = tmp_path / "params.yaml"
        build.write(build.placed(CHOSEN[name], places), file)
        return params.load(file)

    return write


@pytest.mark.parametrize("name", NEEDY)
def test_folders_that_are_lacking_are_said_in_three_lines(monkeypatch, tmp_path, name):
    monkeypatch.setenv("CAMDRIFT_WEIGHTS", str(tmp_path / "nowhere"))
    preset = CHOSEN[name]
    with pytest.raises(SettingsError) as fault:
        build.folders(preset)
    lines = str(fault.value).splitlines()
    assert len(lines) == 3 * len(preset.needs)
    for i, (folder, need) in enumerate(preset.needs.items()):
        value = "nothing" if folder == "DATA" else f"no folder '{tmp_path / 'nowhere'}'"
        request = f"preset '{name}' wanted {folder}=<folder> (or CAMDRIFT_{folder}), got {value}"
        assert lines[3 * i] == f"{request}: {need.what}"
        assert lines[3 * i + 1] == f"  where: {need.where}"
        assert lines[3 * i + 2] == f"  terms: {need.terms}"


@pytest.mark.parametrize("name", ["nips17", "generalise_faces"])
def test_a_file_that_is_not_in_its_folder_is_said_in_three_lines(tmp_path, name):
    with pytest.raises(SettingsError, match=r"\.(safetensors|pth), not there") as fault:
        build.placed(CHOSEN[name], dict.fromkeys(["DATA", "WEIGHTS"], tmp_path))
    assert len(str(fault.value).splitlines()) == 3


def test_the_sha256_of_a_file_that_names_its_own_is_filled_in(monkeypatch, tmp_path):
    places = dict.fromkeys(["DATA", "WEIGHTS"], tmp_path)
    (tmp_path / "xception-43020ad28.pth").write_bytes(b"not Xception")
    with pytest.raises(SettingsError, match="is damaged: wanted a sha256 that begins 43020ad28"):
        build.placed(CHOSEN["generalise_faces"], places)
    digest = "43020ad28".ljust(64, "e")
    monkeypatch.setattr(files, "sha256", lambda file: digest)
    content = build.placed(CHOSEN["generalise_faces"], places)
    assert content["models"]["people_xception"]["sha256"] == digest


@pytest.mark.parametrize("name", list(CHOSEN))
def test_a_preset_is_what_is_built(built, name):
    result, preset = built(name), CHOSEN[name].settings
    for part in presets.PARTS:
        assert list(getattr(result, part)) == list(getattr(preset, part)), part
    assert attacks.faults(result) == []


def test_the_written_file_has_other_settings_and_the_comments(places, built, tmp_path):
    result = built("nips17")
    assert result.sets["nips17"].path == places["DATA"].as_posix()
    assert result.models["resnet18"].weights.startswith(places["WEIGHTS"].as_posix())
    assert (result.detection.images, result.detection.adaptive.steps) == (120, 10)
    assert result.cells["resnet18_dlfuzz"].model == "resnet18"
    assert "# Every random draw is seeded" in (tmp_path / "params.yaml").read_text()
    result = built("imagenette")
    assert result.sets["imagenette"].arguments["root"] == places["DATA"].as_posix()
    assert built("noisecam_imagenet").cams.methods[-1] == "NoiseCAM"
    tiny, usual = built(TINY).detection, params.load().detection
    assert (tiny.adaptive.steps, tiny.images) == (4, usual.images)
    more = set(tiny.detectors) - set(usual.detectors)
    assert more == {"class_mahalanobis", "kde", "lid", "pasa", "recovery", "relevance"}
    own = {name: tiny.detectors[name] for name in more}
    assert tiny.detectors == usual.detectors | own | {
        "behaviour": usual.detectors["behaviour"] | {"copies": 10}
    }


def test_no_preset_is_a_copy_of_another():
    plans = [preset.settings.model_dump_json() for preset in CHOSEN.values()]
    assert len(set(plans)) == len(plans)


MINE = """\
sets:
  mine: {kind: folder, path: DATA}
models:
  mine: {architecture: resnet18, weights: IMAGENET1K_V1, new_head: true}
cells:
  mine: {attack: fgsm}
"""


FOLDS = """
sets:
  mine: {kind: digits, size: 32, folds: 2}
models:
  mine: {architecture: vgg11_bn, training: {}}
  other: {architecture: resnet18, training: {}}
studies:
  layers: {headline: fgsm}
  transfer: {paper: chakraborty2022, transferred: resnet18}
cells:
  fgsm: {model: mine, attack: fgsm, study: layers}
sources:
  other: {model: other}
targets:
  mine: {model: mine}
  other: {model: other}
"""


def test_folds_of_a_set_are_a_number(tmp_path):
    file = tmp_path / "folds.yaml"
    file.write_text(FOLDS)
    content = presets.read(str(file)).content
    assert {key: item["fold"] for key, item in content["sets"].items()} == {
        "mine_0": 0,
        "mine_1": 1,
    }
    assert {key: item["set"] for key, item in content["models"].items()} == {
        "mine_0": "mine_0", "mine_1": "mine_1", "other_0": "mine_0", "other_1": "mine_1"
    }  # fmt: skip
    cells = {key: (item["model"], item["source"], item["set"])
             for key, item in content["cells"].items()}  # fmt: skip
    assert cells == {"fgsm_0": ("mine_0", "mine_0", "mine_0"),
                     "fgsm_1": ("mine_1", "mine_1", "mine_1")}  # fmt: skip
    assert content["studies"]["layers"]["headline"] == "fgsm_0"
    assert list(content["sources"]) == ["other_0", "other_1"]
    assert {item["network"] for item in content["targets"].values()} == {"vgg11_bn", "resnet18"}


@pytest.mark.parametrize("count", ["1", "true", "'5'", "2.5"])
def test_a_wrong_number_of_folds_is_refused(tmp_path, count):
    file = tmp_path / "folds.yaml"
    file.write_text(FOLDS.replace("folds: 2", f"folds: {count}"))
    with pytest.raises(SettingsError, match=r"sets.mine.folds: wanted a whole number above 1"):
        presets.read(str(file))


def test_a_folder_and_a_known_network_are_eight_lines(monkeypatch, tmp_path):
    assert len(MINE.splitlines()) <= 8
    file = tmp_path / "my_birds.yaml"
    file.write_text(MINE)
    (tmp_path / "birds").mkdir()
    monkeypatch.setenv("CAMDRIFT_DATA", str(tmp_path / "birds"))
    preset = presets.read(str(file))
    plan = build.resolved(build.placed(preset, build.folders(preset)), [])
    assert plan.sets["mine"].path == (tmp_path / "birds").as_posix()
    assert (plan.sets["mine"].size, plan.sets["mine"].resize) == (224, 256)
    assert plan.models["mine"].set == "mine"
    assert plan.models["mine"].training.layers == "dense"
    assert plan.models["mine"].std == [0.229, 0.224, 0.225]
    cell = plan.cells["mine"]
    assert (cell.study, cell.set, cell.model, cell.source) == ("my_birds", "mine", "mine", "mine")
    assert cell.strengths == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert plan.studies["my_birds"].headline == "mine"
    assert plan.studies["my_birds"].paper == "renkhoff2022"
    assert cell.evaluation == "my_birds"  # without detectors there is none of its own
    monkeypatch.delenv("CAMDRIFT_DATA")
    with pytest.raises(SettingsError, match="wanted DATA=<folder>"):
        build.placed(preset, build.folders(preset))


def test_the_folder_that_links_lead_to_is_placed_as_the_images_are(monkeypatch, tmp_path):
    for name in ("data/set", "data/cache", "own"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("CAMDRIFT_DATA", str(tmp_path / "data"))
    file = tmp_path / "mine.yaml"
    for links, place in (("DATA/cache", "data/cache"), (str(tmp_path / "own"), "own")):
        file.write_text(MINE.replace("path: DATA", f"path: DATA/set, links: {links}"))
        preset = presets.read(str(file))
        (own,) = build.placed(preset, build.folders(preset))["sets"].values()
        assert (own["path"], own["links"]) == (str(tmp_path / "data/set"), str(tmp_path / place))


def test_a_study_of_detectors_is_a_line_more(tmp_path):
    file = tmp_path / "my_birds.yaml"
    file.write_text(
        MINE.replace("fgsm", "fgsm, detect: [1.0]")
        + "studies: {birds: {}, birds_detectors: {paper: tan2023}}\n"
    )
    plan = presets.read(str(file)).settings
    cell = plan.cells["mine"]
    assert (cell.study, cell.evaluation) == ("birds", "birds_detectors")
    assert plan.studies["birds"].headline == plan.studies["birds_detectors"].headline == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE + "sed: 1\n", "no key 'sed' (perhaps 'seed'); there are: attacks, cams"),
        (MINE.replace("fgsm", "pdg"), "cells.mine.attack: no attack 'pdg' in params.yaml"),
        (MINE.replace("mine: {a", "mine: 3 #"), "models.mine: wanted a map of these keys: arch"),
        (
            MINE.replace("cells:", "cells: 3 #").partition("  mine: {attack")[0],
            "cells: wanted a map",
        ),
        (MINE + "needs: {DATA: {what: birds}}\n", "needs.DATA.where: wanted, but not there"),
        (MINE + "detection: {imags: 3}\n", "detection: no key 'imags' (perhaps 'images')"),
        (
            MINE.replace("fgsm", "fgsm, detect: [1.0]"),
            "cells.mine.evaluation: wanted a study of paper tan2023, since the cell has strengths "
            "under `detect`, got 'mine' of renkhoff2022",
        ),
        ("[1, 2]", "wanted a map of settings"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_is_not_a_preset_is_refused(tmp_path, text, said):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as fault:
        _ = presets.read(str(file)).settings
    assert said in str(fault.value)


def test_changes_that_do_not_fit_are_refused():
    for change, said in (
        ("nothing.like.it=1", "SET: "), ("cams.methods=[]", "is not valid"), ("a=[", "SET: ")
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=said):
            build.resolved(None, [change])


def imagenet(folder, names):
    for name in names:
        (folder / name).mkdir()
    plan = CHOSEN["renkhoff_imagenet"].settings
    image_set = plan.sets["imagenet"].model_copy(update={"path": str(folder)})
    return plan.models["imagenet_vgg16"], image_set


def test_folders_of_imagenet_are_numbered_as_torchvision_does(tmp_path):
    wnids = numbering._wnids()
    assert len(wnids) == 1000
    model, image_set = imagenet(tmp_path, wnids[:-1])
    with pytest.raises(SettingsError, match=r"(?s)wanted 1,000 folders .* got 999") as fault:
        needs.numbered("imagenet_vgg16", model, image_set)
    assert len(str(fault.value).splitlines()) == 3
    (tmp_path / "tench").mkdir()
    with pytest.raises(SettingsError, match="named by wnid .* to 'tench'"):
        needs.numbered("imagenet_vgg16", model, image_set)
    (tmp_path / "tench").rename(tmp_path / wnids[-1])
    needs.numbered("imagenet_vgg16", model, image_set)


def test_weights_by_name_are_in_the_cache_or_would_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = CHOSEN["renkhoff_imagenet"].settings.models["imagenet_vgg16"]
    lines = needs.weights("imagenet_vgg16", model)
    assert len(lines) == 3
    assert "528 MB would be downloaded" in lines[0]
    assert lines[1].startswith("  where: https://download.pytorch.org/models/vgg16-397923af.pth")
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "vgg16-397923af.pth"
    file.write_bytes(b"half of it")
    with pytest.raises(SettingsError, match="is damaged"):
        needs.weights("imagenet_vgg16", model)
    monkeypatch.setattr(files, "sha256", lambda file: "397923af".ljust(64, "0"))
    (line,) = needs.weights("imagenet_vgg16", model)
    assert line.endswith(f"are in {file.parent}")


def test_a_folder_is_counted_as_it_will_be_split(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("anna", "bert"):
        (tmp_path / name).mkdir()
        for i in range(10):
            picture = rng.integers(0, 255, (20, 16, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    (tmp_path / "bert" / "broken.png").write_bytes(b"")
    image_set = CHOSEN["faces"].settings.sets["faces"]
    image_set = image_set.model_copy(update={"path": str(tmp_path), "size": 12, "resize": 12})
    counted = needs.counted("faces", image_set, seed=1, need=None)
    assert counted.splits == {"train": 17, "validation": 2, "test": 2}
    assert (counted.classes, counted.read) == (2, 21)
    assert counted.sample.shape[1:] == (12, 12, 3)
    assert counted.native == 20 * 16 * 3


def test_a_cell_is_within_another_by_its_name():
    parts = dict.fromkeys(presets.PARTS, {}) | {
        "sets": {"s": {"kind": "photos"}},
        "models": {"m": {"architecture": "vgg16_bn", "training": {}}},
        "cells": {"a": {"attack": "dlfuzz"}, "b": {"attack": "map_moving", "within": "a"}},
    }
    full = presets.filled(parts, "mine")
    assert full["cells"]["b"]["within"] == "studies/mine/a/attack"
    assert "within" not in full["cells"]["a"]  # it is the set's, unless said


def test_results_of_a_copy_are_brought_home(tmp_path):
    name, plan = "nips17_resnet18", CHOSEN["nips17"].settings
    copy = tmp_path / "copy"
    copy.mkdir()
    written = [
        storage.set_datasheet("nips17"), storage.model_card("resnet18"), storage.report(name),
        storage.results(name, "metrics.json"), storage.results(name, "figures") / "one.png",
    ]  # fmt: skip
    with inside(copy):
        for path in written:
            files.write_text(path, "{}")
    with inside(tmp_path):
        before = storage.results(name, "figures") / "of_before.png"
        files.write_text(before, "of a run whose figures have other names")
        build.gather(plan, [name], copy)
        assert all(path.is_file() for path in written)
        assert not before.exists()


def test_a_copy_has_the_code_and_loses_what_is_gone(tmp_path):
    folder = tmp_path / "copy"
    build.copied(folder)
    gone = folder / "lib" / "camdrift" / "attacks" / "of_before.py"
    built = folder / "data" / "sets" / "digits.npy"
    for file in (gone, built):
        files.write_text(file, "")
    build.copied(folder)
    assert not gone.exists()
    assert built.exists()
    assert not (folder / "dvc.lock").exists()
    assert (folder / "stages" / "attack.py").read_bytes() == (
        ROOT / "stages/attack.py"
    ).read_bytes()
    caches = [
        subprocess.run(
            [sys.executable, "-m", "dvc", "cache", "dir"], cwd=where, capture_output=True, text=True
        ).stdout.strip()
        for where in (folder, ROOT)
    ]
    assert Path(caches[0]) == (ROOT / caches[1]).resolve()
    # Stages record the code that was copied, whatever is checked out when they run.
    assert files.read_json(folder / run.COPIED) == run.revision()
    files.write_json(folder / run.COPIED, {"revision": "of then", "changed_files": 2})
    with inside(folder):
        facts = run.environment()
    assert (facts["revision"], facts["changed_files"]) == ("of then", 2)

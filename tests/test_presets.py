"""Presets: what they need from elsewhere, and how they reach `dvc exp run`."""

import pytest
from omegaconf import OmegaConf

from camdrift import params, presets
from camdrift.settings import SettingsError
from conftest import ROOT

CHOSEN = params.load(ROOT / "params.yaml")
NIPS = CHOSEN.presets["nips17"]


@pytest.fixture
def places(tmp_path):
    root = tmp_path / "it's a path, = \\ with [everything]"
    root.mkdir()
    for model in NIPS.models.values():
        (root / model.weights.partition("/")[2]).touch()
    return dict.fromkeys(["DATA", "WEIGHTS"], root)


def test_a_preset_says_what_it_needs_from_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("CAMDRIFT_DATA", raising=False)
    monkeypatch.setenv("CAMDRIFT_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError) as fault:
        presets.folders("nips17", NIPS)
    text = str(fault.value)
    assert "'nips17' wanted DATA=<folder> (or CAMDRIFT_DATA), got nothing" in text
    assert "images.csv" in text
    assert f"got no folder '{tmp_path / 'nowhere'}'" in text
    monkeypatch.setenv("CAMDRIFT_DATA", str(tmp_path))
    monkeypatch.setenv("CAMDRIFT_WEIGHTS", str(tmp_path))
    found = presets.folders("nips17", NIPS)
    with pytest.raises(
        SettingsError, match="squeezenet1_1_imagenet_fp16.safetensors, which is not"
    ):
        presets.overrides("nips17", NIPS, found)


def test_a_preset_without_needs_takes_nothing_from_elsewhere():
    tiny = CHOSEN.presets["tiny"]
    assert presets.folders("tiny", tiny) == {}
    assert presets.overrides("tiny", tiny, {}) == [
        f"{part}=${{presets.tiny.{part}}}" for part in presets.PARTS
    ]


def test_overrides_are_what_dvc_reads(places):
    from dvc.utils.hydra import apply_overrides

    given = places["DATA"].parent / "params.yaml"
    given.write_bytes((ROOT / "params.yaml").read_bytes())
    apply_overrides(given, presets.overrides("nips17", NIPS, places))
    built = params.load(given)
    assert list(built.cells) == list(NIPS.cells)
    assert list(built.studies) == list(NIPS.studies)
    assert built.sets["nips17"].path == str(places["DATA"])
    assert built.models["resnet18"].weights.startswith(str(places["WEIGHTS"]))
    assert built.detection.images == NIPS.override["detection.images"]
    assert OmegaConf.load(given).cells.resnet18_dlfuzz.model == "resnet18"


def test_an_unknown_preset_is_refused_with_those_that_are_there():
    with pytest.raises(SettingsError, match="no preset 'imagenet' in params.yaml; there are: nips"):
        presets.find(CHOSEN, "imagenet")

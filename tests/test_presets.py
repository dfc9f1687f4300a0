"""Presets: what they need from elsewhere, how they reach `dvc exp run`, and what comes back."""

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from omegaconf import OmegaConf

from camdrift import artifacts, drawing, files, params, presets
from camdrift.settings import SettingsError
from conftest import ROOT, inside

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


@pytest.fixture
def built(places):
    """A function: the name of a preset -> the settings that DVC writes for it."""

    def write(name):
        given = places["DATA"].parent / "params.yaml"
        given.write_bytes((ROOT / "params.yaml").read_bytes())
        apply_overrides(given, presets.overrides(name, CHOSEN.presets[name], places))
        return params.load(given)

    return write


@pytest.mark.parametrize("name", list(CHOSEN.presets))
def test_a_preset_is_what_is_built(built, name):
    made, preset = built(name), CHOSEN.presets[name]
    for part in presets.PARTS:
        assert list(getattr(made, part)) == list(getattr(preset, part)), part


def test_overrides_are_what_dvc_reads(places, built):
    built = built("nips17")
    given = places["DATA"].parent / "params.yaml"
    assert built.sets["nips17"].path == str(places["DATA"])
    assert built.models["resnet18"].weights.startswith(str(places["WEIGHTS"]))
    assert built.detection.images == NIPS.override["detection.images"]
    assert OmegaConf.load(given).cells.resnet18_dlfuzz.model == "resnet18"


def test_an_unknown_preset_is_refused_with_those_that_are_there():
    with pytest.raises(SettingsError, match="no preset 'imagenet' in params.yaml; there are: nips"):
        presets.find(CHOSEN, "imagenet")


class Tree:
    """A revision's files, as DVC's file system lends them."""

    def __init__(self, root):
        self.root = root

    def find(self, folder):
        files = (self.root / folder).rglob("*.*")
        return [file.relative_to(self.root).as_posix() for file in files]

    def cat_file(self, path):
        return (self.root / path).read_bytes()


@pytest.mark.parametrize("needs", [{}, {"DATA": "photographs"}])
def test_images_from_elsewhere_stay_behind(monkeypatch, tmp_path, needs):
    name = "nips17_resnet18"
    tile = [[np.zeros((16, 16, 3), dtype=np.uint8)]]
    with inside(tmp_path):
        for image in (True, False):
            drawn = drawing.panel(f"images_{image}", "", "", tile, ["one"], ["one"], images=image)
            drawing.png(drawn, artifacts.results(name, "figures") / f"{drawn.name}.png")
        cards = [artifacts.set_datasheet("nips17"), artifacts.model_card("resnet18")]
        for path in [artifacts.results(name, "metrics.json"), *cards]:
            files.write_text(path, "{}")
    tree = Tree(tmp_path)
    monkeypatch.setattr(presets.dvc.api, "DVCFileSystem", lambda **_: tree)
    with inside(tmp_path / "data"):
        presets.gather(NIPS.model_copy(update={"needs": needs}), [name], "study-nips17")
        figures = {path.stem for path in artifacts.results(name, "figures").iterdir()}
        assert figures == {"images_False"} | (set() if needs else {"images_True"})
        assert all(path.is_file() for path in [artifacts.results(name, "metrics.json"), *cards])

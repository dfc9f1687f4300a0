"""Presets: what they need from elsewhere, how they reach `dvc exp run`, and what comes back."""

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from camdrift import storage
from camdrift.analysis import drawing
from camdrift.datasets import numbering
from camdrift.ops import needs, presets
from camdrift.settings import Need, SettingsError, params
from camdrift.storage import files
from conftest import ROOT, inside

CHOSEN = params.load(ROOT / "params.yaml")
NIPS = CHOSEN.presets["nips17"]


NEEDY = [name for name, preset in CHOSEN.presets.items() if preset.needs]
NEED = Need(what="photographs", where="a shelf", terms="none")


@pytest.fixture
def places(tmp_path, monkeypatch):
    root = tmp_path / "it's a path, = \\ with [everything]"
    root.mkdir()
    for preset in CHOSEN.presets.values():
        for model in preset.models.values():
            if str(model.weights).startswith("WEIGHTS/"):
                (root / model.weights.partition("/")[2]).touch()
    monkeypatch.setattr(files, "sha256", lambda file: file.stem.rpartition("-")[2].ljust(64, "0"))
    return dict.fromkeys(["DATA", "WEIGHTS"], root)


@pytest.mark.parametrize("name", NEEDY)
def test_what_a_preset_lacks_is_said_in_three_lines(monkeypatch, tmp_path, name):
    monkeypatch.delenv("CAMDRIFT_DATA", raising=False)
    monkeypatch.setenv("CAMDRIFT_WEIGHTS", str(tmp_path / "nowhere"))
    preset = CHOSEN.presets[name]
    with pytest.raises(SettingsError) as fault:
        presets.folders(name, preset)
    lines = str(fault.value).splitlines()
    assert len(lines) == 3 * len(preset.needs)
    for i, (folder, need) in enumerate(preset.needs.items()):
        got = "nothing" if folder == "DATA" else f"no folder '{tmp_path / 'nowhere'}'"
        wanted = f"preset '{name}' wanted {folder}=<folder> (or CAMDRIFT_{folder}), got {got}"
        assert lines[3 * i] == f"{wanted}: {need.what}"
        assert lines[3 * i + 1] == f"  where: {need.where}"
        assert lines[3 * i + 2] == f"  terms: {need.terms}"


def test_a_file_that_is_not_in_its_folder_is_said_in_three_lines(monkeypatch, tmp_path):
    for folder in presets.FOLDERS.values():
        monkeypatch.setenv(folder, str(tmp_path))
    for name in ("nips17", "generalise_faces"):
        preset = CHOSEN.presets[name]
        with pytest.raises(SettingsError, match=r"\.(safetensors|pth), not there") as fault:
            presets.overrides(name, preset, presets.folders(name, preset))
        assert len(str(fault.value).splitlines()) == 3


def test_the_sha256_of_a_file_that_names_its_own_is_filled_in(monkeypatch, tmp_path):
    preset = CHOSEN.presets["generalise_faces"]
    file = tmp_path / "xception-43020ad28.pth"
    file.write_bytes(b"not Xception")
    with pytest.raises(SettingsError, match="is damaged: wanted a sha256 that begins 43020ad28"):
        presets.overrides("generalise_faces", preset, dict.fromkeys(["DATA", "WEIGHTS"], tmp_path))
    digest = "43020ad28".ljust(64, "e")
    monkeypatch.setattr(files, "sha256", lambda file: digest)
    found = presets.overrides(
        "generalise_faces", preset, dict.fromkeys(["DATA", "WEIGHTS"], tmp_path)
    )
    assert f"presets.generalise_faces.models.people_xception.sha256={digest}" in found


def test_a_preset_without_needs_takes_nothing_from_elsewhere():
    tiny = CHOSEN.presets["tiny"]
    assert presets.folders("tiny", tiny) == {}
    assert presets.overrides("tiny", tiny, {}) == [
        f"{part}=${{presets.tiny.{part}}}" for part in presets.PARTS
    ]


@pytest.fixture
def built(places, monkeypatch):
    """A function: the name of a preset -> the settings that DVC writes for it."""
    monkeypatch.chdir(ROOT)
    return lambda name: presets.resolved(presets.overrides(name, CHOSEN.presets[name], places))


@pytest.mark.parametrize("name", list(CHOSEN.presets))
def test_a_preset_is_what_is_built(built, name):
    made, preset = built(name), CHOSEN.presets[name]
    for part in presets.PARTS:
        assert list(getattr(made, part)) == list(getattr(preset, part)), part


def test_overrides_are_what_dvc_reads(places, built):
    made = built("nips17")
    assert made.sets["nips17"].path == str(places["DATA"])
    assert made.models["resnet18"].weights.startswith(str(places["WEIGHTS"]))
    assert made.detection.images == NIPS.override["detection.images"]
    assert made.cells["resnet18_dlfuzz"].model == "resnet18"
    made = built("imagenette")
    assert made.sets["imagenette"].arguments["root"] == str(places["DATA"])
    assert built("noisecam_imagenet").cams.methods[-1] == "NoiseCAM"


def test_no_preset_is_a_copy_of_another(built):
    plans = [CHOSEN.presets[name].model_dump_json() for name in CHOSEN.presets]
    assert len(set(plans)) == len(plans)


def test_changes_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    for change, said in (
        ("nothing.like.it=1", "SET: "), ("cams.methods=[Nothing]", "is not valid"), ("a=[", "SET: ")
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=said):
            presets.resolved([change])


def test_a_comment_never_stands_under_a_key_that_a_preset_leaves_empty():
    # DVC could not write it back, see params.yaml.
    lines = (ROOT / "params.yaml").read_text().splitlines()
    kept = set()
    for preset in CHOSEN.presets.values():
        kept |= {part for part in presets.PARTS if not getattr(preset, part)}
    for line, following in zip(lines, lines[1:], strict=False):
        if line.rstrip(":") in kept and line.endswith(":"):
            assert not following.lstrip().startswith("#"), line
    YAML(typ="safe").load("\n".join(lines))


def imagenet(folder, names):
    for name in names:
        (folder / name).mkdir()
    preset = CHOSEN.presets["renkhoff_imagenet"]
    chosen = preset.sets["imagenet"].model_copy(update={"path": str(folder)})
    return preset.models["imagenet_vgg16"], chosen


def test_folders_of_imagenet_are_numbered_as_torchvision_does(tmp_path):
    wnids = numbering._wnids()
    assert len(wnids) == 1000
    model, chosen = imagenet(tmp_path, wnids[:-1])
    with pytest.raises(SettingsError, match=r"(?s)wanted 1,000 folders .* got 999") as fault:
        needs.numbered("imagenet_vgg16", model, chosen)
    assert len(str(fault.value).splitlines()) == 3
    (tmp_path / "tench").mkdir()
    with pytest.raises(SettingsError, match="named by wnid .* to 'tench'"):
        needs.numbered("imagenet_vgg16", model, chosen)
    (tmp_path / "tench").rename(tmp_path / wnids[-1])
    needs.numbered("imagenet_vgg16", model, chosen)


def test_weights_by_name_are_in_the_cache_or_would_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = CHOSEN.presets["renkhoff_imagenet"].models["imagenet_vgg16"]
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
    chosen = CHOSEN.presets["faces"].sets["faces"]
    chosen = chosen.model_copy(update={"path": str(tmp_path), "size": 12, "resize": 12})
    found = needs.counted("faces", chosen, seed=1, need=None)
    assert found.splits == {"train": 17, "validation": 2, "test": 2}
    assert (found.classes, found.read) == (2, 21)
    assert found.sample.shape[1:] == (12, 12, 3)
    assert found.native == 20 * 16 * 3


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


@pytest.mark.parametrize("lent", [{}, {"DATA": NEED}])
def test_images_from_elsewhere_stay_behind(monkeypatch, tmp_path, lent):
    name = "nips17_resnet18"
    tile = [[np.zeros((16, 16, 3), dtype=np.uint8)]]
    with inside(tmp_path):
        for image in (True, False):
            drawn = drawing.panel(f"images_{image}", "", "", tile, ["one"], ["one"], images=image)
            drawing.png(drawn, storage.results(name, "figures") / f"{drawn.name}.png")
        cards = [storage.set_datasheet("nips17"), storage.model_card("resnet18")]
        for path in [storage.results(name, "metrics.json"), *cards]:
            files.write_text(path, "{}")
    tree = Tree(tmp_path)
    monkeypatch.setattr(presets.dvc.api, "DVCFileSystem", lambda **_: tree)
    with inside(tmp_path / "data"):
        before = storage.results(name, "figures") / "of_before.png"
        files.write_text(before, "of a run whose figures have other names")
        presets.gather(NIPS.model_copy(update={"needs": lent}), [name], "study-nips17")
        figures = {path.stem for path in storage.results(name, "figures").iterdir()}
        assert figures == {"images_False"} | (set() if lent else {"images_True"})
        assert all(path.is_file() for path in [storage.results(name, "metrics.json"), *cards])

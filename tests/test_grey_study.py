"""Grey images of 24 x 40 px go through every stage, and stay grey and 24 x 40."""

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from camdrift import storage
from camdrift.models import loading
from camdrift.ops import forecast, needs
from camdrift.settings import params
from camdrift.storage import (
    Attacked,
    Detected,
    ImageSet,
    Maps,
    Noise,
    Retrained,
    Signatures,
    Signs,
    Transferred,
    Weights,
)
from conftest import TINY, built_once, copy_of_repository, inside, run_stages

TALL, WIDE = 24, 40
GREY = {"mean": [0.5], "std": [0.25]}
TRANSFERS = "tiny_generalising"
CELLS = ("tiny_fgsm", "tiny_dlfuzz", "tiny_one_pixel")


def study(folder):
    """The tiny study on smaller sets, one model at the images' size and one at its own."""
    copy_of_repository(folder, preset=TINY)
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    content["micro_batch"] = 8
    for part in content["sets"].values():
        limits = {"train": 12, "validation": 4, "test": 2}
        part |= {"size": [TALL, WIDE], "channels": 1, "limits": limits}
    for model in content["models"].values():
        model |= GREY
    content["models"]["vgg11_eighth"]["size"] = [32, 48]
    content["models"]["resnet18_eighth"]["size"] = None
    cells = content["cells"]
    plain = {"model": "resnet18_eighth", "source": "resnet18_eighth"}
    cells["tiny_fgsm"] |= plain | {"strengths": [1.0]}
    few = {"strengths": [1.0], "detect": [1.0], "protocols": ["corrected", "only_similarity"]}
    cells["tiny_dlfuzz"] |= few
    override = {"population": 10, "generations": 3}
    cells["tiny_one_pixel"] = dict(cells["tiny_fgsm"]) | {
        "attack": "one_pixel", "detect": [], "override": override,
    }  # fmt: skip
    for name in set(cells) - set(CELLS):
        del cells[name]
    del content["studies"]["tiny_maps"]  # its cells are gone
    content["noise"]["controls"] = [*content["noise"]["controls"], "displaced"]
    content["scores"]["beside"] = ["ssim", "nissim", "jet_cosine"]
    content["cams"]["examples"] = 2
    content["detection"]["detectors"]["behaviour"]["copies"] = 5
    content["statistics"]["resamples"] = 200
    yaml.dump(content, folder / "params.yaml")
    run_stages(folder)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    torch.use_deterministic_algorithms(True)
    return built_once(tmp_path_factory, "grey", study)


def read(kind, *path):
    return storage.read(kind, storage.cell_folder(*path))


def test_images_and_perturbations_have_one_channel_and_both_sides(grey):
    with inside(grey):
        pixels = storage.read(ImageSet, storage.set_folder("digits")).pixels
        assert pixels.shape[1:] == (TALL, WIDE, 1)
        for cell in CELLS:
            attacked = read(Attacked, "tiny", cell, "attack")
            noise = read(Noise, "tiny", cell, "noise")
            n = len(attacked.images)
            assert attacked.perturbation.shape == (n, 1, TALL, WIDE)
            assert noise.draws.shape == (n, 2, 1, TALL, WIDE)
            assert noise.controls.shape == (n, 5, 1, TALL, WIDE)
        one = read(Attacked, "tiny", "tiny_one_pixel", "attack").perturbation
        assert ((one != 0).sum((1, 2, 3)) <= 1).all() and (one != 0).any()
        signs = storage.read(Signs, storage.end_folder(TRANSFERS, "signs", "tiny_vgg11"))
        assert signs.sign.shape[1:] == (1, TALL, WIDE)


def test_maps_have_the_sides_of_their_layers(grey):
    with inside(grey):
        maps = read(Maps, "tiny", "tiny_fgsm", "cam")
        first, last = maps.layers.iloc[0], maps.layers.iloc[-1]
        assert (first["height"], first["width"]) == (12, 20)  # a stride of 2
        assert (last["height"], last["width"]) == (1, 2)
        assert maps.pictures.shape[2:] == (TALL, WIDE, 1)
        own = read(Maps, "tiny", "tiny_dlfuzz", "cam").layers.iloc[0]
        assert (own["height"], own["width"]) == (32, 48)  # the model's own size
        detected = read(Detected, "tiny_detectors", "tiny_dlfuzz", "detect")
        assert detected.maps.shape[3:] == (32, 48)
        assert detected.pictures.shape[2:] == (TALL, WIDE, 1)
        assert detected.facts["size"] == [TALL, WIDE]


def test_models_take_one_channel_at_their_size(grey):
    with inside(grey):
        for name, size in (("resnet18_eighth", [TALL, WIDE]), ("vgg11_eighth", [32, 48])):
            assert storage.read(Weights, storage.model_folder(name)).facts["size"] == size
            model = loading.load(name, micro_batch=4)
            assert model.shape == (1, *size)
            assert next(iter(model.network.parameters())).shape[1] == 1
            with torch.no_grad():
                assert model(torch.rand(3, 1, TALL, WIDE)).shape == (3, 10)
                with pytest.raises(ValueError, match="wanted images with 1 channels"):
                    model(torch.rand(3, 3, TALL, WIDE))


def test_retraining_and_transfer_keep_the_images(grey):
    with inside(grey):
        key = "tiny_inspecting"
        retrained = read(Retrained, "tiny_inspecting", key, "retrain")
        assert retrained.changed.shape[2:] == (1, TALL, WIDE)
        signatures = read(Signatures, "tiny_inspecting", key, "signatures")
        assert signatures.maps.shape[2:] == (32, 48)
        assert signatures.pictures.shape[1:] == (TALL, WIDE, 1)
        folder = storage.end_folder(TRANSFERS, "transferred", "tiny_resnet18")
        moved = storage.read(Transferred, folder)
        assert moved.facts["size"] == [TALL, WIDE]
        assert moved.pictures.shape[2:] == (TALL, WIDE, 1)
        assert np.isfinite(moved.unrelated[..., 1]).all()


def test_reports_show_grey_pictures_in_proportion(grey):
    with inside(grey):
        results = {name: storage.results(name, "figures") for name in params.load().studies}
        sheets = {"tiny": "renkhoff_figure_3", "tiny_detectors": "tan_figure_9",
                  "tiny_inspecting": "klawikowska_figure_2"}  # fmt: skip
        for name, figure in sheets.items():
            assert (results[name] / f"{figure}.png").exists()
        claims = pd.read_csv(storage.results("tiny_inspecting", "tables") / "claims.csv")
        assert claims["rests_on"].str.contains("'digits', 24 x 40 px;").all()
        networks = pd.read_csv(storage.results("tiny_generalising", "tables") / "networks.csv")
        assert set(networks["size"]) == {"24 x 40", "32 x 48"}


def test_a_forecast_counts_their_pixels(grey):
    with inside(grey):
        plan = params.load()
        counted = needs.counted("digits", plan.sets["digits"], seed=1, need=None)
        assert counted.sample.shape[1:] == (TALL, WIDE, 1)
        cost = forecast._fetch("fetch@digits", counted, plan.sets["digits"], forecast.Base(1, 1))
        assert cost.disk == sum(counted.splits.values()) * TALL * WIDE / 1e6


@pytest.mark.parametrize(
    ("page", "study"),
    [("image", "tiny"), ("models", "tiny_generalising"), ("signatures", "tiny_inspecting")],
)
def test_pages_show_them(grey, monkeypatch, page, study):
    pytest.importorskip("streamlit.testing.v1")
    from test_dashboard import shown

    assert shown(grey, monkeypatch, page, study=study).header

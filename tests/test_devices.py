"""Models may lie on another device than all that is made of them; and compute less exactly."""

import io
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift import settings, storage
from camdrift.attacks import one_pixel
from camdrift.explain import cam, lrp
from camdrift.models import devices, loading, training
from camdrift.models.model import Model
from camdrift.pipeline import run
from camdrift.storage import files
from conftest import as_model, inside, script, small_network
from elsewhere import DEVICE, Elsewhere, There

# The kinds of stages that call a study's models; retraining is below, in parts.
STAGES = (
    "attack@tiny_dlfuzz", "attack@tiny_pgd", "noise@tiny_dlfuzz", "noise@tiny_pgd",
    "cam@tiny_dlfuzz", "detect@tiny_pgd", "gradient_sign@tiny_vgg11", "transfer@tiny_resnet18",
)  # fmt: skip


def built(name: str) -> dict[Path, bytes]:
    """What a stage has written; manifests follow from it."""
    manifests = storage.DATA.glob(f"*/**/{files.MANIFEST}")
    folders = [path.parent for path in manifests if storage.writer(path.parent) == name]
    content = chain.from_iterable(folder.iterdir() for folder in folders)
    return {path: path.read_bytes() for path in content if path.name != files.MANIFEST}


def same(first: bytes, second: bytes, *, suffix: str) -> bool:
    """Whether files hold the same, but for the order in which layers' values are added up."""
    if first == second:
        return True
    one, other = map(io.BytesIO, (first, second))
    if suffix == ".npy":
        # A shift of maps that are almost flat makes much of last digits.
        near = np.isclose(np.load(one), np.load(other), rtol=0, atol=2**-11, equal_nan=True)
        return near.mean() > 0.99
    pd.testing.assert_frame_equal(pd.read_parquet(one), pd.read_parquet(other), rtol=1e-9)
    return True


@pytest.fixture
def study(tiny, tmp_path):
    folder = shutil.copytree(tiny.folder, tmp_path / "study", symlinks=True)
    with inside(folder):
        yield folder
    loading._held.cache_clear()


@pytest.mark.parametrize("name", STAGES)
def test_stages_give_the_same_with_models_elsewhere(study, name, monkeypatch):
    before = built(name)
    for folder in {path.parent for path in before}:
        shutil.rmtree(folder)
    monkeypatch.setenv("CAMDRIFT_DEVICE", DEVICE)
    with Elsewhere():
        script(name.partition("@")[0]).main(run.Stage(name))
    after = built(name)
    assert before and sorted(after) == sorted(before)
    for path in before:
        assert same(before[path], after[path], suffix=path.suffix), path


def test_training_goes_on_elsewhere_and_comes_home(study, monkeypatch):
    """Weights differ by what many steps make of last digits."""
    name = "resnet18_eighth"
    before = storage.read(storage.Weights, storage.model_folder(name))
    facts, state = before.facts, {key: value.clone() for key, value in before.state.items()}
    shutil.rmtree(storage.model_folder(name))
    monkeypatch.setenv("CAMDRIFT_DEVICE", DEVICE)
    with Elsewhere():
        script("train").main(run.Stage(f"train@{name}"))
    weights = storage.read(storage.Weights, storage.model_folder(name))
    assert weights.facts["layers"] == facts["layers"]
    assert abs(weights.facts["test_accuracy"] - facts["test_accuracy"]) < 0.1
    for key, value in weights.state.items():
        assert value.isfinite().all() and value.shape == state[key].shape


def test_what_looks_into_a_model_looks_where_it_lies(model, pixels):
    """Pixels that are searched for, relevance, and training against an attack."""
    labels = model(pixels).argmax(1)
    search = {
        "pixels": 1, "population": 6, "generations": 2, "mutation": [0.5, 1.0],
        "recombination": 0.7, "bounds": [0.0, 1.0], "success": "best", "target": None,
    }  # fmt: skip

    def answers(subject: Model) -> list[torch.Tensor]:
        generators = [np.random.default_rng(i) for i in range(len(pixels))]
        attack = one_pixel.perturb(subject, pixels, labels, generators=generators, **search)
        return [attack.pixels, attack.evaluations, lrp.relevance(subject, pixels)]

    expected = answers(model)
    with Elsewhere():
        for a, b in zip(expected, answers(as_model(small_network()).to(DEVICE)), strict=True):
            assert not isinstance(b, There)
            assert torch.allclose(a.double(), b.double(), atol=1e-5)
        change = training.adversary(settings.Descent(eps=0.1, step=0.05, steps=2))
        moved = as_model(small_network()).to(DEVICE)
        attacked = change(moved, pixels.to(DEVICE), labels.to(DEVICE)).cpu()
    assert torch.allclose(attacked, change(model, pixels, labels), atol=1e-5)


def test_nothing_of_two_devices_meets(model):
    """What the test above rests on."""
    with Elsewhere():
        there = torch.ones(3).to(DEVICE)
        assert isinstance(there, There)
        assert (there * 2).sum().item() == 6
        with pytest.raises(RuntimeError, match="one device, got two"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


def test_a_model_is_called_where_it_lies_and_answers_where_the_pixels_lie(model, pixels):
    expected = model(pixels)
    with Elsewhere():
        moved = as_model(small_network()).to(DEVICE)
        assert moved.device.type == DEVICE
        logits = moved(pixels)
        assert not isinstance(logits, There)
        assert torch.equal(logits, expected)
        assert isinstance(moved(pixels.to(DEVICE)), There)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    for name in ("cuda:77", "gpu"):
        monkeypatch.setenv("CAMDRIFT_DEVICE", name)
        with pytest.raises(settings.SettingsError, match=f"CAMDRIFT_DEVICE.*'{name}'"):
            devices.current()
    monkeypatch.setenv("CAMDRIFT_DEVICE", "cpu")
    assert devices.current() == torch.device("cpu")


def tf32() -> set[str]:
    return {p.fp32_precision for p in (torch.backends.cuda.matmul, torch.backends.cudnn.conv)}


def test_tf32_is_allowed_where_it_is_asked_for_alone(study):
    for precision, expected in (("tf32", "tf32"), ("bfloat16", "ieee"), ("float32", "ieee")) * 2:
        loading.load("vgg11_eighth", micro_batch=4, precision=precision)  # the second time: held
        assert tf32() == {expected}


def test_training_and_relevance_are_exact_whatever_models_are_held_to(model, pixels, monkeypatch):
    precisions = []
    batches = type(model).batches
    monkeypatch.setattr(type(model), "batches", lambda *a: precisions.append(tf32()) or batches(*a))
    devices.hold("tf32")
    lrp.relevance(model, pixels)
    assert precisions == [{"ieee"}]
    assert tf32() == {"tf32"}
    with devices.exactly():
        assert tf32() == {"ieee"}
    devices.hold("float32")


def test_bfloat16_changes_numbers_a_little_and_every_tensor_stays_single(model, pixels):
    coarse = as_model(small_network())
    coarse.precision = "bfloat16"
    batch = pixels[:4]
    for name in ("probes", "activations", "excitations"):
        logits, tensors = getattr(coarse, name)(batch)
        assert {t.dtype for t in (logits, *tensors)} == {torch.float32}
    exact, rough = model(batch), coarse(batch)
    assert 0 < (exact - rough).abs().max() < 0.05 * exact.abs().max()
    seeds = exact.argmax(1)
    first, second = (cam.explain(m, batch, seeds, targets=[cam.OWN])[1] for m in (model, coarse))
    assert first and second
    for a, b in zip(first["GradCAM"], second["GradCAM"], strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert torch.allclose(a, b, atol=0.1 * float(a.max()))


@pytest.mark.parametrize("name", ["attack@tiny_dlfuzz", "cam@tiny_dlfuzz", "detect@tiny_pgd"])
def test_stages_work_in_bfloat16(study, name):
    stage = run.Stage(name)
    stage.params["precision"] = "bfloat16"
    before = built(name)
    script(stage.group).main(stage)
    after = built(name)
    assert sorted(after) == sorted(before)
    assert after != before

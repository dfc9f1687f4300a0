"""Weights as people have them: checkpoints, wrappers' prefixes, any suffix, and what is refused."""

import argparse
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from camdrift.models import architectures, fitting, loading, weights
from camdrift.models.architectures import RefusedError
from camdrift.ops import needs
from camdrift.settings import ModelSettings, SettingsError
from conftest import ROOT, inside

PIXELS = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    def __init__(self, classes=5, width=4, channels=3):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Wrapped(nn.Module):
    """A network whose own names begin with `model.`."""

    def __init__(self, classes=5):
        super().__init__()
        self.model = Small(classes)

    def forward(self, x):
        return self.model(x)


class Two(nn.Module):
    """A network with `backbone.` before some names alone."""

    def __init__(self, classes=5):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        return self.head(torch.relu(self.backbone(x)).mean((2, 3)))


def settings(architecture=f"{__name__}:Small", **changed):
    plan = {"set": "s", "architecture": architecture, "mean": [0.5] * 3, "std": [0.25] * 3}
    return ModelSettings.model_validate(plan | {"classes": 5} | changed)


def obtained(options, size=16):
    images = torch.zeros(2, options.channels, size, size), torch.tensor([0, 1])
    return loading.obtain(
        options, size=size, labels=[0, 1], split=lambda _: images, seed=1, name="m"
    )


def trained(kind=Small):
    torch.manual_seed(3)
    network = kind().eval()
    nn.init.uniform_(next(network.parameters()))
    return network


def same_logits(file, kind=Small):
    """Whether the weights in a file give the logits of the network that they are of."""
    stored = obtained(settings(f"{__name__}:{kind.__name__}", weights=str(file)))
    model = loading.ready(stored, micro_batch=4)
    expected = trained(kind)((PIXELS - 0.5) / 0.25)
    torch.testing.assert_close(model(PIXELS), expected, rtol=1e-4, atol=1e-5)


def prefixed(prefix, kind=Small):
    return {f"{prefix}{name}": value for name, value in trained(kind).state_dict().items()}


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
def test_a_checkpoint_is_opened_and_what_stands_beside_its_tensors_is_ignored(tmp_path, key):
    optimiser = {"state": {}, "param_groups": [{"lr": 0.1}]}
    beside = {"epoch": 3, "best_prec1": 93.4, "arch": "small", "optimizer": optimiser, "args": None}
    file = tmp_path / "w.ckpt"
    torch.save(beside | {key: trained().state_dict()}, file)
    same_logits(file)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "backbone.", "module.model.", "_orig_mod.module.backbone."],
)
def test_prefixes_of_wrappers_are_stripped(tmp_path, prefix):
    file = tmp_path / "w.pth"
    torch.save({"state_dict": prefixed(prefix)}, file)
    same_logits(file)


def test_prefixes_are_those_of_real_wrappers(tmp_path):
    for number, wrapper in enumerate((nn.DataParallel, torch.compile)):
        file = tmp_path / f"{number}.pth"
        torch.save(wrapper(trained()).state_dict(), file)
        assert next(iter(torch.load(file))).startswith(("module.", "_orig_mod."))
        same_logits(file)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", [Wrapped, Two])
def test_a_prefix_that_the_network_has_itself_stays(tmp_path, kind, prefix):
    file = tmp_path / "w.pth"
    torch.save(prefixed(prefix, kind), file)
    same_logits(file, kind)


def test_a_prefix_that_not_all_have_stays():
    names = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(fitting.bare(names)) == ["module.a", "b"]
    assert fitting.bare({}) == {}


@pytest.mark.parametrize(
    "name", ["w.th", "w.ckpt", "w.pth.tar", "w.bin", "w.pt", "w.pth", "w.safetensors", "w.x", "w"]
)
@pytest.mark.parametrize("save", [torch.save, save_file, "legacy"])
def test_the_format_is_told_by_the_content(tmp_path, monkeypatch, name, save):
    file, state = tmp_path / name, trained().state_dict()
    if save == "legacy":
        torch.save(state, file, _use_new_zipfile_serialization=False)
    else:
        save(state, file)
    same_logits(file)
    monkeypatch.chdir(tmp_path)  # a bare name, too, if it is there
    same_logits(name)


ACCEPTED = (
    "models.m.weights: wanted a file that torch or safetensors wrote, with any suffix; the URL of "
    "one, from https://; or a name of torchvision's weights of resnet18 (IMAGENET1K_V1); got no "
    "file '{}'"
)


@pytest.mark.parametrize("value", ["nowhere/w", "w.th", "w.PTH", "IMAGENET1K_V9", "imagenet"])
def test_a_wrong_value_gets_one_message_with_all_that_is_accepted(value):
    end = "" if "/" in value or "." in value else ", and no such name"
    options = settings("resnet18", weights=value)
    for ask in (lambda: obtained(options, 32), lambda: needs.weights("m", options)):
        with pytest.raises(SettingsError) as fault:
            ask()
        assert str(fault.value) == ACCEPTED.format(value) + end


def recipe(fault):
    """Runs the lines of Python in a message."""
    code = "\n".join(line.strip() for line in str(fault).splitlines()[1:])
    path = {"PYTHONPATH": f"{ROOT / 'lib'}:{ROOT / 'tests'}", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=path)


@pytest.mark.parametrize("shape", ["network", "beside", "under"])
def test_a_file_of_more_than_tensors_names_the_class_and_the_way_out(tmp_path, shape):
    network, file = trained(), tmp_path / "w.pt"
    arguments = argparse.Namespace(lr=0.1)
    content, asked = {
        "network": (network, "test_checkpoints.Small"),
        "beside": ({"model": network.state_dict(), "args": arguments}, "argparse.Namespace"),
        "under": ({"net": network, "epoch": 3}, "test_checkpoints.Small"),
    }[shape]
    torch.save(content, file)
    with pytest.raises(RefusedError, match=f"asks for {asked}, wanted tensors alone") as fault:
        weights.read(settings(weights=str(file)))
    assert len(str(fault.value).splitlines()) <= 6
    recipe(fault.value)
    assert load_file(tmp_path / "w.safetensors").keys() == network.state_dict().keys()
    same_logits(tmp_path / "w.safetensors")


def test_a_scripted_network_is_told_the_way_to_its_weights(tmp_path):
    torch.jit.script(trained()).save(tmp_path / "w.pt")
    with pytest.raises(RefusedError, match="is a scripted network, wanted its state dict") as fault:
        weights.read(settings(weights=str(tmp_path / "w.pt")))
    recipe(fault.value)
    same_logits(tmp_path / "w.safetensors")


def test_without_a_sha256_the_line_to_paste_is_printed(tmp_path, capsys):
    file = tmp_path / "w.th"
    torch.save(trained().state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    stored = obtained(settings(weights=str(file)))
    printed = capsys.readouterr().out
    assert f"models.m: without its sha256, a change of {file} is not noticed; the line" in printed
    assert f"    sha256: {digest}\n" in printed
    assert stored.facts["sha256"] == digest
    _, line = needs.weights("m", settings(weights=str(file)))
    assert line == f"  sha256: {digest}"
    assert "sha256" not in obtained(settings(weights=str(file), sha256=digest)).facts
    assert "sha256" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="wanted the sha256 of https://host/w.th"):
        settings(weights="https://host/w.th")


def saved(tmp_path, **changed):
    values = {"architecture": "resnet18", "width": 0.25, "head": "torchvision", "classes": 5,
              "size": 64, "initialised": True}  # fmt: skip
    network = architectures.build(**values | changed)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


VGG = {"architecture": "vgg11", "width": 0.125}
TRAINED = {"new_head": True, "training": {}}
HEAD = ", or `models.m.new_head: true`, to train dense layers for the classes of the set"


@pytest.mark.parametrize(
    ("file", "own", "wanted"),
    [
        ({"classes": 7}, {}, f"`models.m.classes: 7`{HEAD}"),
        ({"width": 0.5}, {}, "`models.m.width: 0.5`"),
        ({"width": 1}, {}, "`models.m.width: 1.0`"),
        ({"width": 0.5, "classes": 7}, {}, "`models.m.classes: 7` and `models.m.width: 0.5`"),
        (VGG | {"head": "pooled"}, VGG, f"`models.m.head: pooled`{HEAD}"),
        (VGG, VGG | {"head": "pooled"}, f"`models.m.head: torchvision`{HEAD}"),
        (VGG | {"head": "sigmoid", "classes": 2}, VGG | {"classes": 2}, f"`models.m.head: sigmoid`"
         f"{HEAD}"),
        ({"channels": 1}, {}, "`channels: 1` of sets.s with `mean: [0.5]` and `std: [0.25]` of "
         "models.m"),
        ({}, {"mean": [0.5], "std": [0.25]}, "`channels: 3` of sets.s with `mean: [0.5, 0.5, 0.5]` "
         "and `std: [0.25, 0.25, 0.25]` of models.m"),
        ({"width": 0.5, "classes": 7}, TRAINED, "`models.m.width: 0.5`"),
        ({"architecture": "resnet34"}, {}, "weights of resnet18, or another "
         "`models.m.architecture` or other `arguments:`: no change of `classes:`, `channels:`, "
         "`head:` or `width:` makes them fit"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_name_the_setting_that_mends_it(tmp_path, file, own, wanted):
    base = {"architecture": "resnet18", "width": 0.25, "size": 64}
    plan = base | {"weights": saved(tmp_path, **file)} | own
    with pytest.raises(RefusedError) as fault:
        obtained(settings(**plan), 64)
    assert str(fault.value).splitlines()[-1] == f"  wanted {wanted}"
    assert len(str(fault.value)) < 800


def test_the_change_that_a_message_names_does_mend_it(tmp_path):
    plan = {"architecture": "resnet18", "width": 0.25, "weights": saved(tmp_path, classes=7)}
    with pytest.raises(RefusedError, match=r"`models.m.classes: 7`"):
        obtained(settings(**plan), 64)
    assert obtained(settings(**plan | {"classes": 7}), 64).facts["classes"] == 7
    assert obtained(settings(**plan, **TRAINED), 64).state["fc.weight"].shape == (5, 128)


def test_the_first_three_names_that_differ_are_told_and_how_many_more(tmp_path):
    state = trained().state_dict()
    other = {f"body.{name}": value for name, value in state.items() if "conv" not in name}
    torch.save(other | {"conv.weight": torch.zeros(6, 3, 3, 3)}, tmp_path / "w.pt")
    with pytest.raises(RefusedError) as fault:
        obtained(settings(weights=str(tmp_path / "w.pt")))
    assert str(fault.value).splitlines()[:4] == [
        "models.m.weights: they do not fit test_checkpoints:Small with 5 classes",
        "  in the file alone: body.norm.weight, body.norm.bias, body.norm.running_mean and 4 more",
        "  in the network alone: conv.bias, norm.weight, norm.bias and 4 more",
        "  of another shape in the file: conv.weight 6 x 3 x 3 x 3, not 4 x 3 x 3 x 3",
    ]


def test_arguments_that_do_not_fit_are_told(tmp_path):
    torch.save(trained().state_dict(), tmp_path / "w.pt")
    plan = {"weights": str(tmp_path / "w.pt"), "arguments": {"width": 6}}
    with pytest.raises(RefusedError, match=r"wanted `models.m.arguments: \{\}`$"):
        obtained(settings(**plan))


SHARED = ROOT.parent / "shared"
PUBLISHED = {"20-12fca82f": (3, 0.9173), "32-d509ac18": (5, 0.9263), "44-014dd654": (7, 0.931)}


def test_a_published_checkpoint_of_a_resnet_is_opened(monkeypatch, tmp_path):
    """As its author saved it: under `state_dict`, with `module.` and without the norms' counts."""
    monkeypatch.chdir(ROOT)
    own = "cifar_resnet:ResNet"
    network = architectures.build(
        architecture=own, width=1, head="torchvision", classes=10, size=32, initialised=True,
        arguments={"blocks": 3},
    )  # fmt: skip
    state = {f"module.{n}": v for n, v in network.state_dict().items() if "num_batches" not in n}
    torch.save({"state_dict": state, "best_prec1": 91.73}, tmp_path / "resnet20.th")
    plan = {"weights": str(tmp_path / "resnet20.th"), "arguments": {"blocks": 3}, "classes": 10}
    model = loading.ready(obtained(settings(own, **plan), 32), micro_batch=4)
    assert len(model.maps) == 19
    pixels = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(
        model(pixels), network.eval()((pixels - 0.5) / 0.25), rtol=1e-4, atol=1e-4
    )


@pytest.mark.skipif(not (SHARED / "data/cifar10").is_dir(), reason="no CIFAR-10 here")
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_resnets_are_as_accurate_as_published(name):
    """On all 10,000 test images; the preset's settings, without its stages."""
    from camdrift.datasets import pictures

    folders = sorted((SHARED / "data/cifar10/test").iterdir())
    some = [(file, i) for i, of in enumerate(folders) for file in sorted(of.iterdir())[::20]]
    pixels = torch.tensor(np.stack([pictures.decode(file) for file, _ in some]))
    labels = torch.tensor([label for _, label in some])
    pixels = pixels.permute(0, 3, 1, 2) / 255
    blocks, accuracy = PUBLISHED[name]
    options = ModelSettings.model_validate(
        {"set": "s", "architecture": "cifar_resnet:ResNet", "arguments": {"blocks": blocks},
         "weights": str(SHARED / f"weights/cifar10_resnet{name}.th")}
    )  # fmt: skip
    with inside(ROOT):
        stored = loading.obtain(
            options, size=32, labels=labels.numpy(), split=lambda _: (pixels, labels), seed=1,
            name="m",
        )  # fmt: skip
    assert stored.facts["classes"] == 10
    assert abs(stored.facts["test_accuracy"] - accuracy) < 0.03  # 500 of the 10,000 images

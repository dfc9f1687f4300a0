"""A network of the user's goes through every stage with no change to the project's code."""

import hashlib
import shutil

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from camdrift import storage
from camdrift.analysis import results
from camdrift.ops import summary
from camdrift.pipeline import run
from camdrift.storage import Maps, Transferred, Weights, files
from conftest import TINY, copy_of_repository, inside, script


class Separable(nn.Module):
    """A depthwise and a pointwise conv with GELU."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return F.gelu(self.pointwise(self.depthwise(x)))


class Branched(nn.Module):
    """SiLU by hand, branches that are joined, a block that is called twice, leaky ReLU."""

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.left, self.right = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.shared = Separable(8)
        self.last = nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        x = self.stem(x)
        x = x * torch.sigmoid(x)
        x = torch.cat([F.silu(self.left(x)), F.silu(self.right(x))], dim=1)
        x = F.max_pool2d(self.shared(self.shared(x)), 2)
        return self.head(F.leaky_relu(self.last(x), 0.1).mean((2, 3)))


def network(classes):
    torch.manual_seed(0)
    return Branched(classes)


LAYERS = ["stem", "left", "right", "shared.depthwise", "shared.pointwise", "shared.depthwise:2",
          "shared.pointwise:2", "last"]  # fmt: skip


@pytest.fixture(scope="module")
def mine(tiny, tmp_path_factory):
    """The tiny study with an own network of another input size, weights from a file."""
    folder = copy_of_repository(tmp_path_factory.mktemp("mine"), preset=TINY)
    shutil.copytree(tiny.folder / "data" / "sets", folder / "data" / "sets")
    weights = folder / "mine.safetensors"
    save_file(network(10).state_dict(), weights)
    yaml = YAML()
    path = folder / "params.yaml"
    content = yaml.load(path)
    content["models"]["mine"] = dict(content["models"]["vgg11_eighth"]) | {
        "architecture": f"{__name__}:network", "size": 48, "width": 1.0, "head": "torchvision",
        "weights": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }  # fmt: skip
    cell = dict(content["cells"]["tiny_fgsm"]) | {
        "study": "own", "evaluation": "own_detectors", "model": "mine", "source": "mine"
    }  # fmt: skip
    layers = {"paper": "renkhoff2022", "title": "My network", "headline": "own_fgsm"}
    transfer = content["studies"]["tiny_generalising"] | {"transferred": "Mine"}
    content["studies"] = {
        "own": layers, "own_detectors": layers | {"paper": "tan2023"}, "tiny_generalising": transfer
    }  # fmt: skip
    content["retrainings"] = {}
    content["cells"] = {"own_fgsm": cell}
    target = dict(content["targets"]["tiny_vgg11"]) | {"model": "mine", "network": "Mine"}
    content["targets"] = {"own": target | {"family": None}}
    source = {key: target[key] for key in ("study", "set", "model", "network")}
    content["sources"] = {"own": source}
    yaml.dump(content, path)
    with inside(folder):
        for name in ("check", "train@mine", "attack@own_fgsm", "noise@own_fgsm", "cam@own_fgsm",
                     "score@own_fgsm", "detect@own_fgsm", "report@own",
                     "report@own_detectors", "gradient_sign@own", "transfer@own",
                     "report@tiny_generalising"):  # fmt: skip
            main = script(name.partition("@")[0]).main
            main() if name == "check" else main(run.Stage(name))
    return folder


def test_every_layer_is_named_and_what_reaches_no_activation_is_told(mine):
    with inside(mine):
        facts = storage.read(Weights, storage.model_folder("mine")).facts
    assert [layer["name"] for layer in facts["layers"]] == LAYERS
    assert facts["own_output"] == ["shared.depthwise", "shared.depthwise:2"]
    assert facts["size"] == 48
    assert facts["left_out"] == {}


def test_the_summary_says_which_maps_are_unusual(mine):
    with inside(mine):
        (line,) = summary.unusual()
        card = files.read_json(storage.model_card("mine"))
        card["left_out"] = {"up": "no conv"}
        files.write_json(storage.model_card("mine"), card)
        assert summary.unusual() == ["mine: no map of up: no conv", line]
    assert line.startswith("mine: 2 of 8 maps at a conv's own output, as it reaches no activ")


def test_its_maps_and_its_report_are_there(mine):
    with inside(mine):
        maps = storage.read(Maps, storage.cell_folder("own", "own_fgsm", "cam"))
        assert list(maps.layers["name"]) == LAYERS
        assert maps.layers["height"].iloc[0] == 24  # of 48 px, not of the set's 32
        assert np.isfinite(maps.values).all()
        outputs = results.load("own")
        assert outputs["attacks"]["images"].item() == len(maps.rows["image"].unique())
        assert len(results.load("own_detectors")["detectors"])
        folder = storage.end_folder("tiny_generalising", "transferred", "own")
        transferred = storage.read(Transferred, folder)
        assert transferred.facts["size"] == 48
        assert transferred.shifts.shape[-1] == len(LAYERS)
        assert storage.report("tiny_generalising").exists()

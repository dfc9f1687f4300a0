"""The user's modules in lib/own: how they are found and called, and that an edit is noticed."""

import os
import subprocess
import sys

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from camdrift import storage
from camdrift.models import architectures, loading
from camdrift.ops import build, checks
from camdrift.settings import ModelSettings, SettingsError, imports, params
from camdrift.storage import Weights, files
from conftest import ROOT, TINY, copy_of_repository, inside

NETWORK = """\
from torch import nn

from my_blocks{0} import block


def build(classes, width=4):
    return nn.Sequential(block(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, classes))
"""
BLOCK = """\
from torch import nn


def block(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with an empty lib/own, which is the current one, and modules of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    imports.OWN.mkdir(parents=True)
    return imports.OWN


def built(architecture, classes=3, **arguments):
    return architectures.build(
        architecture=architecture, width=1, head="torchvision", classes=classes, size=16,
        initialised=True, arguments=arguments,
    )  # fmt: skip


def write(own, number=""):
    (own / f"my_net{number}.py").write_text(NETWORK.format(number))
    (own / f"my_blocks{number}.py").write_text(BLOCK)


def test_a_module_in_lib_own_is_found_by_its_bare_name(own):
    write(own)
    assert built("my_net:build")[-1].out_features == 3
    assert built("my_net:build", width=6)[0][0].out_channels == 6
    assert sys.path[-1] == str(own.resolve())


FACTORIES = """\
from torch import nn


def net(classes, depth=1):
    return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(depth)), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(3, classes))


def classes_first(classes):
    return net(classes)


def classes_later(depth=2, *, classes=9):
    return net(classes, depth)


def num_classes(depth, num_classes=9):
    return net(num_classes, depth)


def first_without_default(count, depth=1):
    return net(count, depth)


def first_by_place(count, /):
    return net(count)


def without():
    return net(3)


def only_defaults(depth=2):
    return net(3, depth)


def keywords(**more):
    assert "classes" not in more
    return net(3, **more)


def first_named(depth, classes_of_mine=3):
    return net(classes_of_mine, depth)


class Net(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.net = net(num_classes)

    def forward(self, x):
        return self.net(x)
"""


@pytest.mark.parametrize(
    ("name", "arguments", "convs"),
    [
        ("classes_first", {}, 1),
        ("classes_later", {}, 2),
        ("classes_later", {"depth": 3}, 3),
        ("num_classes", {"depth": 3}, 3),
        ("first_without_default", {"depth": 2}, 2),
        ("first_by_place", {}, 1),
        ("without", {}, 1),
        ("only_defaults", {}, 2),
        ("keywords", {"depth": 3}, 3),
        ("first_named", {"depth": 2}, 2),
        ("Net", {}, 1),
    ],
)
def test_a_factory_is_called_with_what_it_takes(own, name, arguments, convs):
    (own / "my_factories.py").write_text(FACTORIES)
    network = built(f"my_factories:{name}", **arguments)
    layers = [type(module) for module in network.modules()]
    assert layers.count(nn.Conv2d) == convs
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 3)


def test_a_factory_that_cannot_be_called_so_says_how_it_is_called(own):
    (own / "my_factories_too.py").write_text(FACTORIES)
    with pytest.raises(SettingsError, match="called with classes=3, dept=2, raised TypeError"):
        built("my_factories_too:classes_later", dept=2)
    with pytest.raises(SettingsError, match="called with nothing, raised AssertionError|returns"):
        built("my_factories_too:without", classes=4)


def test_a_module_that_is_nowhere_is_told_where_modules_are_looked_for(own):
    for path in ("my_nowhere:build", "my_nowhere.deep:build"):
        with pytest.raises(SettingsError) as fault:
            built(path)
        text = str(fault.value)
        assert "no module 'my_nowhere'; modules of your own belong in lib/own" in text
        assert f"looked for there and in {sys.path[0]}, " in text
        assert str(own.resolve()) not in text
    (own / "my_lack.py").write_text("import my_nowhere\n")
    with pytest.raises(SettingsError, match=r"ModuleNotFoundError: No .*; modules of your own bel"):
        built("my_lack:build")
    with pytest.raises(SettingsError, match="wanted a function as `module:function`, got 'a b:c'"):
        built("a b:c")


def test_a_module_by_the_name_of_another_is_refused(own):
    write(own, "_2")
    (own / "colorsys.py").write_text("def build(classes): pass\n")
    with pytest.raises(SettingsError, match=r"lib/own/colorsys has the name of another .*; wanted"):
        built("colorsys:build")
    built("my_net_2:build")  # the other is not imported by it
    (own / "my_blocks_2.py").write_text(f"import colorsys\n{BLOCK}")
    with pytest.raises(SettingsError, match="lib/own/colorsys has the name of another module"):
        built("my_net_2:build")


def test_in_another_repository_the_module_is_another(own, tmp_path, monkeypatch):
    write(own)
    assert built("my_net:build")[0][0].out_channels == 4
    other = tmp_path / "other" / imports.OWN
    other.mkdir(parents=True)
    (other / "my_net.py").write_text(NETWORK.format("").replace("width=4", "width=5"))
    (other / "my_blocks.py").write_text(BLOCK)
    monkeypatch.chdir(tmp_path / "other")
    assert built("my_net:build")[0][0].out_channels == 5
    assert sys.path[-1] == str(other.resolve())
    assert str((tmp_path / imports.OWN).resolve()) not in sys.path


def test_a_digest_is_of_the_module_and_of_those_that_it_imports_there(own):
    write(own)
    (own / "other.py").write_text("x = 1\n")
    package = own / "nets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text("import torch\nfrom . import parts\nfrom .deep import x\n")
    (package / "parts.py").write_text("from my_blocks import block\n")
    (package / "deep.py").write_text("x = (\n")  # a syntax error is told when it is imported
    mine = [own / "my_blocks.py", own / "my_net.py"]
    assert imports.files("my_net:build") == mine
    assert imports.files("nets.small:build") == sorted(
        [own / "my_blocks.py", *package.glob("*.py")]
    )
    assert imports.files("torchvision.models:resnet18") == imports.files("resnet18") == []
    assert imports.digest("resnet18") is None
    first = imports.digest("my_net:build")
    (own / "other.py").write_text("x = 2\n")
    assert imports.digest("my_net:build") == first
    (own / "my_blocks.py").write_text(BLOCK + "\n")
    assert imports.digest("my_net:build") != first
    (own / "my_blocks.py").write_text(BLOCK)
    assert imports.digest("my_net:build") == first
    assert imports.unavailable("nets.small:build") == ""
    assert "nets" not in sys.modules


def obtained(architecture):
    options = ModelSettings.model_validate(
        {"set": "s", "architecture": architecture, "classes": 3,
         "training": {"epochs": 1, "batch": 2, "shift": 0}}
    )  # fmt: skip
    images = torch.rand(6, 3, 16, 16), torch.arange(6) % 3
    return loading.obtain(
        options, size=16, labels=[0, 1, 2], split=lambda _: images, seed=1, name="m"
    )


def test_a_models_facts_have_the_digest_and_another_module_is_warned_of(own, capsys):
    write(own, "_3")
    facts = obtained("my_net_3:build").facts
    assert facts["source"] == imports.digest("my_net_3:build")
    assert "is not noticed" not in capsys.readouterr().out
    facts = obtained(f"{__name__}:elsewhere").facts
    assert "source" not in facts
    assert capsys.readouterr().out.startswith(
        f"models.m: the module of '{__name__}:elsewhere' is not in lib/own, so that an edit of it "
        "is not noticed; after one, run `dvc repro -f train@m`\n"
    )


def elsewhere(classes):
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(3, classes))  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The tiny study with two networks of the user's and a bundled one."""
    folder = copy_of_repository(tmp_path_factory.mktemp("mine"), preset=TINY)
    for number in ("_4", "_5"):
        write(folder / imports.OWN, number)
    (folder / imports.OWN / "my_faces.py").write_text("def upright(picture):\n    return picture\n")
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    for number in ("_4", "_5"):
        content["models"][f"mine{number}"] = {
            "set": "digits", "architecture": f"my_net{number}:build", "training": {"epochs": 1}
        }  # fmt: skip
    yaml.dump(content, folder / "params.yaml")
    return folder


STAGES = ("train@mine_4", "train@mine_5", "train@vgg11_eighth", "attack@tiny_fgsm")


def reproduce(folder):
    """The stages that `dvc repro` runs."""
    path = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *STAGES], cwd=folder, text=True, check=True,
        capture_output=True, env=path | {"CAMDRIFT_PYTHON": sys.executable},
    )  # fmt: skip
    lines = answer.stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def test_an_edit_rebuilds_the_models_that_use_the_module_alone(repository):
    assert set(reproduce(repository)) == {"check", "fetch@digits", *STAGES}
    assert reproduce(repository) == []
    with inside(repository):
        folder = storage.model_folder("mine_4")
        before = storage.read(Weights, folder), storage.digest(folder)
        card = storage.model_card("mine_4").read_bytes()
        assert "source" not in files.read_json(storage.model_card("mine_4"))
    blocks = repository / imports.OWN / "my_blocks_4.py"
    blocks.write_text(BLOCK + "# an edit that changes no weights\n")
    assert reproduce(repository) == ["check", "train@mine_4"]
    with inside(repository):
        after = storage.read(Weights, folder)
        assert all(torch.equal(after.state[name], v) for name, v in before[0].state.items())
        assert storage.digest(folder) != before[1]  # so that later stages run again
        assert storage.model_card("mine_4").read_bytes() == card
    (repository / imports.OWN / "my_faces.py").write_text("\n")  # nothing here uses it
    assert reproduce(repository) == ["check"]


def test_check_refuses_a_module_that_is_not_there(repository):
    with inside(repository):
        content = params.read(params.PARAMS)
        content["models"]["mine_4"]["architecture"] = "my_nets_4:build"
        with pytest.raises(SettingsError, match="mine_4.architecture: cannot import 'my_net"):
            checks.everything(params.parse(content))


def test_a_copy_of_a_preset_has_the_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    build.copied(tmp_path)
    assert (tmp_path / imports.OWN / "cifar_resnet.py").is_file()

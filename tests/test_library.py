"""Attacks of other libraries, on one that stands in for them; tests/peers has the libraries."""

import random
import sys
import types

import numpy as np
import pytest
import torch

from camdrift import attacks
from camdrift.attacks import library
from camdrift.ops import checks
from camdrift.perturbations import perturbation
from camdrift.settings import SettingsError, params, presets
from conftest import ROOT, inside
from test_attacks import generators


class Step:
    """A step of random length up the gradient, as a class of torchattacks is made and called."""

    def __init__(self, model, eps=0.1, steps=1):
        self.model, self.eps, self.steps = model, eps, steps

    def __call__(self, images, labels):
        result = images
        for _ in range(self.steps):
            pixels = result.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(self.model(pixels), labels)
            (gradient,) = torch.autograd.grad(loss, pixels)
            length = torch.rand(1) * np.random.rand() * random.random()  # noqa: NPY002
            result = (pixels + length * self.eps * gradient.sign()).clamp(0, 1)
        return result


@pytest.fixture(autouse=True)
def torchattacks(monkeypatch):
    module = types.ModuleType("torchattacks")
    module.Step, module.Needy, module.VERSION = Step, lambda model, eps: None, "1"
    monkeypatch.setitem(sys.modules, "torchattacks", module)


def stepped(model, pixels, **arguments):
    return library.perturb(
        model, pixels, model(pixels).argmax(1), generators=generators(len(pixels)),
        name="torchattacks:Step", arguments=arguments,
    )  # fmt: skip


def test_a_librarys_attack_is_called_with_its_own_arguments(model, pixels):
    change = stepped(model, pixels, eps=0.02, steps=3)
    assert 0 < change.pixels.abs().max() <= 0.06
    assert change.evaluations.tolist() == [3] * 10
    assert torch.equal(change.pixels, stepped(model, pixels, eps=0.02, steps=3).pixels)
    other = perturbation.run(
        library.perturb, model, model, pixels, model(pixels).argmax(1),
        generators=[np.random.default_rng(i) for i in range(10)],
        settings={"name": "torchattacks:Step", "arguments": {"eps": 0.02, "steps": 3}},
    )[0]  # fmt: skip
    assert not torch.equal(change.pixels, other.pixels)


def test_global_generators_are_as_they_were():
    def draws():
        return float(torch.rand(1)), np.random.rand(), random.random()  # noqa: NPY002

    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    before = draws()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    with library.seeded(np.random.default_rng(0)):
        assert draws() != before
    assert draws() == before


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        (None, {}, "name: wanted library:attack, as torchattacks:CW, got null"),
        ("torchatacks:Step", {}, r"got 'torchatacks' \(perhaps 'torchattacks'\)"),
        ("torchattacks:Stap", {}, r"torchattacks has no attack 'Stap' \(perhaps 'Step'\)"),
        ("torchattacks:VERSION", {}, "torchattacks has no attack 'VERSION'"),
        ("torchattacks:Step", {"epsilon": 1}, r"takes eps, steps; got 'epsilon' \(perhaps 'eps'\)"),
        ("torchattacks:Needy", {}, "takes eps; got no 'eps'"),
        ("torchattack:CW", {}, "torchattack cannot be imported: .* pip install"),
    ],
)
def test_a_wrong_name_or_argument_is_refused_before_work(name, arguments, text, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattack", None)
    with inside(ROOT):
        content = presets.read("public_code").content
    cell = next(iter(content["cells"].values()))
    cell |= {"attack": "library", "override": {"name": name, "arguments": arguments}}
    content |= {"attacks": params.load(ROOT / "params.yaml").attacks}
    plan = params.parse(content)
    with pytest.raises(SettingsError, match=rf"override\..*{text}"):
        checks.everything(plan)


def test_the_settings_of_a_library_are_in_params_yaml():
    common = params.load(ROOT / "params.yaml").attacks
    own = {"name": "torchattacks:Step", "arguments": {"eps": 0.1}}
    assert attacks.resolved("library", common, own) == own
    assert library.fault(**own) == ""
    assert library._arguments("torchattacks", lambda model, **more: None) == ([], [], True)

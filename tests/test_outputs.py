"""Outputs of networks and modules: tensors in containers and objects of any depth."""

import dataclasses
from collections import OrderedDict, UserDict, deque, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from camdrift.explain import cam
from camdrift.models import outputs
from conftest import small_network
from networks import Wrapper


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@dataclasses.dataclass
class Output:
    logits: object
    more: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    logits: object


class Slotted:
    __slots__ = "logits", "none"

    def __init__(self, logits):
        self.logits = logits


class Entries(OrderedDict):
    """Entries that are attributes, too, as of Hugging Face."""

    def __init__(self, **entries):
        super().__init__(**entries)
        self.__dict__.update(entries)


Pair = namedtuple("Pair", "logits features")

NESTED = {
    "dict in dict": (lambda y, f: {"out": {"logits": y}}, ("out", "logits")),
    "dataclass in dataclass": (lambda y, f: Output(Output(y), f), "logits.logits"),
    "frozen in tuple": (lambda y, f: (f, Frozen(y)), (1, "logits")),
    "dataclass in dict": (lambda y, f: {"a": Output(y)}, "a.logits"),
    "list in dataclass": (lambda y, f: Output([f, y]), "logits.1"),
    "pair in dataclass": (lambda y, f: Output(Pair(y, f)), ("logits", "logits")),
    "dataclass in pair": (lambda y, f: Pair(Output(y), f), "0.logits"),
    "all": (lambda y, f: Output({"a": [(Frozen(y),)]}), ("logits", "a", 0, 0, "logits")),
    "entries": (lambda y, f: Entries(logits=y, features=f), None),
    "attribute of entries": (lambda y, f: {"x": Entries(y=y)}, "x.y"),
    "slots": (lambda y, f: [Slotted(y)], (-1, "logits")),
    "user's dict": (lambda y, f: UserDict(logits=y), ("data", "logits")),
    "namespace": (lambda y, f: SimpleNamespace(a=SimpleNamespace(b=y)), "a.b"),
    "dotted": (lambda y, f: {"head.out": y, "head": f}, "head.out"),
}


@pytest.mark.parametrize("name", NESTED)
def test_logits_may_lie_at_any_depth(images, name):
    make, path = NESTED[name]
    plain = cam.all_layers(small_network().eval(), images, 1)
    explained = cam.all_layers(Wrapper(make).eval(), images, 1, score=path)
    torch.testing.assert_close(explained.logits, 2 * plain.logits)
    for one, other in zip(explained.maps["GradCAM"], plain.maps["GradCAM"], strict=True):
        torch.testing.assert_close(one, 2 * other)


@pytest.mark.parametrize("make", [lambda y, f: {y}, lambda y, f: deque([Output({"a": y})])])
def test_a_function_sees_the_output_as_the_network_returns_it(images, make):
    def second(output):
        (part,) = output
        return (part if isinstance(part, torch.Tensor) else part.logits["a"])[:, 1]

    plain = cam.all_layers(small_network().eval(), images, 1)
    explained = cam.all_layers(Wrapper(make).eval(), images, score=second)
    torch.testing.assert_close(explained.logits[:, 0], 2 * plain.logits[:, 1])
    for one, other in zip(explained.maps["GradCAM"], plain.maps["GradCAM"], strict=True):
        torch.testing.assert_close(one, 2 * other)


def test_a_missing_path_is_refused_with_one_that_fits(images):
    network = Wrapper(lambda y, f: {"maps": f, "heads": [Output(y)]}).eval()
    for path in (None, "maps", ("heads", 1), "heads.0.scores", ("heads", 0, "logits", 0)):
        with pytest.raises(ValueError, match=r"such as score=\('heads', 0, 'logits'\)"):
            cam.all_layers(network, images, score=path)


def test_an_output_that_holds_itself_is_walked_once():
    tensor, loop = torch.zeros(1), {}
    loop["itself"], loop["tensor"] = [loop], tensor
    assert list(outputs.named_tensors(loop)) == [(("tensor",), tensor)]
    changed = outputs.mapped(loop, lambda t: t + 1)
    assert torch.equal(changed["tensor"], tensor + 1)
    assert loop["tensor"] is tensor


def test_what_does_not_change_is_no_copy():
    first, second = torch.zeros(1), torch.ones(1)
    part = Output(first)
    output = Pair([part, second], {"a": part, "network": nn.Linear(1, 1)})
    same = outputs.mapped(output, lambda tensor: tensor)
    assert same is output
    other = outputs.mapped(output, lambda t: t + 1 if t is second else t)
    assert other.logits[0] is part
    assert other.features is output.features
    assert torch.equal(other.logits[1], second + 1)
    assert [path for path, _ in outputs.named_tensors(output)] == [(0, 0, "logits"), (0, 1)]


def test_a_module_is_explained_at_an_entry_of_its_result(images):
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_network().eval()[:6]

        def forward(self, x):
            x = self.inner(x)
            return Output({"deep": [x]}, x.mean((2, 3)))

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = Features(), small_network().eval()[6:]

        def forward(self, x):
            return self.head(self.body(x).logits["deep"][0])

    network = Whole().eval()
    whole = cam.all_layers(network, images, 1)
    part = cam.all_layers(network, images, 1, hook_points=["body.logits.deep.0"])
    torch.testing.assert_close(part.maps["GradCAM"][0], whole.maps["GradCAM"][-1])
    with pytest.raises(ValueError, match="no module 'body' returns a tensor"):
        cam.all_layers(network, images, hook_points=["body"])

"""Forwards with functions of autograd, checkpoints, hooks, hidden modules, replaced methods."""

import dataclasses
import types

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from camdrift.explain import cam, rollout
from camdrift.models import checks
from camdrift.models.calls import UnwatchableError
from camdrift.models.submodules import submodules


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Two convs, each before an activation, and what may stand between them."""

    def __init__(self, second=None, join=None, act=torch.sigmoid):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.second = second or (lambda net, x: net.act(net.inner(x)))
        self.join = join or (lambda x, y: x + y)
        self.act = act

    def forward(self, x):
        x = self.act(self.conv(x))
        return self.head(self.join(x, self.second(self, x)).mean((2, 3)))


def assert_alike(network, plain, images, **options):
    ours = cam.all_layers(network.eval(), images, 1, **options)
    other = cam.all_layers(plain.eval(), images, 1, **options)
    torch.testing.assert_close(ours.logits, other.logits)
    assert ours.layers == other.layers
    for one, expected in zip(ours.maps["GradCAM"], other.maps["GradCAM"], strict=True):
        assert expected.any()
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-9)


class Swish(torch.autograd.Function):
    """As EfficientNets compute it, keeping their input alone."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        share = torch.sigmoid(x)
        return gradient * share * (1 + x * (1 - share))


class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_an_activation_in_an_autograd_function_is_explained_at_its_result(images):
    swish, named = Network(act=Swish.apply), Network(act=nn.functional.silu)
    assert_alike(swish, named, images)
    assert_alike(swish, named, images, layers=[-1])


def test_an_autograd_function_takes_a_tensor_that_was_written_in_place(images):
    def join(x, y):
        joined = x * 0.5
        joined.mul_(2)
        joined.add_(y)
        return Same.apply(joined)

    assert_alike(Network(join=join), Network(), images)


def test_convs_under_no_grad_alone_cannot_be_explained(images):
    @torch.no_grad()
    def forward(net, x):
        return net.act(net.inner(x))

    network = Network(second=forward, join=lambda x, y: y)
    explained = cam.all_layers(network, images, 1)
    assert explained.layers == ("conv", "inner")
    assert not explained.maps["GradCAM"][0].any()  # no gradient leaves the second conv
    assert explained.maps["GradCAM"][1].any()
    network.forward = torch.no_grad()(network.forward)
    with pytest.raises(UnwatchableError, match="that a gradient of its output can reach"):
        cam.all_layers(network, images)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_is_explained_as_any_other(images, reentrant):
    calls = []

    def body(net, x):
        calls.append(1)
        return net.act(net.inner(x))

    def second(net, x):
        return checkpoint(body, net, x, use_reentrant=reentrant)

    network = Network(second=second)
    assert_alike(network, Network(), images)
    calls.clear()
    network(images).sum().backward()
    assert len(calls) == 2  # outside of camdrift, the part is computed a second time as before


def test_modules_in_plain_containers_belong_to_the_network(images):
    network = Network(second=lambda net, x: net.act(net.more["deep"][0](x)))
    network.more = {"deep": [nn.Conv2d(6, 6, 3), nn.Dropout(0.5)]}
    network.more["itself"] = network.more
    names = [name for name, _ in submodules(network)]
    assert names == ["", "conv", "inner", "head", "more.deep.0", "more.deep.1"]
    network.join = lambda x, y: y
    first = cam.all_layers(network, images, 1)
    assert first.layers == ("conv", "more.deep.0")
    assert network.more["deep"][1].training
    with torch.no_grad():
        network.more["deep"][0].weight.mul_(-3)
        logits = network(images)
    after = cam.all_layers(network, images, 1)
    assert not torch.equal(first.logits, after.logits)
    torch.testing.assert_close(after.logits, logits)


def test_a_hook_that_changes_a_result_is_refused_and_one_that_looks_is_not(images):
    network, shapes = Network(), []
    handle = network.inner.register_forward_hook(lambda module, args, out: shapes.append(out.shape))
    assert_alike(network, Network(), images)
    handle.remove()
    network.inner.register_forward_hook(lambda module, args, out: out * -2)
    with pytest.raises(checks.UnsoundError, match="a forward hook changes a result"):
        cam.all_layers(network, images)


whole = Network()


def test_a_forward_that_was_replaced_calls_the_copy(images):
    network, plain = Network().train(), Network()
    before = network.forward
    network.forward = lambda x: before(x) * 2
    explained = cam.all_layers(network, images, 1)
    torch.testing.assert_close(explained.logits, 2 * plain(images).detach())
    network.forward = types.MethodType(lambda net, x: Network.forward(net, x) * 2, network)
    assert torch.equal(cam.all_layers(network, images, 1).logits, explained.logits)
    whole.forward = lambda x: whole.head(whole.act(whole.conv(x)).mean((2, 3)))
    with pytest.raises(UnwatchableError, match=r"calls the global 'whole'.*types.MethodType"):
        cam.all_layers(whole, images)


def test_quantised_networks_are_refused(images):
    network = torch.ao.quantization.quantize_dynamic(Network().eval(), {nn.Linear})
    with pytest.raises(UnwatchableError, match="wanted the network before it was quantised"):
        cam.all_layers(network, images)


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    logits: torch.Tensor


def test_an_output_may_be_a_dataclass_with_slots(images):
    class Slotted(Network):
        def forward(self, x):
            logits = super().forward(x)
            logits += 1
            return Output(logits)

    explained, other = cam.all_layers(Slotted(), images, 1), cam.all_layers(Network(), images, 1)
    torch.testing.assert_close(explained.logits, other.logits + 1)
    torch.testing.assert_close(explained.maps["GradCAM"], other.maps["GradCAM"])


def test_a_module_that_returns_a_part_of_a_call_has_no_map(images):
    class Part(nn.Module):
        def forward(self, x):
            return x.chunk(2, 1)[1]

    network = Network(join=lambda x, y: torch.cat([x[:, :3], network.part(y)], 1))
    network.part = Part()
    with pytest.raises(ValueError, match="no module 'part' returns a tensor"):
        cam.all_layers(network, images, hook_points=["part"])


def test_weighted_rollout_reads_a_single_logit_as_two_classes():
    from test_transformers import Transformer

    network, images = Transformer("function").eval(), torch.rand(2, 3, 12, 12)
    network.head = nn.Linear(8, 1)
    both = Transformer("function").eval()
    both.head = nn.Linear(8, 2)
    with torch.no_grad():
        both.head.weight.copy_(torch.cat([-network.head.weight, network.head.weight]))
        both.head.bias.copy_(torch.cat([-network.head.bias, network.head.bias]))
    for target in (None, 0, 1):
        torch.testing.assert_close(
            rollout.weighted_rollout(network, images, target),
            rollout.weighted_rollout(both, images, target),
        )

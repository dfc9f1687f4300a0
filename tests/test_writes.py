"""Forwards that write: into tensors of which there are views, and into weights and buffers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camdrift.explain import cam
from camdrift.models import checks, engine, forward
from camdrift.models.calls import UnwatchableError, memory


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Two convs, each before an activation, and what is done to the features between them."""

    def __init__(self, change=lambda net, x: x, setup=lambda net: None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_var):
            nn.init.uniform_(tensor, 0.5, 2)
        nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)
        self.change = change
        setup(self)

    def forward(self, x):
        x = self.change(self, torch.tanh(self.conv(x)))
        return self.head(torch.tanh(self.norm(self.inner(x))).mean((2, 3)))


def assert_alike(network, plain, images, **options):
    ours = cam.all_layers(network.eval(), images, 1, **options)
    other = cam.all_layers(plain.eval(), images, 1, **options)
    torch.testing.assert_close(ours.logits, other.logits)
    assert len(ours.layers) == len(other.layers)
    for one, expected in zip(ours.maps["GradCAM"], other.maps["GradCAM"], strict=True):
        assert expected.any()
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-9)


# --- views


def viewed(net, x):
    y = x.view(len(x), 6, -1)
    x.mul_(2)
    return y.view(x.shape) + x


def slice_of_slice(net, x):
    y = x[:, 1:]
    z = y[:, 1:]
    x += 1
    return F.pad(z, (0, 0, 0, 0, 2, 0)) + F.pad(y, (0, 0, 0, 0, 1, 0)) + x


def chunks(net, x):
    first, second = x.chunk(2, 1)
    x.add_(1)
    return torch.cat([second, first], 1)


def iterated(net, x):
    parts = iter(x)
    x.mul_(2)
    return torch.stack(list(parts))


def by_an_attribute(net, x):
    turned = x.mT
    x.mul_(2)
    return turned.mT


def by_a_slice(net, x):
    flat = x.flatten(2)
    x[:, 0] = 1
    return flat.unflatten(2, x.shape[2:])


def by_out(net, x):
    flat = x.flatten(2)
    torch.add(x, 1, out=x)
    return flat.unflatten(2, x.shape[2:])


def by_an_option(net, x):
    other = x.expand_as(x)
    F.relu(x, inplace=True)
    F.dropout(x, inplace=True, training=False)
    x.clamp_(max=0.3)
    return other


def in_turn(net, x):
    y = x.view(len(x), -1)
    y.mul_(2)
    x.add_(1)
    z = x * x
    y.mul_(y)
    x.mul_(3)
    return z + y.view_as(x) / 9


def siblings(net, x):
    y = x.view(len(x), -1)
    z = y.view(x.shape)
    y.mul_(2)
    return z


def halves(net, x):
    whole = torch.zeros_like(x)
    first, second = whole[:, :3], whole[:, 3:]
    first.copy_(x[:, 3:])
    whole.mul_(2)
    second.add_(x[:, :3])
    whole.add_(1)
    return torch.cat([second, first], 1)


def needed_by_a_backward(net, x):
    squares = x * x
    y = x[:, :3]
    y.mul_(y.exp())
    return squares + x


def one_by_another(net, x):
    y = x[:, ::2]
    y += 1
    y *= x[:, 1::2]
    return x


def by_its_own_view(net, x):
    x.index_add_(1, torch.tensor([0]), x[:, :1])
    return x


def reversible(net, x):
    first, second = x.chunk(2, 1)
    first.add_(second)
    second.mul_(first)
    return x


def several_at_once(net, x):
    y = x.view(len(x), -1)
    torch._foreach_mul_([x, torch.ones(1)], 2)
    return y.view_as(x)


def no_gradient(net, x):
    y, z = x.detach(), x.data
    x.mul_(2)
    return x + y + z


def without_its_gradient(net, x):
    x.data.mul_(2)
    return x


def result_in_place(net, x):
    x = x * 1
    z = x.mul_(2)
    y = z.view(len(x), -1)
    x.add_(1)
    return y.view_as(x) + z


def same_by_layout(net, x):
    y, z = x.contiguous(), x.reshape(len(x), -1)
    x.mul_(2)
    return y + z.view_as(x)


def scaled_first(x):
    return torch.cat([x[:, :3] * x[:, :3].exp(), x[:, 3:]], 1)


def turned(x):
    return torch.cat([x[:, 3:], x[:, :3]], 1)


def first_one(x):
    return torch.cat([torch.ones_like(x[:, :1]), x[:, 1:]], 1)


def padded(x, channels):
    return torch.cat([torch.zeros_like(x[:, :channels]), x[:, channels:]], 1)


def each_second(x):
    even = (x[:, ::2] + 1) * x[:, 1::2]
    return torch.stack([even, x[:, 1::2]], 2).flatten(1, 2)


def doubled_first(x):
    return torch.cat([2 * x[:, :1], x[:, 1:]], 1)


def joined(x):
    first = x[:, :3] + x[:, 3:]
    return torch.cat([first, x[:, 3:] * first], 1)


class Halved(torch.autograd.Function):
    """2 * x with the gradient of x, as a write through `.data` has it."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


VIEWS = [
    (viewed, lambda net, x: 4 * x),
    (slice_of_slice, lambda net, x: padded(x + 1, 2) + padded(x + 1, 1) + x + 1),
    (chunks, lambda net, x: turned(x + 1)),
    (iterated, lambda net, x: 2 * x),
    (by_an_attribute, lambda net, x: 2 * x),
    (by_a_slice, lambda net, x: first_one(x)),
    (by_out, lambda net, x: x + 1),
    (by_an_option, lambda net, x: x.relu().clamp(max=0.3)),
    (in_turn, lambda net, x: (2 * x + 1) ** 2 + (2 * x + 1) ** 2 / 3),
    (siblings, lambda net, x: 2 * x),
    (halves, lambda net, x: torch.cat([x[:, :3] + 1, 2 * x[:, 3:] + 1], 1)),
    (needed_by_a_backward, lambda net, x: x * x + scaled_first(x)),
    (one_by_another, lambda net, x: each_second(x)),
    (by_its_own_view, lambda net, x: doubled_first(x)),
    (reversible, lambda net, x: joined(x)),
    (several_at_once, lambda net, x: 2 * x),
    (no_gradient, lambda net, x: 2 * x + 4 * x.detach()),
    (without_its_gradient, lambda net, x: Halved.apply(x)),
    (result_in_place, lambda net, x: 2 * (2 * x + 1)),
    (same_by_layout, lambda net, x: 4 * x),
]


@pytest.mark.parametrize(("change", "plain"), VIEWS, ids=lambda case: case.__name__)
def test_what_is_written_is_seen_through_every_view(images, change, plain):
    with torch.no_grad():
        torch.testing.assert_close(Network(change).eval()(images), Network(plain).eval()(images))
    assert_alike(Network(change), Network(plain), images)
    assert_alike(Network(change), Network(plain), images, layers=[-1])
    assert_alike(Network(change), Network(plain), images, methods=["GradCAM", "ScoreCAM"])


def test_a_conv_whose_activation_has_another_shape_is_explained_at_its_own_output(images):
    class Flat(Network):
        def forward(self, x):
            x = self.inner(torch.tanh(self.conv(x)))
            x.view(len(x), -1).relu_()
            return self.head(x.mean((2, 3)))

    class Plain(Network):
        def forward(self, x):
            self.kept = self.inner(torch.tanh(self.conv(x)))
            return self.head(self.kept.relu().mean((2, 3)))

    explained, plain = cam.all_layers(Flat(), images, 1), Plain()
    score = plain(images)[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, plain.kept)
    expected = (gradient.mean((2, 3), keepdim=True) * plain.kept).sum(1).relu().detach()
    assert explained.layers == ("conv", "inner")
    torch.testing.assert_close(explained.maps["GradCAM"][1], expected, rtol=1e-4, atol=1e-9)


def test_a_view_of_the_images_is_seen_too(images):
    class Centred(Network):
        def forward(self, x):
            flat = x.flatten(2)
            x -= 0.5
            return super().forward(flat.unflatten(2, (12, 12)))

    before = images.clone()
    ours = cam.all_layers(Centred(), images, 1)
    other = cam.all_layers(Network(), images - 0.5, 1)
    torch.testing.assert_close(ours.logits, other.logits)
    assert torch.equal(images, before)


def test_views_and_a_part_without_gradients_cannot_be_had_at_once(images):
    def change(net, x):
        y = x.view(len(x), -1)
        x.mul_(2)
        with torch.no_grad():
            x.add_(1)
        return y.view_as(x)

    with pytest.raises(UnwatchableError, match=r"by mul_, of which there are views.*`x = x \+ y`"):
        cam.all_layers(Network(change), images)


def test_what_writes_nothing_is_called_as_it_is(images):
    """`contiguous`, `to` and a dropout in eval mode return the tensor that they are given."""

    def change(net, x):
        return F.dropout(x.to(torch.float32).requires_grad_(x.requires_grad), 0.5, net.training)

    recording = engine.watch(Network(change).eval(), images[:1]).recording
    assert all(call.target is None for call in recording.calls)


# --- weights and buffers


def with_raw(net):
    net.raw = nn.Parameter(net.inner.weight.detach().clone())


def replaced(net, x):
    net.inner.weight = nn.Parameter(net.raw * 2)
    return x


def replaced_data(net, x):
    net.inner.weight.data = net.raw.data * 2
    return x


def clamped(net, x):
    with torch.no_grad():
        net.inner.weight.clamp_(-0.1, 0.1)
    return x


def clamped_data(net, x):
    net.inner.weight.data.clamp_(-0.1, 0.1)
    return x


def clamped_norm(net, x):
    net.norm.weight.data.clamp_(0.5, 0.6)
    net.head.bias.data.clamp_(min=0)
    return x


def normalised(net, x):
    with torch.no_grad():
        weight = net.inner.weight
        flat = weight.view(6, -1)
        weight.div_(flat.norm(dim=1)[:, None, None, None])
    return x


def statistics_replaced(net, x):
    net.norm.running_mean = net.norm.running_var * 0.1
    return x


def statistics_write(net, x):
    net.norm.running_mean.data.copy_(net.norm.running_var * 0.1)
    return x


def averaged(net, x):
    net.norm.running_mean  # noqa: B018
    net.average.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
    net.count += 1
    return x


def with_average(net):
    net.register_buffer("average", torch.zeros(6))
    net.register_buffer("count", torch.zeros((), dtype=torch.long))


def local(net, x):
    return F.conv2d(x, nn.Parameter(net.raw.detach() * 2), padding=1)


def once(change):
    """Sets up a network by the change that another makes in its forward."""

    def setup(net):
        with_raw(net)
        change(net, torch.zeros(1, 6, 12, 12))

    return setup


WEIGHTS = [
    replaced, replaced_data, clamped, clamped_data, clamped_norm, normalised, statistics_replaced,
    statistics_write,
]  # fmt: skip


@pytest.mark.parametrize("change", WEIGHTS, ids=lambda change: change.__name__)
def test_weights_may_be_written_in_the_forward(images, change):
    network, plain = Network(change, with_raw).eval(), Network(setup=once(change))
    before = copy.deepcopy(network.state_dict())
    places = {name: memory(tensor) for name, tensor in network.state_dict().items()}
    assert_alike(network, plain, images)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert memory(tensor) == places[name]
    for _ in range(2):
        assert_alike(network, plain, images)
        with torch.no_grad():
            network(images)  # which does write them


def test_a_conv_and_a_norm_that_the_forward_changes_are_not_folded(images):
    for change, count in ((clamped, 1), (clamped_norm, 1), (lambda net, x: x, 0)):
        watched = engine.watch(Network(change).eval(), images[:1])
        assert sum(call.function is F.batch_norm for call in watched.calls) == count


def test_averages_that_are_kept_and_not_read_change_nothing(images):
    network = Network(averaged, with_average).eval()
    assert_alike(network, Network(), images)
    assert not network.average.any()
    assert network.count == 0


def test_averages_that_are_read_are_refused(images):
    def change(net, x):
        return averaged(net, x) - net.average[:, None, None]

    with pytest.raises(checks.UnsoundError, match=r"or remembers \(it changes average, count\)"):
        cam.all_layers(Network(change, with_average), images)


def test_what_is_drawn_is_named(images):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    network = Network(lambda net, x: net.noise(x), lambda net: setattr(net, "noise", Noisy()))
    with pytest.raises(checks.UnsoundError, match=r"\(it calls rand_like in 'noise'\)"):
        cam.all_layers(network, images)


@pytest.mark.parametrize(("several", "place"), [(True, "inner"), (False, "relu")])
def test_the_layer_from_which_calls_differ_is_named(images, several, place):
    def change(net, x):
        return torch.relu(x) if (len(x) > 1) is several else x

    watched = engine.watch(Network(change).eval(), images[:1])
    with pytest.raises(forward.OtherCallsError, match=f"from '{place}' on; wanted images"):
        watched(images, ())


def test_a_parameter_may_be_made_in_the_forward(images):
    network = Network(local, with_raw)
    for _ in range(2):
        explained = cam.all_layers(network.eval(), images, 1)
    assert explained.layers == ("conv", "conv2d", "inner")
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, network(images))


def test_a_buffer_with_a_history_is_left_as_it_is(images):
    def change(net, x):
        net.features.copy_(x)
        net.features.mul_(2)
        return net.features

    def setup(net):
        net.register_buffer("features", torch.zeros(3, 6, 12, 12))

    network = Network(change, setup).eval()
    network(images)
    before = network.features.detach().clone()
    explained = cam.all_layers(network, 1 - images, 1)
    assert torch.equal(network.features, before)
    torch.testing.assert_close(explained.logits, network(1 - images).detach())

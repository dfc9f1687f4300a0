import numpy as np
import pytest
import torch
from torch import nn

from camdrift.explain import lrp
from camdrift.models import architectures
from camdrift.models.architectures import RefusedError
from conftest import as_model, small_network

# isort: split
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat


def dense_network(*, rectified=True, bias=True) -> nn.Sequential:
    """Flat, alpha1-beta0, twice epsilon; without ReLU the second conv sees negative values."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=bias),
        nn.ReLU() if rectified else nn.Identity(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 6, bias=bias),
        nn.ReLU(),
        nn.Linear(6, 4, bias=bias),
    )
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.3)
    return network


def images(n=3, side=8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, side, side, generator=generator, dtype=torch.float64)


def taps(layer, shape):
    """Each output of a conv with the inputs that feed it: (k, i, j), [(weight, (c, y, x))]."""
    channels, height, width = shape
    weight = layer.weight.numpy()
    side, stride, pad = weight.shape[2], layer.stride[0], layer.padding[0]
    for k in range(len(weight)):
        for i in range((height + 2 * pad - side) // stride + 1):
            for j in range((width + 2 * pad - side) // stride + 1):
                sources = []
                for c in range(channels):
                    for a in range(side):
                        for b in range(side):
                            y, x = i * stride + a - pad, j * stride + b - pad
                            if 0 <= y < height and 0 <= x < width:
                                sources.append((weight[k, c, a, b], (c, y, x)))
                yield (k, i, j), sources


def slow_flat(layer, values, upper):
    lower = np.zeros_like(values)
    for place, sources in taps(layer, values.shape):
        for _, source in sources:
            lower[source] += upper[place] / len(sources)
    return lower


def slow_alpha_one(layer, values, upper):
    lower = np.zeros_like(values)
    for place, sources in taps(layer, values.shape):
        shares = {s: max(values[s] * w, 0.0) for w, s in sources}  # x+ w+ or x- w-
        bias = 0.0 if layer.bias is None else float(layer.bias[place[0]])
        z = sum(shares.values()) + bias
        for source, share in shares.items():
            lower[source] += share / (z if z else 1e-7) * upper[place]
    return lower


def slow_epsilon(layer, values, upper):
    weight, lower = layer.weight.numpy(), np.zeros_like(values)
    for k, row in enumerate(weight):
        bias = 0.0 if layer.bias is None else float(layer.bias[k])
        z = sum(w * x for w, x in zip(row, values, strict=True)) + bias
        for i, w in enumerate(row):
            lower[i] += values[i] * w / (z + (0.1 if z >= 0 else -0.1)) * upper[k]
    return lower


def slow_winner(values, upper):
    lower = np.zeros_like(values)
    for c, i, j in np.ndindex(upper.shape):
        square = [(c, 2 * i + a, 2 * j + b) for a in (0, 1) for b in (0, 1)]
        lower[max(square, key=lambda place: values[place])] += upper[c, i, j]
    return lower


def slow_relevance(network, inputs, target=None, *, down_to=0):
    """The preset layer by layer, down to the input of one: iNNvestigate's rules in plain loops."""
    values = [inputs]
    with torch.no_grad():
        for layer in network:
            values.append(layer(torch.from_numpy(values[-1])[None])[0].numpy())
    logits = values.pop()
    target = int(logits.argmax()) if target is None else target
    upper = np.where(np.arange(len(logits)) == target, logits, 0.0)
    first = True
    for place in reversed(range(down_to, len(network))):
        layer, lower = network[place], values[place]
        first = place == 0
        if isinstance(layer, nn.Conv2d):
            upper = (slow_flat if first else slow_alpha_one)(layer, lower, upper)
        elif isinstance(layer, nn.Linear):
            upper = slow_epsilon(layer, lower, upper)
        elif isinstance(layer, nn.MaxPool2d):
            upper = slow_winner(lower, upper)
        elif isinstance(layer, nn.Flatten):
            upper = upper.reshape(lower.shape)
    return upper if down_to else upper.sum(0)


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_slow_twin(rectified, bias):
    network = dense_network(rectified=rectified, bias=bias).double().requires_grad_(False)
    model = as_model(network, size=8, micro_batch=2).double()
    pixels = images()
    classes = torch.tensor([0, 3, 1])
    own, named = lrp.relevance(model, pixels), lrp.relevance(model, pixels, classes)
    for i, inputs in enumerate(model.inputs(pixels).numpy()):
        np.testing.assert_allclose(own[i], slow_relevance(network, inputs), rtol=1e-9, atol=1e-12)
        expected = slow_relevance(network, inputs, int(classes[i]))
        np.testing.assert_allclose(named[i], expected, rtol=1e-9, atol=1e-12)
    assert own.shape == (3, 8, 8)
    assert (named[0] - own[0]).abs().max() > 0


@pytest.mark.parametrize("classes", [None, torch.tensor([0, 3, 1])])
def test_slow_twin_of_the_last_layer(classes):
    network = dense_network().double().requires_grad_(False)
    model = as_model(network, size=8, micro_batch=2).double()
    maps, last = lrp.relevance_and_last_layer(model, images(), classes)
    assert torch.equal(maps, lrp.relevance(model, images(), classes))
    assert last.shape == (3, 6)  # the last dense layer has six inputs
    for i, inputs in enumerate(model.inputs(images()).numpy()):
        of = None if classes is None else int(classes[i])
        expected = slow_relevance(network, inputs, of, down_to=len(network) - 1)
        np.testing.assert_allclose(last[i], expected, rtol=1e-9, atol=1e-12)


def test_the_last_layer_may_be_a_conv():
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).requires_grad_(False)  # fmt: skip
    network[0].weight.fill_(0)
    network[0].bias.copy_(torch.tensor([1.0, 3.0]))
    network[2].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(2, 2, 1, 1))
    _, last = lrp.relevance_and_last_layer(as_model(network, size=2), torch.rand(1, 3, 2, 2))
    # The logit is 1 + 3; both inputs get their share of it, evenly over the four places.
    np.testing.assert_allclose(last, [[1 / 4] * 4 + [3 / 4] * 4], rtol=1e-6)


def through(rule, layer, inputs, upper):
    """What a rule makes of the relevance `upper` of a layer's output."""
    handle = rule.register(layer)
    inputs = inputs.requires_grad_()
    (lower,) = torch.autograd.grad(layer(inputs), inputs, upper)
    handle.remove()
    return lower


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (-5.0, (12.0, 8.0)),  # z = 2 * 3 + (-1) * (-4) - 5 = 5; 6 / 5 * 10 and 4 / 5 * 10
        (5.0, (4.0, 4.0 * 2 / 3)),  # z = 15
        (-12.0, (-30.0, -20.0)),  # z = -2: the sign turns
        (-10.0, (6e8, 4e8)),  # z = 0 counts as 1e-7
    ],
)
def test_alpha_one_on_paper(bias, expected):
    layer = nn.Conv2d(2, 1, 1).requires_grad_(False)
    layer.weight.copy_(torch.tensor([3.0, -4.0]).view(1, 2, 1, 1))
    layer.bias.fill_(bias)
    inputs = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    relevance = through(lrp.AlphaOne(), layer, inputs, torch.tensor(10.0).view(1, 1, 1, 1))
    np.testing.assert_allclose(relevance.flatten(), expected, rtol=1e-6)


def test_contributions_against_the_output_get_nothing():
    layer = nn.Conv2d(2, 1, 1, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1))
    inputs = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)  # 6 and -4: the negative one is left out
    relevance = through(lrp.AlphaOne(), layer, inputs, torch.tensor(10.0).view(1, 1, 1, 1))
    assert relevance.flatten().tolist() == [10.0, 0.0]


def test_flat_on_paper():
    # One conv of a 2x2 image, whose four outputs all see all of it, and a mean over them.
    network = nn.Sequential(
        nn.Conv2d(3, 1, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).requires_grad_(False)
    network[0].weight.fill_(0.01)
    network[0].bias.fill_(1.0)
    model = as_model(network, size=2)
    pixels = torch.rand(1, 3, 2, 2)
    logit = float(model(pixels)[0, 1])  # of the second of its two classes
    relevance = lrp.relevance(model, pixels)
    # Each output spreads its relevance evenly over four places and three channels.
    np.testing.assert_allclose(relevance, np.full((1, 2, 2), logit / 4), rtol=1e-6)


def test_relevance_is_conserved_without_biases_and_dense_layers():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    # A negative output may have no positive contribution, and then its relevance is lost.
    network[5].weight.data.abs_()
    model = as_model(network, size=8).double()
    logits = model(images())
    for target in range(4):
        relevance = lrp.relevance(model, images(), torch.full((3,), target))
        torch.testing.assert_close(relevance.sum((1, 2)), logits[:, target])


def test_a_dense_layer_keeps_what_epsilon_leaves():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4, bias=False)
    )
    model = as_model(network, size=8).double()
    logits = model(images())
    relevance = lrp.relevance(model, images(), torch.tensor([0, 1, 2])).sum((1, 2))
    logit = logits[torch.arange(3), torch.tensor([0, 1, 2])]
    torch.testing.assert_close(relevance, logit * logit / (logit + 0.1 * logit.sign()))


class Residual(nn.Module):
    def __init__(self, add):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.last = nn.Conv2d(4, 4, 1, bias=False)
        self.relu = nn.ReLU()
        self.add = add

    def forward(self, x):
        x = self.relu(self.first(x))
        x = self.relu(self.add(self.second(x), x))
        return self.last(x).mean((2, 3))


def in_place(a, b):
    a += b
    return a


@pytest.mark.parametrize("add", [torch.add, lambda a, b: a + b, in_place])
def test_a_residual_addition_shares_its_relevance(add):
    torch.manual_seed(0)
    network = Residual(add)
    network.second.weight.data.abs_()
    network.last.weight.data.abs_()
    model = as_model(network, size=8).double()
    logits = model(images())
    relevance = lrp.relevance(model, images())
    torch.testing.assert_close(relevance.sum((1, 2)), logits.amax(1))


def test_an_addition_on_paper():
    network = Residual(torch.add).requires_grad_(False)
    rules = lrp._with_own_modules(as_model(network, size=8).graph)
    (place,) = [name for name, rule in rules[1].items() if "Norm" in str(type(rule)) and
                "mean" not in name]  # fmt: skip
    terms = torch.tensor([[6.0, 2.0], [6.0, -3.0], [0.0, 0.0]])  # sums 8, 3 and 0
    relevance = through(
        rules[1][place], rules[0].get_submodule(place), terms, torch.full((3,), 4.0)
    )
    assert relevance.tolist() == [[3.0, 1.0], [8.0, -4.0], [0.0, 0.0]]


def test_batch_norm_behind_a_conv_is_part_of_it():
    torch.manual_seed(5)
    conv, norm = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    folded = nn.Conv2d(4, 5, 3)
    factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    folded.weight.data = conv.weight.detach() * factor.view(-1, 1, 1, 1)
    folded.bias.data = (conv.bias.detach() - norm.running_mean) * factor + norm.bias.detach()
    first, last = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)
    maps = []
    for middle in ([conv, norm], [folded]):
        network = nn.Sequential(
            first, nn.ReLU(), *middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
        ).double()
        maps.append(lrp.relevance(as_model(network, size=8).double(), images()))
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-9)


def test_zennit_s_own_preset_where_there_is_no_bias():
    network = dense_network(bias=False)
    model = as_model(network, size=8)
    pixels = images().float()
    composite = EpsilonPlusFlat(epsilon=0.1)
    with Gradient(model=network, composite=composite) as attributor:
        _, expected = attributor(
            model.inputs(pixels), lambda out: out * (out == out.amax(1, keepdim=True))
        )
    relevance = lrp.relevance(model, pixels)
    torch.testing.assert_close(relevance, expected.sum(1), rtol=1e-3, atol=1e-5)


def test_the_map_does_not_depend_on_the_images_beside(model, pixels):
    classes = torch.arange(10) % 4
    together = lrp.relevance(model, pixels, classes)
    for i in (0, 5, 9):
        alone = lrp.relevance(model, pixels[i : i + 1], classes[i : i + 1])
        assert torch.equal(alone[0], together[i])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lrp.relevance(model, pixels[order], classes[order]), together[order])


def test_a_negative_value_in_another_image_changes_no_bit():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network[0].weight.data.abs_()
    network[0].bias.data.fill_(0.5)
    model = as_model(network, size=8, micro_batch=2)
    bright, dark = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    assert network[0](model.inputs(bright)).min() > 0 > network[0](model.inputs(dark)).min()
    alone = lrp.relevance(model, bright)[0]
    assert torch.equal(lrp.relevance(model, torch.cat([bright, dark]))[0], alone)


def test_the_own_class_is_the_top_class(model, pixels):
    classes = model(pixels).argmax(1)
    own = lrp.relevance(model, pixels)
    assert torch.equal(own, lrp.relevance(model, pixels, classes))


class Fault(Exception):
    pass


def test_the_model_is_left_as_found_also_after_an_error(model, pixels, monkeypatch):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    identities = [id(parameter) for parameter in model.parameters()]
    logits = model(pixels)
    lrp.relevance(model, pixels)
    with pytest.raises(RuntimeError):
        lrp.relevance(model, pixels, torch.full((10,), 99))

    def fail(*_):
        raise Fault

    monkeypatch.setattr(lrp.AlphaOne, "backward", fail)
    with pytest.raises(Fault):
        lrp.relevance(model, pixels)
    modules = list(model.modules())
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in modules)
    assert not any(module.training for module in modules)
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(model(pixels), logits)


@pytest.mark.parametrize(
    ("name", "width"),
    [("vgg11", 0.125), ("vgg11_bn", 0.125), ("resnet18", 0.125), ("squeezenet1_1", 1)],
)
def test_torchvision_s_networks_have_finite_maps(name, width):
    torch.manual_seed(0)
    network = architectures.build(
        architecture=name, width=width, head="torchvision", classes=10, size=64, initialised=True
    )
    model = as_model(network, size=64, micro_batch=2)
    pixels = images(2, 32).float()  # and resized by the model
    relevance = lrp.relevance(model, pixels)
    assert relevance.shape == (2, 64, 64)
    assert relevance.isfinite().all()
    assert (relevance != 0).flatten(1).any(1).all()
    # No bias is drawn but SqueezeNet's, so the sum misses only what epsilon takes.
    ratio = relevance.sum((1, 2)) / model(pixels).amax(1)
    assert ((ratio > 0) & (ratio < 1.001)).all()


class Gated(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 4, 3), gate

    def forward(self, x):
        return self.gate(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("gate", "named"),
    [
        (lambda x: x * torch.sigmoid(x), "mul"),
        (lambda x: x + 1, "add"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), "BatchNorm2d"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode=reflect"),
        (nn.Softmax2d(), "Softmax2d"),
    ],
)
def test_layers_without_a_rule_are_refused(gate, named):
    model = as_model(Gated(gate))
    with pytest.raises(RefusedError, match=f"no rule for .*{named}.*Wanted Conv2d"):
        lrp.relevance(model, torch.rand(1, 3, 12, 12))


def test_additions_that_broadcast_are_refused():
    model = as_model(Gated(lambda x: x + x.mean((2, 3), keepdim=True)))
    with pytest.raises(RefusedError, match="wanted equal shapes"):
        lrp.relevance(model, torch.rand(1, 3, 12, 12))


def test_classes_are_one_an_image(model, pixels):
    with pytest.raises(ValueError, match="wanted 10 classes"):
        lrp.relevance(model, pixels, torch.zeros(3, dtype=torch.long))


def test_a_small_network_with_everything_runs():
    relevance = lrp.relevance(as_model(small_network()), torch.rand(2, 3, 12, 12))
    assert relevance.isfinite().all()

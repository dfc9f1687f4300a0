"""Networks of every make: what they hold, what they return, and what changes between calls."""

import copy
import gc
import weakref
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camdrift.explain import cam, prepared
from camdrift.models import checks
from camdrift.models.calls import UnwatchableError
from conftest import as_model, small_network
from networks import Wrapper


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Rich(nn.Module):
    """A Conv3d, a buffer of five dimensions, an LSTM, a hook on a tensor, branches on shapes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.deep = nn.Conv2d(3, 4, 3), nn.Conv3d(1, 1, 3, padding=1)
        self.register_buffer("scale", torch.full((1, 1, 1, 1, 1), 2.0))
        self.rows, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
        self.seen = None

    def forward(self, x):
        self.seen = x = torch.relu(self.conv(x))
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient)
        deep = self.deep(x[:, None]) * self.scale
        x = deep[:, 0] if deep.shape[1] == 1 else deep.mean(1)
        for _ in range(int(x.abs().max() < 100) + 1):
            x = x * 0.5
        rows, _ = self.rows(x.mean(3).transpose(1, 2))
        return self.head(rows[:, -1])


def test_a_rich_forward_is_explained_after_calls_of_its_own(images):
    network = Rich().eval()
    with torch.no_grad():
        logits = network(images)
    network(images)  # leaves a tensor with a history on the network
    explanation = cam.all_layers(network, images, 1)
    torch.testing.assert_close(explanation.logits, logits)
    score = network(images)[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, network.seen)
    expected = (gradient.mean((2, 3), keepdim=True) * network.seen).sum(1).relu().detach()
    assert expected.any()
    torch.testing.assert_close(explanation.maps["GradCAM"][0], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_is_called_in_its_own_precision(images, dtype):
    network = small_network().eval().to(dtype)
    explanation = cam.all_layers(network, images, 0, methods=["GradCAM", "LayerCAM"])
    with torch.no_grad():
        own = network(images.to(dtype))
    if dtype is torch.float64:
        torch.testing.assert_close(explanation.logits, own, rtol=1e-14, atol=1e-14)
    else:
        assert torch.equal(explanation.logits, own.float())
    whole = cam.all_layers(small_network().eval(), images, 0, methods=["GradCAM", "LayerCAM"])
    share = {torch.float16: 0.02, torch.bfloat16: 0.1, torch.float64: 1e-5}[dtype]
    for name, maps in explanation.maps.items():
        for ours, other in zip(maps, whole.maps[name], strict=True):
            assert ours.dtype == (dtype if dtype is torch.float64 else torch.float32)
            assert float((ours - other).abs().max()) <= share * float(other.max())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, nn.Sequential])
def test_a_wrapped_network_is_explained_as_the_network_inside(images, wrap):
    network = small_network().eval()
    plain = cam.all_layers(network, images)
    explanation = cam.all_layers(wrap(network), images)
    assert torch.equal(explanation.logits, plain.logits)
    for one, other in zip(explanation.maps["GradCAM"], plain.maps["GradCAM"], strict=True):
        assert torch.equal(one, other)


def test_a_lazy_network_is_explained_once_a_call_has_filled_it(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    with pytest.raises(UnwatchableError, match="wanted a network that was called once"):
        cam.all_layers(network, images)
    network(images)
    assert cam.all_layers(network, images).layers == ("0",)


class Forward(nn.Module):
    """A conv network with a given forward."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.token = nn.Parameter(torch.rand(6))
        self.norm.running_var.fill_(2.0)
        self.norm.running_mean.uniform_(-0.2, 0.2)
        self.own = forward

    def forward(self, x):
        return self.own(self, x)

    def tail(self, x):
        return self.head(x.mean((2, 3)))


def flattened(net, x):
    x = torch.relu(net.conv(x))
    return net.head(x.view(len(x), 6, -1).mean(2))  # fails with channels last


def transposed(net, x):
    x = torch.relu(net.conv(x)).mean((2, 3))
    return (net.head.weight @ x.T).T + net.head.bias


def normalised_in_place(net, x):
    x -= 0.5
    return net.tail(torch.relu(net.conv(x)))


def into_a_slice(net, x):
    x = torch.relu(net.conv(x))
    whole = torch.zeros_like(x)
    whole[:, :3].copy_(torch.relu(net.second(x))[:, :3])
    return net.tail(whole + x)


def attributes_of_a_folded_norm(net, x):
    x = net.norm(net.conv(x.to(net.norm.weight.dtype)))
    return net.tail(torch.relu(x) + net.norm.eps)


def token_that_requires_a_gradient(net, x):
    token = torch.full((1,), 0.5, requires_grad=True)
    return net.tail(torch.relu(net.conv(x * token)))


FORWARDS = [
    flattened, transposed, normalised_in_place, into_a_slice, attributes_of_a_folded_norm,
    token_that_requires_a_gradient,
]  # fmt: skip


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_any_forward_is_explained(images, forward):
    network, before = Forward(forward).eval(), images.clone()
    tensors = []
    relu = torch.relu
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "relu", lambda x: tensors.append(relu(x)) or tensors[-1])
        logits = network(images.clone())
    gradients = torch.autograd.grad(logits[:, 1].sum(), tensors)
    explanation = cam.all_layers(network, images, 1)
    assert torch.equal(images, before)
    torch.testing.assert_close(explanation.logits, logits.detach())
    for ours, tensor, gradient in zip(explanation.maps["GradCAM"], tensors, gradients, strict=True):
        weights = gradient.mean((2, 3), keepdim=True)
        expected = (weights * tensor).sum(1).relu().detach()
        assert expected.any()
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-8)


def test_a_conv_by_its_name_is_explained_before_its_norm(images):
    network = Forward(lambda net, x: net.tail(net.norm(net.conv(x)))).eval()
    outputs = []
    hook = network.conv.register_forward_hook(lambda m, i, out: outputs.append(out))
    (gradient,) = torch.autograd.grad(network(images)[:, 0].sum(), outputs)
    hook.remove()
    expected = (gradient.mean((2, 3), keepdim=True) * outputs[0]).sum(1).relu().detach()
    (maps,) = cam.all_layers(network, images, 0, hook_points=["conv"]).maps["GradCAM"]
    torch.testing.assert_close(maps, expected)
    # Without an activation, the default is the output of the norm, folded or not.
    whole = cam.all_layers(network, images, 0).maps["GradCAM"][0]
    named = cam.all_layers(network, images, 0, hook_points=["norm"]).maps["GradCAM"][0]
    torch.testing.assert_close(whole, named)


def test_images_that_take_other_modules_are_refused(images):
    def experts(net, x):
        layer = net.second if x.mean() > 0 else net.norm
        first = torch.relu(net.conv(x))
        return net.tail(F.conv2d(first, layer.weight) if layer is net.second else net.norm(first))

    def twins(net, x):
        weight = net.conv.weight if x.mean() > 0 else net.third.weight
        return net.tail(torch.relu(F.conv2d(x, weight)))

    network = Forward(experts).eval()
    cam.all_layers(network, images)
    with pytest.raises(checks.UnsoundError, match="makes other calls.*from 'conv2d' on"):
        cam.all_layers(network, -images)
    network = Forward(twins).eval()
    network.third = nn.Conv2d(3, 6, 3)
    for batch in (images, -images):  # of one name: the network is watched again
        with torch.no_grad():
            logits = network(batch)
        torch.testing.assert_close(cam.all_layers(network, batch).logits, logits)


def test_pixels_and_weights_of_inference_mode_are_explained():
    with torch.inference_mode():
        pixels, network = torch.rand(2, 3, 12, 12), small_network().eval()
    explanation = cam.all_layers(network, pixels, 0)
    other = cam.all_layers(small_network().eval(), pixels.clone(), 0)
    assert torch.equal(explanation.maps["GradCAM"][0], other.maps["GradCAM"][0])


def test_features_that_a_network_collects_stay_its_own(images):
    class Collecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.features = small_network().eval(), []

        def forward(self, x):
            x = self.inner[:6](x)
            self.features.append(x)
            return self.inner[6:](x)

    network = Collecting()
    network(images)
    cam.all_layers(network, images)
    assert len(network.features) == 1


# --- outputs


def single(network):
    return nn.Sequential(*network[:-1], nn.Linear(7, 1)).eval()


def test_a_single_logit_is_read_as_two_classes(images):
    torch.manual_seed(1)
    network = single(small_network())
    with torch.no_grad():
        network[-1].bias -= network(images).median()
        logit = network(images)[:, 0]
    assert 0 < int((logit > 0).sum()) < 3
    explanation = cam.all_layers(network, images)
    assert torch.equal(explanation.targets, (logit > 0).long())
    both = nn.Sequential(*network[:-1], nn.Linear(7, 2)).eval()
    with torch.no_grad():
        both[-1].weight.copy_(torch.cat([-network[-1].weight, network[-1].weight]))
    for softmax in (False, True):
        ours = cam.all_layers(network, images, softmax=softmax).maps["GradCAM"]
        theirs = cam.all_layers(both, images, explanation.targets, softmax=False).maps["GradCAM"]
        slope = logit.sigmoid() * (1 - logit.sigmoid()) if softmax else torch.ones(3)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other * slope[:, None, None])
    with pytest.raises(ValueError, match="wanted targets from 0 to 1, got 2"):
        cam.all_layers(network, images, 2)


def test_a_study_reads_a_single_logit_as_two_that_have_its_sigmoid(images):
    torch.manual_seed(1)
    network = single(small_network())
    model = as_model(network, micro_batch=3)
    logits = model(images)
    assert logits.shape == (3, 2)
    with torch.no_grad():
        logit = network(model.inputs(images))[:, 0]
    torch.testing.assert_close(logits.softmax(1)[:, 1], logit.sigmoid())
    labels = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        F.cross_entropy(logits, labels),
        F.binary_cross_entropy_with_logits(logit, labels.float()),
    )


Named = namedtuple("Named", "scores features")


ENTRIES = {
    "dict": (lambda logits, features: {"scores": logits, "features": features}, "scores"),
    "ordered dict": (lambda logits, features: OrderedDict(a=features, logits=logits), "logits"),
    "named tuple": (lambda logits, features: Named(logits, features), 0),
    "tuple": (lambda logits, features: (features, logits), 1),
    "attribute": (lambda logits, f: SimpleNamespace(scores=logits), "scores"),
    "as of Hugging Face": (lambda logits, f: SimpleNamespace(loss=None, logits=logits), None),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_logits_may_be_an_entry_of_the_output(images, name):
    make, entry = ENTRIES[name]
    plain = cam.all_layers(small_network().eval(), images)
    explanation = cam.all_layers(Wrapper(make).eval(), images, score=entry)
    torch.testing.assert_close(explanation.logits, 2 * plain.logits)
    for one, other in zip(explanation.maps["GradCAM"], plain.maps["GradCAM"], strict=True):
        torch.testing.assert_close(one, 2 * other)


def test_a_function_of_the_output_is_explained(images):
    """The sum of one channel over a region, as of a segmentation, with its gradient by hand."""
    network = Wrapper(lambda logits, features: features).eval()

    def region(features):
        return features[:, 2, :2].sum((1, 2))

    explanation = cam.all_layers(network, images, score=region, layers=[-1])
    with torch.no_grad():
        features = network(images)
    torch.testing.assert_close(explanation.logits[:, 0], region(features))
    share = 2 * features.shape[-1] / features[0, 0].numel()  # mean of the gradient
    torch.testing.assert_close(explanation.maps["GradCAM"][0], share * features[:, 2])
    assert explanation.targets.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="wanted a score function without targets and softmax"):
        cam.all_layers(network, images, 1, score=region)
    with pytest.raises(ValueError, match=r"wanted a score \(3,\), .* got \(3, 7, 6\)"):
        cam.all_layers(network, images, score=lambda features: features[:, :, 0])


@pytest.mark.parametrize(
    ("make", "score", "message"),
    [
        (lambda logits, features: features, None, r"got \(3, 7, 6, 6\); score= names"),
        (lambda logits, features: {"a": logits}, None, "got a dict of a; score= names"),
        (lambda logits, features: {"a": logits}, "b", "got NoneType; score= names"),
        (lambda logits, features: (logits,), 3, "got NoneType; score= names"),
    ],
)
def test_an_output_without_logits_is_refused(images, make, score, message):
    with pytest.raises(
        ValueError, match=r"wanted a network that returns \(3, classes\), " + message
    ):
        cam.all_layers(Wrapper(make).eval(), images, score=score)


# --- sizes


def test_images_that_are_not_square_keep_their_shape():
    images = torch.rand(2, 3, 24, 96, generator=torch.Generator().manual_seed(0))
    explanation = cam.all_layers(small_network().eval(), images)
    assert [tuple(layer.shape) for layer in explanation.maps["GradCAM"]] == [
        (2, 24, 96),
        (2, 12, 48),
    ]
    wide = explanation.scaled(48, 192)["GradCAM"]
    assert [tuple(layer.shape) for layer in wide] == [(2, 48, 192)] * 2
    same = explanation.scaled(24, 96)["GradCAM"][0]
    torch.testing.assert_close(same, explanation.scaled()["GradCAM"][0])
    with pytest.raises(ValueError, match=r"wanted scaled\(height, width\) of images of 24 x 96"):
        explanation.scaled(60)


def test_images_may_have_any_number_of_channels(images):
    network = small_network().eval()
    network[0] = nn.Conv2d(5, 5, 3, padding=1)
    explanation = cam.all_layers(network, torch.rand(2, 5, 12, 12))
    assert explanation.maps["GradCAM"][0].shape == (2, 12, 12)


def test_one_network_is_explained_at_several_sizes(images):
    network = small_network().eval()
    ready = cam.prepare(network)
    for side in (12, 17, 12):
        batch = torch.rand(2, 3, side, side)
        maps = cam.all_layers(ready, batch).maps["GradCAM"]
        assert [layer.shape[1] for layer in maps] == [side, side // 2]


class ByCount(nn.Module):
    """Makes other calls for one image than for several."""

    def __init__(self):
        super().__init__()
        self.inner = small_network().eval()

    def forward(self, x):
        return self.inner(x * 1 if len(x) == 1 else x)


def test_calls_may_depend_on_the_number_of_images(images):
    network = ByCount().eval()
    explanation = cam.all_layers(network, images)
    for one, other in zip(
        explanation.maps["GradCAM"],
        cam.all_layers(network.inner, images).maps["GradCAM"],
        strict=True,
    ):
        torch.testing.assert_close(one, other)


# --- what changes between calls


def other_activation(network):
    network[2] = nn.Tanh()


def norm_in_training(network):
    network.train()
    network(torch.rand(8, 3, 12, 12))
    network.eval()


def removed(network):
    del network[5]
    network.insert(5, nn.GELU())


CHANGES = {
    "a weight in place": lambda n: n[4].weight.detach().mul_(-1),
    "a weight through data": lambda n: n[0].weight.data.mul_(-1),
    "data of another tensor": lambda n: setattr(n[0].weight, "data", -n[0].weight.data),
    "a weight by another": lambda n: setattr(n[8], "weight", nn.Parameter(-n[8].weight.detach())),
    "a module": other_activation,
    "a module for one of its place": removed,
    "statistics of batch norm": norm_in_training,
    "a statistic through data": lambda n: n[1].running_var.data.mul_(3),
    "an attribute": lambda n: setattr(n[4], "padding", (0, 0)),
    "an epsilon": lambda n: setattr(n[1], "eps", 0.5),
    "the precision": lambda n: n.double(),
    "the order of weights": lambda n: n[4].weight.data.copy_(n[4].weight.data.flip(0)),
    "a hook before": lambda n: n[4].register_forward_pre_hook(lambda m, i: (i[0] * 0.5,)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_network_is_seen_by_the_next_call(images, name):
    network = small_network().eval()
    before = cam.all_layers(network, images, 0)
    CHANGES[name](network)
    explanation = cam.all_layers(network, images.to(network[0].weight.dtype), 0)
    fresh = cam.all_layers(copy.deepcopy(network), images.to(network[0].weight.dtype), 0)
    assert not torch.equal(explanation.logits, before.logits)
    assert torch.equal(explanation.logits, fresh.logits)
    for one, other in zip(explanation.maps["GradCAM"], fresh.maps["GradCAM"], strict=True):
        assert torch.equal(one, other)


def test_an_unchanged_network_is_prepared_once(images, monkeypatch):
    calls = []
    original = prepared.wrap
    monkeypatch.setattr(prepared, "wrap", lambda *args: calls.append(1) or original(*args))
    network = small_network()
    for _ in range(3):
        cam.all_layers(network, images)
        network.train()  # explained in eval mode all the same
        network.zero_grad()
    assert len(calls) == 1
    cam.all_layers(network, images, layers=[0])
    assert len(calls) == 2
    cam.all_layers(network, images, hook_points="convs", layers=[0])
    assert len(calls) == 3
    names = ["0"]
    for name in ("0", "4"):
        names[0] = name  # one list, changed in between
        assert cam.all_layers(network, images, hook_points=names).layers == (name,)


def test_what_is_kept_goes_with_its_network(images):
    network = small_network()
    cam.all_layers(network, images)
    there = weakref.ref(network)
    watched = weakref.ref(prepared._latest[network][2])
    del network
    gc.collect()
    assert there() is None
    assert watched() is None

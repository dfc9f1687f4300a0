"""The library call: maps of any network at all layers, without DVC."""

import threading
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camdrift.explain import cam, methods
from camdrift.explain.methods import grad_cam, library
from camdrift.models import calls, checks, engine, folding, hook_points
from camdrift.settings import SettingsError
from conftest import ROOT, as_model, small_network

OWN = tuple(methods.by_name())


class Shared(nn.Module):
    """A layer whose output a norm takes, and which is called, or read, a second time."""

    def __init__(self, norm, kind, again):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.layer = {
            "linear": nn.Linear(6, 6), "conv": nn.Conv2d(6, 6, 3, padding=1),
            "conv1d": nn.Conv1d(6, 6, 3, padding=1), "conv3d": nn.Conv3d(6, 6, 3, padding=1),
        }[kind]  # fmt: skip
        self.norm = norm(6)
        self.head = nn.Linear(6, 4)
        self.again = again
        self.grown = {"linear": (), "conv": (1, 1), "conv1d": (1,), "conv3d": (1, 1, 1)}[kind]
        with torch.no_grad():
            for value in self.norm.buffers():
                if value.is_floating_point():
                    value.uniform_(0.2, 2)
            self.norm.weight.uniform_(0.2, 2)

    def forward(self, x):
        h = torch.relu(self.conv(x)).mean((2, 3))
        h = h.reshape(-1, 6, *self.grown)
        y = self.norm(self.layer(h))
        if self.again == "called":
            y = y + self.layer(2 * h)
        elif self.again == "read":
            y = y * self.layer.weight.sum()
        elif self.again == "its output":
            z = self.layer(h)
            y = self.norm(z) + z
        elif self.again == "the norm":
            y = y + self.norm(h)
        return self.head(y.reshape(-1, 6))


class Branched(nn.Module):
    """Two branches, a functional in-place ReLU, an in-place addition, dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(True))
        self.right = nn.Conv2d(4, 5, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = F.relu(self.first(x), inplace=True)
        y = self.left(x)
        y += torch.relu(self.right(x))
        return self.head(self.drop(F.relu(y).mean((2, 3))))


def state_of(network):
    """All that a caller could see of a network."""
    return (
        {name: (id(value), value.clone(), value.requires_grad, value.grad, value.stride())
         for name, value in network.state_dict(keep_vars=True).items()},
        [(id(module), module.training, getattr(module, "inplace", None), len(module._forward_hooks),
          len(module._backward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
         for module in network.modules()],
    )  # fmt: skip


def same_state(before, after):
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    for (i, value, *rest), (j, other, *others) in zip(
        before[0].values(), after[0].values(), strict=True
    ):
        assert i == j
        assert torch.equal(value, other)
        assert rest == others


def by_hooks(network, pixels, classes):
    """Tensors and gradients at the ReLUs of `small_network`, by hooks on a network not in place."""
    tensors = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_forward_hook(lambda _, __, out: tensors.append(out))
    logits = network.eval()(pixels)
    gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), tensors)
    return logits, list(zip([tensor.detach() for tensor in tensors], gradients, strict=True))


def test_maps_are_those_of_hooks_on_the_network_itself(pixels):
    classes = torch.arange(10) % 4
    explanation = cam.all_layers(small_network(), pixels, classes, methods=OWN)
    logits, pairs = by_hooks(small_network(), pixels, classes)
    assert explanation.layers == ("0", "4")
    torch.testing.assert_close(explanation.logits, logits.detach())
    assert torch.equal(explanation.targets, classes)
    for name in OWN:
        for layer, (a, g) in zip(explanation.maps[name], pairs, strict=True):
            expected = methods.by_name()[name](a, g)
            torch.testing.assert_close(layer, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", [small_network, Branched])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hooked", [True, False])
def test_the_network_is_left_as_it_was_also_after_an_error(pixels, make, training, hooked):
    network = make().train(training)
    next(network.parameters()).requires_grad_(False)
    forwards, backwards = [], []
    if hooked:
        for module in network.modules():
            module.register_forward_hook(lambda *_: forwards.append(1))
            module.register_full_backward_hook(lambda *_: backwards.append(1))
    before = state_of(network)
    random = torch.get_rng_state()
    cam.all_layers(network, pixels, methods=OWN)
    for wrong in ({"targets": 9}, {"methods": ["GradCAM", "NoCAM"]}, {"layers": ["none"]}):
        with pytest.raises((ValueError, SettingsError)):
            cam.all_layers(network, pixels, **wrong)
    with pytest.raises(RuntimeError):
        cam.all_layers(network, pixels[:, :2])
    same_state(before, state_of(network))
    assert torch.equal(random, torch.get_rng_state())
    assert not backwards
    forwards.clear()  # they are called where logits are compared, once
    cam.all_layers(network, pixels)
    if hooked:
        assert len(forwards) == len(list(network.modules()))
    cam.all_layers(network, pixels)
    assert len(forwards) == (len(list(network.modules())) if hooked else 0)


KINDS = {"linear": nn.BatchNorm1d, "conv1d": nn.BatchNorm1d, "conv": nn.BatchNorm2d,
         "conv3d": nn.BatchNorm3d}  # fmt: skip


@pytest.mark.parametrize("again", ["once", "called", "read", "its output", "the norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_is_folded_only_where_nothing_else_sees_its_layer(pixels, kind, again):
    network = Shared(KINDS[kind], kind, again).eval()
    explanation = cam.all_layers(network, pixels)
    with torch.no_grad():
        torch.testing.assert_close(explanation.logits, network(pixels), rtol=1e-5, atol=1e-5)
    folded = kind == "conv" and again == "once"
    watched, _ = cam.prepare(network).watch(pixels)
    norms = sum(type(module) is nn.BatchNorm2d for module in watched.network.modules())
    assert norms == (0 if folded else kind == "conv")


def test_a_norm_over_another_dimension_is_not_folded(pixels):
    """BatchNorm1d normalises dimension 1 of (n, 4, 4), a Linear's channels are dimension 2."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.layer = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
            self.norm = nn.BatchNorm1d(4)
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.2, 2)

        def forward(self, x):
            h = torch.relu(self.conv(x)).flatten(2)[..., :4]
            return self.norm(self.layer(h)).mean(2)

    network = Tokens().eval()
    with torch.no_grad():
        torch.testing.assert_close(cam.all_layers(network, pixels).logits, network(pixels))


def test_hooks_that_make_a_weight_keep_their_conv_unfolded(pixels):
    network = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip
    network[1].running_var.fill_(3.0)
    with torch.no_grad():
        torch.testing.assert_close(cam.all_layers(network, pixels).logits, network(pixels))


def test_another_network_than_the_given_one_is_refused(pixels, monkeypatch):
    """Whatever the preparation gets wrong: here it folds a norm into a conv called twice."""
    network = Shared(nn.BatchNorm2d, "conv", "called").eval()
    fold = folding.fold_norms

    def blindly(network, calls):
        monkeypatch.setattr(folding, "Counter", lambda _: defaultdict(lambda: 1))
        fold(network, calls)

    monkeypatch.setattr(folding, "fold_norms", blindly)
    ready = cam.prepare(network)
    for candidate in (network, ready):
        with pytest.raises(checks.UnsoundError, match="prepared for its maps"):
            cam.all_layers(candidate, pixels)
    with pytest.raises(checks.UnsoundError, match="prepared for its maps"):
        as_model(network)


def test_logits_are_compared_once_and_again_when_weights_have_changed(pixels, monkeypatch):
    compared = []
    refuse = checks.refuse_other_logits
    monkeypatch.setattr(
        checks, "refuse_other_logits", lambda *args: (compared.append(1), refuse(*args))
    )
    network = small_network()
    for _ in range(2):
        cam.all_layers(network, pixels)
    assert len(compared) == 1
    with torch.no_grad():
        network[0].weight.mul_(2)
    cam.all_layers(network, pixels)
    assert len(compared) == 2
    ready = cam.prepare(network)
    for _ in range(2):
        cam.all_layers(ready, pixels)
    assert len(compared) == 3
    assert not ready.untried


def test_a_forward_that_writes_into_a_buffer_leaves_the_network_alone(pixels):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_network()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return self.inner(x)

    network = Counting().eval()
    cam.all_layers(network, pixels)
    assert network.calls == 0


def test_no_gradient_of_weights_or_pixels_is_kept(pixels):
    network, pixels = small_network(), pixels.clone().requires_grad_()
    cam.all_layers(network, pixels)
    assert pixels.grad is None
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("method", OWN)
def test_one_backward_serves_all_methods_and_equal_classes(pixels, monkeypatch, method):
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    alone = cam.all_layers(small_network(), pixels[:4], methods=[method])
    assert len(calls) == 1
    every = cam.all_layers(small_network(), pixels[:4], methods=OWN)
    assert len(calls) == 2
    for one, other in zip(alone.maps[method], every.maps[method], strict=True):
        assert torch.equal(one, other)
    own = alone.targets
    twice = cam.all_layers(small_network(), pixels[:4], torch.stack([own, own], 1))
    assert len(calls) == 3
    assert torch.equal(twice.maps["GradCAM"][0][:, 0], twice.maps["GradCAM"][0][:, 1])
    second = torch.stack([own, (own + 1) % 4], 1)
    both = cam.all_layers(small_network(), pixels[:4], second, methods=[method])
    assert len(calls) == 5
    other = cam.all_layers(small_network(), pixels[:4], second[:, 1], methods=[method])
    for pair, first, further in zip(
        both.maps[method], alone.maps[method], other.maps[method], strict=True
    ):
        assert torch.equal(pair[:, 0], first)
        assert torch.equal(pair[:, 1], further)


def test_with_a_micro_batch_maps_do_not_depend_on_the_images_beside(pixels):
    explanations = [
        cam.all_layers(Branched(), part, micro_batch=4, methods=OWN)
        for part in (pixels, pixels[:3], pixels[2:])
    ]
    for name in OWN:
        for whole, few, rest in zip(*(one.maps[name] for one in explanations), strict=True):
            assert torch.equal(whole[:3], few)
            assert torch.equal(whole[2:], rest)


def test_the_number_of_images_at_once_follows_the_memory(pixels, monkeypatch):
    sizes = []
    call = cam.Prepared.__call__
    monkeypatch.setattr(
        cam.Prepared, "__call__", lambda self, x: sizes.append(len(x)) or call(self, x)
    )
    many = pixels.repeat(5, 1, 1, 1)
    wide = cam.all_layers(small_network(), many)
    assert sizes == [8, 42]
    sizes.clear()
    held = cam.HELD * 4 * (5 * 12 * 12 + 7 * 6 * 6)
    narrow = cam.all_layers(small_network(), many, memory=16.5 * held)
    assert sizes == [1, 16, 16, 16, 1]
    sizes.clear()
    cam.all_layers(small_network(), pixels, memory=1)
    assert sizes == [1] * 10
    for one, other in zip(wide.maps["GradCAM"], narrow.maps["GradCAM"], strict=True):
        torch.testing.assert_close(one, other)


def test_layers_that_are_not_asked_for_are_not_gone_back_to(pixels):
    network = small_network()
    whole = cam.all_layers(network, pixels)
    for layers in (["4"], [-1], [1]):
        explanation = cam.all_layers(network, pixels, layers=layers)
        assert explanation.layers == ("4",)
        torch.testing.assert_close(explanation.maps["GradCAM"][0], whole.maps["GradCAM"][1])
    _, (tensor,) = cam.prepare(network, layers=[-1])(pixels)
    assert tensor.is_leaf
    _, tensors = cam.prepare(network)(pixels)
    assert [t.is_leaf for t in tensors] == [True, False]


def test_hook_points_on_parallel_branches_are_leaves_each():
    images = torch.rand(2, 3, 8, 8)
    watched = engine.watch(Branched(), images)
    points = hook_points.conv_points(watched.calls)
    assert [point.name for point in points] == ["first", "left.0", "right"]
    _, tensors = watched(images, points[1:], leaves=True)
    assert [tensor.is_leaf for tensor in tensors] == [True, True]


class Apart(nn.Module):
    """What is hard to hook: a size read off a tensor, a detached branch, a conv without effect."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(5))
        self.gamma = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        a = F.relu_(self.convs[0](x))
        small = F.avg_pool2d(x, 2)[:, :1].expand(-1, 4, -1, -1)
        b = torch.relu(self.convs[1](F.interpolate(small, size=a.shape[-2:])))
        c = self.convs[2](a.detach()).sigmoid_()
        d = torch.relu(self.convs[4](a)).detach()
        self.convs[3](a)
        return self.head(self.gamma * (a + b + c + d).mean((2, 3)))


def test_gradients_reach_every_hook_point_that_they_can():
    network, images = Apart(), torch.rand(3, 3, 8, 8)
    explanation = cam.all_layers(network, images, 0)
    assert explanation.layers == ("convs.0", "convs.1", "convs.2", "convs.4")
    assert [bool(layer.any()) for layer in explanation.maps["GradCAM"]][-1:] == [False]
    torch.testing.assert_close(explanation.logits, network(images).detach())
    model = as_model(Apart(), size=8, micro_batch=3)
    assert list(hook_points.left_out(Apart(), model.watched.calls)) == ["convs.3"]
    *_, tensors = model.probes(images)
    assert all(tensor.requires_grad for tensor in tensors)


class InPlace(nn.Module):
    """Every way to write into a tensor, and uses of it afterwards by its old name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(4))
        self.rectify = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        x = self.convs[0](x)
        self.rectify(x)  # what it returns is not used
        y = self.convs[1](x)
        F.relu_(y)
        y *= 2
        z = self.convs[2](y).clamp_(0, 1)
        torch.relu_(z)
        z.add_(y)
        w = self.convs[3](z)
        out = F.relu(w, inplace=True)
        out += w  # rectified, too
        twin = out.mul_(0.5)  # another name of one tensor
        out.add_(0.25)
        w.sub_(0.125)
        return self.head((out + 2 * twin).mean((2, 3)))


def test_what_is_done_in_place_is_done_out_of_place_and_comes_to_the_same():
    network, images = InPlace(), torch.rand(3, 3, 8, 8)
    explanation = cam.all_layers(network, images, 0)
    torch.testing.assert_close(explanation.logits, network(images).detach())
    assert explanation.layers == tuple(f"convs.{i}" for i in range(4))
    assert [point.rectified for point in cam.prepare(network).watch(images)[1]] == [
        True, True, False, True,  # a clamp is no activation
    ]  # fmt: skip
    assert all(layer.any() for layer in explanation.maps["GradCAM"])


class Writing(nn.Module):
    """Writes a result over its argument, by `out=` and by an index."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        torch.mul(x, 2, out=x)
        y = torch.relu(x)
        x[:, 1] = 0
        return (x + y).mean((2, 3))


def test_a_forward_may_write_over_a_tensor(pixels):
    network = Writing()
    with torch.no_grad():
        logits = network(pixels)
        expected = network.conv(pixels)
    watched, points = cam.prepare(network).watch(pixels)
    ours, (tensor,) = watched(pixels, points, leaves=True)
    torch.testing.assert_close(ours, logits)
    torch.testing.assert_close(tensor.detach(), expected)
    # By hand: a positive value counts twice, a negative one once, each doubled; in channel 1, which
    # is zeroed after the ReLU, positive ones count once and negative ones not at all.
    for channel, least in ((2, 1), (1, 0)):
        (maps,) = cam.all_layers(network, pixels, channel).maps["GradCAM"]
        values = expected[:, channel]
        mean = 2 * ((values > 0) + least).mean((1, 2), dtype=torch.float32) / values[0].numel()
        torch.testing.assert_close(maps, torch.relu(mean[:, None, None] * values))


def test_weights_that_a_first_call_computes_are_explained(pixels):
    """The weight_norm of torch.nn.utils leaves a tensor with a history on its module."""
    network = small_network().eval()
    network[4] = nn.utils.weight_norm(network[4])
    logits = network(pixels)
    explanation = cam.all_layers(network, pixels)
    torch.testing.assert_close(explanation.logits, logits.detach())
    assert explanation.layers == ("0", "4")


def test_what_cannot_be_copied_is_shared(pixels):
    network = small_network().eval()
    network._guard, network[0].files = threading.Lock(), [threading.Lock()]
    with torch.no_grad():
        logits = network(pixels)
    torch.testing.assert_close(cam.all_layers(network, pixels).logits, logits)


def test_maps_of_some_branches_are_those_among_all():
    whole = cam.all_layers(Branched(), torch.ones(2, 3, 8, 8) / 2)
    part = cam.all_layers(Branched(), torch.ones(2, 3, 8, 8) / 2, layers=["left.0", "right"])
    for one, other in zip(whole.maps["GradCAM"][1:], part.maps["GradCAM"], strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_of_the_study_and_a_prepared_network_are_explained_alike(pixels):
    model = as_model(small_network(), micro_batch=4)
    shown = torch.rand(3, 3, 20, 24)
    explanation = cam.all_layers(model, shown)  # resized and normalised inside
    again = cam.all_layers(cam.prepare(model), shown)
    plain = cam.all_layers(small_network(), model.inputs(shown))
    for one, other, third in zip(
        *(f.maps["GradCAM"] for f in (explanation, again, plain)), strict=True
    ):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, third, rtol=1e-4, atol=1e-7)
    with pytest.raises(
        ValueError, match="when the network is prepared, got them with a prepared one"
    ):
        cam.all_layers(cam.prepare(model), shown, layers=[0])


def test_what_is_prepared_holds_for_the_weights_as_they_were(pixels):
    network = small_network()
    ready = cam.prepare(network)
    before = cam.all_layers(ready, pixels).logits
    with torch.no_grad():
        for value in network.state_dict().values():
            value.mul_(2)
    assert torch.equal(cam.all_layers(ready, pixels).logits, before)
    network.load_state_dict({n: v + 1 for n, v in network.state_dict().items()})
    assert torch.equal(cam.all_layers(ready, pixels).logits, before)
    assert not torch.equal(cam.all_layers(network, pixels).logits, before)


def test_softmax_explains_the_probability(pixels):
    logits, ((a, _), _) = by_hooks(small_network(), pixels, torch.zeros(10, dtype=torch.long))
    explanation = cam.all_layers(small_network(), pixels, 0, softmax=True)
    network = nn.Sequential(*list(small_network()), nn.Softmax(1))
    _, pairs = by_hooks(network, pixels, torch.zeros(10, dtype=torch.long))
    for layer, pair in zip(explanation.maps["GradCAM"], pairs, strict=True):
        torch.testing.assert_close(layer, grad_cam.maps(*pair), rtol=1e-4, atol=1e-8)


def test_channels_last_and_autocast(pixels):
    network = small_network()
    plain = cam.all_layers(network, pixels, 1, methods=OWN)
    laid = network.to(memory_format=torch.channels_last)
    explanation = cam.all_layers(laid, pixels.to(memory_format=torch.channels_last), 1, methods=OWN)
    with torch.autocast("cpu", torch.bfloat16):
        half = cam.all_layers(network, pixels, 1, methods=OWN)
    double = cam.all_layers(small_network().double(), pixels.double(), 1, methods=OWN)
    for name in OWN:
        for one, other, coarse, fine in zip(
            *(each.maps[name] for each in (plain, explanation, half, double)), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
            assert coarse.dtype == torch.float32
            assert fine.dtype == (torch.float32 if name in library.FROM_ARRAYS else torch.float64)
            torch.testing.assert_close(one.double(), fine.double(), rtol=1e-3, atol=1e-7)
            if name == "GradCAM":
                cosine = F.cosine_similarity(one.flatten(1), coarse.flatten(1))
                assert cosine[one.flatten(1).any(1)].min() > 0.99


def test_maps_are_scaled_and_resized(pixels):
    explanation = cam.all_layers(small_network(), pixels, torch.tensor([[0, 1]] * 10))
    assert [tuple(m.shape) for m in explanation.maps["GradCAM"]] == [(10, 2, 12, 12), (10, 2, 6, 6)]
    scaled = explanation.scaled()["GradCAM"]
    tops = torch.cat([layer.flatten(2).amax(2).flatten() for layer in scaled])
    assert set(tops.unique().tolist()) <= {0.0, 1.0}
    wide = explanation.scaled(24)["GradCAM"]
    assert all(layer.shape == (10, 2, 24, 24) for layer in wide)
    expected = F.interpolate(scaled[1], (24, 24), mode="bilinear")
    torch.testing.assert_close(wide[1], expected)


def test_calls_of_one_prepared_network_from_several_threads_do_not_meet(pixels):
    network, result = cam.prepare(small_network()), {}
    expected = [cam.all_layers(network, pixels, i).maps["GradCAM"][0] for i in range(4)]

    def explain(i):
        result[i] = cam.all_layers(network, pixels, i).maps["GradCAM"][0]

    threads = [threading.Thread(target=explain, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        torch.testing.assert_close(result[i], expected[i])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": 4}, "wanted targets from 0 to 3, got 4"),
        ({"targets": -1}, "wanted targets from 0 to 3, got -1"),
        ({"targets": torch.zeros(3, dtype=torch.long)}, "for 10 images, got torch.int64 (3,)"),
        ({"targets": torch.zeros(10)}, "whole numbers for 10 images, got torch.float32 (10,)"),
        ({"layers": ["9"]}, "no layer '9'; there are, 0 to 1: 0, 4"),
        ({"layers": []}, "wanted a layer at least, got none; there are, 0 to 1: 0, 4"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_wanted(pixels, arguments, message):
    with pytest.raises(ValueError) as fault:
        cam.all_layers(small_network(), pixels, **arguments)
    assert message in str(fault.value)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(pixels, mode):
    network = small_network()
    expected = cam.all_layers(network, pixels).maps["GradCAM"]
    with mode():
        maps = cam.all_layers(network, pixels.clone()).maps["GradCAM"]
        assert not torch.is_grad_enabled()
    for one, other in zip(maps, expected, strict=True):
        assert torch.equal(one, other)


def test_a_network_that_returns_no_logits_is_refused(pixels):
    maps = nn.Sequential(*list(small_network())[:6])
    with pytest.raises(
        ValueError, match=r"wanted a network that returns \(8, classes\), got \(8, 7"
    ):
        cam.all_layers(maps, pixels)


def test_no_images_and_no_conv_layers_are_refused(pixels):
    with pytest.raises(ValueError, match="wanted pixels"):
        cam.all_layers(small_network(), pixels[:0])
    with pytest.raises(calls.UnwatchableError, match="no two-dimensional conv layer"):
        cam.all_layers(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), pixels)


def code_of(page: str) -> str:
    """The last Python that a page shows."""
    return (ROOT / page).read_text().rpartition("```python\n")[2].partition("```")[0]


def test_the_readmes_examples_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace: dict = {}
    exec(code_of("README.md"), namespace)
    assert len(namespace["explained"].maps["NoiseCAM"]) == len(namespace["explained"].layers) == 17
    assert namespace["explained"].scaled(64)["LayerCAM"][-1].shape == (8, 64, 64)
    namespace["images"] = namespace["images"][:2]
    exec(code_of("lib/README.md"), namespace)
    assert len(namespace["features"]) == 4
    assert len(namespace["detector"].predict(namespace["features"])) == 4


def test_the_example_of_other_networks_runs():
    examples = (ROOT / "lib/README.md").read_text().split("```python\n")
    (example,) = [part.partition("```")[0] for part in examples if "TwoHeads" in part]
    namespace: dict = {}
    exec(example, namespace)
    assert [tuple(layer.shape) for layer in namespace["blocks"].maps["GradCAM"]] == [(2, 8, 8)] * 12
    assert namespace["parts"].logits.shape == (2, 1)
    assert namespace["colours"].logits.shape == (2, 4)

import copy
import hashlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from camdrift.explain import lrp
from camdrift.models import (
    architectures,
    calls,
    coverage,
    engine,
    fitting,
    hook_points,
    loading,
    selection,
    training,
)
from camdrift.models.logits import class_logits, top_logit
from camdrift.models.model import padded
from camdrift.settings import ModelSettings, SettingsError, Training
from conftest import as_model, small_network


def built(architecture: str, **changed) -> nn.Module:
    arguments = {"width": 0.25, "head": "torchvision", "classes": 6, "size": 64,
                 "initialised": True}  # fmt: skip
    return architectures.build(architecture=architecture, **arguments | changed)


def watched(network: nn.Module, size: int = 64) -> engine.Watched:
    return engine.watch(network, torch.ones(1, 3, size, size))


def hooked(network: nn.Module, size: int = 64) -> dict[str, hook_points.HookPoint]:
    points = hook_points.conv_points(watched(network, size).calls)
    return {point.name: point for point in points}


def test_import_works_beside_a_torch_without_cuda():
    # An extension that cannot be loaded, whatever torch is installed here.
    code = """
import torch
def refuse(path): raise OSError("libc10_cuda.so: cannot open shared object file")
torch.ops.load_library = refuse
from camdrift.pipeline.vision import torchvision
torchvision.models.get_model("resnet18")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    subprocess.run([sys.executable, "-c", "import camdrift.pipeline.vision"], check=True)


def test_torchvision_loads_the_compiler_only_when_it_calls_it():
    code = """
import sys, torch
from camdrift.pipeline.vision import torchvision
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
from torchvision.ops import roi_align
assert roi_align.__globals__["is_compile_supported"]("cpu") in (True, False)
assert "torch._dynamo.utils" in sys.modules
import torch._dynamo
assert callable(torch._dynamo.optimize)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_slimming_refuses_what_is_more_than_the_plain_layer():
    class Fused(nn.BatchNorm2d):
        def forward(self, x):
            return torch.relu(super().forward(x))

    network = nn.Sequential(nn.Conv2d(3, 8, 3), Fused(8))
    with pytest.raises(ValueError, match="Fused is more than a BatchNorm2d"):
        architectures._slim(network, 0.5, 4)


def test_training_without_validation_images_keeps_the_last_epoch():
    images, labels = torch.rand(16, 3, 12, 12), torch.arange(16) % 2
    network = small_network(classes=2)
    states = []
    training.train(
        network, (images, labels), (images[:0], labels[:0]), mean=[0.5] * 3, std=[0.25] * 3,
        epochs=3, batch=8, learning_rate=0.01, weight_decay=0.0, shift=0, flip=False, seed=3,
        size=12, layers="all",
        progress=lambda epochs: (states.append(copied(network)) or epoch for epoch in epochs),
    )  # fmt: skip
    assert not torch.equal(states[-1]["0.weight"], network.state_dict()["0.weight"])


def copied(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_maps_of_vgg_are_thirteen_labelled_by_block():
    points = hooked(built("vgg16_bn", head="pooled"))
    convs = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    expected = [f"{block}-{conv + 1}" for block, count in convs.items() for conv in range(count)]
    assert [point.label for point in points.values()] == expected
    assert all(point.rectified for point in points.values())


def test_vgg16_has_the_14888_neurons_of_the_published_code():
    network = built("vgg16", width=1, classes=1000, size=32, initialised=False)
    network.to_empty(device="cpu")
    model = as_model(network, size=32, micro_batch=1)
    assert len(coverage.spatial(model)) == 14_888


def test_convs_that_share_an_activation_share_a_map():
    points = hooked(built("resnet18"))
    assert "layer2.0.conv2+layer2.0.downsample.0" in points
    assert "layer2.0.conv1" in points
    assert all(point.rectified for point in points.values())


class Odd(nn.Module):
    """A conv without activation, a functional in-place one, an in-place addition, a shared one."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 3)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 1)
        self.smooth = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.avg_pool2d(self.plain(x), 2)
        y = F.relu(self.first(x), inplace=True)
        y += self.second(x)
        return self.head(self.smooth(torch.relu(y)).mean((2, 3)))


def test_unusual_networks_are_hooked_where_the_definition_says():
    points = hooked(Odd(), 9)
    assert list(points) == ["plain", "first", "second", "smooth.0"]
    assert not points["plain"].rectified
    network = Odd().eval()
    expected = F.relu(network.first(F.avg_pool2d(network.plain(torch.ones(1, 3, 9, 9)), 2)))
    ready = watched(network, 9)
    _, tensors = ready(torch.ones(1, 3, 9, 9), hook_points.conv_points(ready.calls))
    torch.testing.assert_close(tensors[1], expected)  # not overwritten by the addition


def test_values_are_padded_with_copies_of_the_last():
    values = torch.arange(6.0).reshape(3, 2)
    assert padded(values, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert padded(torch.tensor([7, 8]), 2).tolist() == [7, 8]


def test_the_top_logit_passes_its_gradient_to_the_top_class_alone():
    logits = torch.tensor([[0.5, 2.0, 1.0], [3.0, -1.0, 3.0]], requires_grad=True)
    top = top_logit(logits)
    assert top.tolist() == [2.0, 3.0]
    (gradient,) = torch.autograd.grad(top.sum(), logits)
    assert gradient.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_watched_network_is_post_activation_and_leaves_logits_alone(model, pixels):
    batch = pixels[:4]
    logits, tensors = model.activations(batch)
    torch.testing.assert_close(logits, model(batch), rtol=0, atol=0)
    assert [len(tensors), float(min(t.min() for t in tensors))] == [2, 0.0]


def test_folding_batch_norm_changes_no_logit_that_matters():
    network = built("resnet18").eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    batch = torch.rand(2, 3, 64, 64)
    expected = network(batch)
    folded = watched(network).network
    assert not any(type(module) is nn.BatchNorm2d for module in folded.modules())
    torch.testing.assert_close(folded(batch), expected, rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    """One conv called twice, a norm of its own after each call."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = torch.relu(self.first(self.conv(x)))
        return self.head(torch.relu(self.second(self.conv(x))).mean((2, 3)))


def test_a_conv_called_twice_has_two_maps_and_keeps_its_norms():
    network = Twice().eval()
    nn.init.uniform_(network.first.running_mean)
    batch = torch.rand(2, 3, 8, 8)
    expected = network(batch)
    ready = watched(network, 8)
    torch.testing.assert_close(ready.network(batch), expected)
    points = hook_points.conv_points(ready.calls)
    assert [point.name for point in points] == ["conv", "conv:2"]
    logits, tensors = ready(batch, points)
    torch.testing.assert_close(logits, expected)
    first = torch.relu(network.first(network.conv(batch)))
    torch.testing.assert_close(tensors[0], first)
    torch.testing.assert_close(tensors[1], torch.relu(network.second(network.conv(first))))


class Branching(nn.Module):
    """One of two paths, by the inputs: one conv more where their sum is negative."""

    def __init__(self):
        super().__init__()
        self.conv, self.more = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        if x.sum() < 0:
            y = torch.relu(self.more(y))
        return self.head(y.mean((2, 3)))


def test_a_forward_may_branch_as_long_as_it_makes_the_same_calls():
    network, batch = Branching().eval(), torch.rand(2, 3, 8, 8)
    ready = watched(network, 8)
    points = hook_points.conv_points(ready.calls)
    assert [point.name for point in points] == ["conv"]
    assert list(hook_points.left_out(network, ready.calls)) == ["more"]
    logits, _ = ready(batch, points)
    torch.testing.assert_close(logits, network(batch))
    with pytest.raises(SettingsError, match="makes other calls than when it was"):
        ready(-batch, points)


def test_a_network_without_hook_points_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    for kind, sought in ((None, "two-dimensional conv"), ("blocks", "block that mixes tokens")):
        with pytest.raises(calls.UnwatchableError, match=f"the network has no {sought}"):
            selection.select(watched(network, 4).recording, kind)


def test_a_scripted_or_traced_network_is_refused_and_told_the_way_out():
    network = small_network().eval()
    for closed in (torch.jit.script(network), torch.jit.trace(network, torch.ones(1, 3, 12, 12))):
        with pytest.raises(calls.UnwatchableError, match="wanted the network that it was"):
            watched(closed, 12)


def test_a_wrapped_network_is_the_network_inside():
    network, batch = small_network().eval(), torch.rand(2, 3, 12, 12)
    for wrapper in (nn.DataParallel(network), torch.compile(network)):
        ready = watched(wrapper, 12)
        logits, tensors = ready(batch, hook_points.conv_points(ready.calls))
        torch.testing.assert_close(logits, network(batch))
        assert [point.name for point in hook_points.conv_points(ready.calls)] == ["0", "4"]
        assert len(tensors) == 2


def test_results_do_not_depend_on_the_batch(model, pixels):
    whole = model(pixels)
    alone = torch.cat([model(image[None]) for image in pixels])
    turned = model(pixels.flip(0)).flip(0)
    assert torch.equal(whole, alone)
    assert torch.equal(whole, turned)


def test_a_model_normalises_inside_and_resizes_other_pixels():
    network = small_network().eval()
    model = as_model(network, micro_batch=2)
    batch = torch.rand(2, 3, 12, 12)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    torch.testing.assert_close(model(batch), network((batch - mean) / std))
    assert model(torch.rand(2, 3, 30, 30)).shape == (2, 4)


class Remembering(nn.Module):
    """A table that the first call computes and later calls read."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(1, 2, 4).reshape(1, 4, 1, 1)
        return self.head(torch.relu(self.conv(x) * self.table).mean((2, 3)))


def test_a_network_may_keep_what_its_first_call_computes():
    network, batch = Remembering().eval(), torch.rand(2, 3, 8, 8)
    model = as_model(network, size=8, micro_batch=2)
    logits, tensors = model.probes(batch)
    assert len(tensors) == 1
    torch.testing.assert_close(logits, model(batch))


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "inception_v3"])
def test_slimming_keeps_the_topology(name):
    size = 75 if name == "inception_v3" else 64
    slim, full = built(name, size=size), built(name, width=1, size=size, initialised=False)
    assert [type(m) for m in slim.modules()] == [type(m) for m in full.modules()]
    convs = [m for m in slim.modules() if isinstance(m, nn.Conv2d)]
    assert convs[0].in_channels == 3
    widths = [
        (m.out_channels, n.out_channels)
        for m, n in zip(convs, (m for m in full.modules() if isinstance(m, nn.Conv2d)), strict=True)
    ]
    assert all(slim == round(full / 4) for slim, full in widths)


@pytest.mark.parametrize(
    ("architecture", "changed", "message"),
    [
        ("vgg99", {}, "no architecture 'vgg99'"),
        ("densenet121", {"width": 0.3}, "densenet121 does not run at width 0.3"),
        ("vit_b_16", {}, "vit_b_16"),
        ("nowhere:network", {}, "cannot import 'nowhere:network'"),
        ("swin_t", {"head": "pooled"}, "head: pooled|swin_t"),
        ("resnext50_32x4d", {"width": 0.3}, "resnext50_32x4d does not run at width 0.3"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(architecture, changed, message):
    with pytest.raises(SettingsError, match=message):
        watched(built(architecture, **changed).eval())


VIT = {"img_size": 64, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3}


def test_a_network_is_built_with_further_arguments():
    network = built("timm:vit_tiny_patch16_224", width=1.0, arguments=VIT)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 6)
    points = selection.select(watched(network).recording)
    assert [point.name for point in points] == ["blocks.0", "blocks.1"]
    with pytest.raises(architectures.RefusedError, match="does not take the arguments .*depths"):
        built("timm:vit_tiny_patch16_224", width=1.0, arguments={"depths": 2})


def test_a_stored_network_is_built_with_its_arguments_again():
    settings = model_settings(
        architecture="timm:vit_tiny_patch16_224", arguments=VIT, training=brief(), size=64
    )
    trained = obtained(settings)
    assert trained.facts["arguments"] == VIT
    assert [layer["name"] for layer in trained.facts["layers"]] == ["blocks.0", "blocks.1"]
    model = loading.ready(trained, micro_batch=2)
    logits, tensors = model.probes(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 5)
    assert [tuple(tensor.shape) for tensor in tensors] == [(2, 24, 8, 8)] * 2


def binary(classes):
    """A network of a single logit."""
    assert classes == 2
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )


def test_a_network_of_one_logit_is_a_model_of_two_classes():
    settings = model_settings(architecture=f"{__name__}:binary", classes=2, training=brief())
    pixels = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = (pixels[:, 0].mean((1, 2)) > pixels[:, 1].mean((1, 2))).long()
    trained = loading.obtain(
        settings, size=16, labels=labels.numpy(), split=lambda _: (pixels, labels), seed=1,
        name="m",
    )  # fmt: skip
    model = loading.ready(trained, micro_batch=4)
    logits = model(pixels)
    assert logits.shape == (12, 2)
    torch.testing.assert_close(logits.sum(1), torch.zeros(12))


def model_settings(**changed) -> ModelSettings:
    values = {
        "set": "s", "architecture": "squeezenet1_1", "width": 1.0, "head": "torchvision",
        "classes": 5, "mean": [0.5] * 3, "std": [0.25] * 3, "weights": None, "sha256": None,
        "training": None, "size": None, "new_head": False,
    }  # fmt: skip
    return ModelSettings.model_validate(values | changed)


def obtained(options: ModelSettings):
    images = (torch.zeros(2, 3, 64, 64), torch.tensor([0, 1]))
    return loading.obtain(options, size=64, labels=[0, 1], split=lambda _: images, seed=1, name="m")


def test_local_weights_are_loaded_as_they_are(tmp_path):
    network = built("squeezenet1_1", width=1, classes=5)
    for suffix, save in ((".safetensors", save_file), (".pt", torch.save)):
        path = tmp_path / f"w{suffix}"
        save({key: value.half() for key, value in network.state_dict().items()}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        model = obtained(model_settings(weights=str(path), sha256=digest))
        for name, value in network.state_dict().items():
            assert torch.equal(model.state[name], value.half().float())
        with pytest.raises(architectures.RefusedError, match=f"has sha256 {digest}"):
            obtained(model_settings(weights=str(path), sha256="0" * 64))


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"network": small_network()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(architectures.RefusedError, match="could run any code"):
        obtained(model_settings(weights=str(path), sha256=digest))


def test_weights_of_other_classes_are_refused_by_what_to_change(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(built("squeezenet1_1", width=1, classes=7).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(architectures.RefusedError, match="wanted `models.m.classes: 7`$"):
        obtained(model_settings(weights=str(path), sha256=digest))


@pytest.mark.parametrize("weights", ["IMAGENET", "nowhere.safetensors"])
def test_weights_that_are_not_there_are_named(weights):
    with pytest.raises(architectures.RefusedError, match=weights):
        obtained(model_settings(weights=weights, sha256="0" * 64))


def test_training_keeps_the_best_epoch_and_is_seeded():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 12, 12, generator=generator)
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    states = []
    for _ in range(2):
        network = small_network(classes=2)
        curve = training.train(
            network, (images, labels), (images, labels), mean=[0.5] * 3, std=[0.25] * 3, epochs=4,
            batch=8, learning_rate=0.01, weight_decay=0.0, shift=1, flip=True, seed=3, size=12,
            layers="all",
        )  # fmt: skip
        reached = training.accuracy(
            network, images, labels, mean=[0.5] * 3, std=[0.25] * 3, size=12
        )
        assert reached == max(row["validation_accuracy"] for row in curve)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_loss_that_is_not_finite_says_what_to_change():
    images, labels = torch.full((8, 3, 12, 12), float("nan")), torch.zeros(8, dtype=torch.long)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        training.train(
            small_network(), (images, labels), (images, labels), mean=[0.5] * 3, std=[0.25] * 3,
            epochs=1, batch=8, learning_rate=0.01, weight_decay=0.0, shift=0, flip=False, seed=3,
            size=12, layers="all",
        )  # fmt: skip


def brief(**changed) -> dict:
    values = {"epochs": 1, "batch": 2, "learning_rate": 0.01, "weight_decay": 0.0, "shift": 0,
              "flip": False, "layers": "all"}  # fmt: skip
    return values | changed


@pytest.fixture
def foreign(tmp_path):
    """Weights of another number of classes, and what names them."""
    network = built("resnet18", classes=7)
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return network.state_dict(), {"architecture": "resnet18", "width": 0.25, "weights": str(path),
                                  "sha256": digest, "new_head": True}  # fmt: skip


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.5), (0.9, 0.0)])
def test_sgd_is_that_of_a_slow_twin(momentum, decay):
    """A slow twin: its steps in a loop, the learning rate over 1 + decay * steps so far."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    twin, pixels = copy.deepcopy(network), torch.rand(8, 3, 6, 6)
    data = pixels, torch.arange(8) % 2
    training.train(
        network, data, data, mean=[0.5] * 3, std=[0.25] * 3, size=6, layers="all", epochs=2,
        batch=4, learning_rate=0.1, weight_decay=0.0, shift=0, flip=False, seed=3,
        optimiser="sgd", momentum=momentum, decay=decay,
    )  # fmt: skip
    generator, step = torch.Generator().manual_seed(3), 0
    velocities = [torch.zeros_like(value) for value in twin.parameters()]
    states = []
    for _ in range(2):
        order = torch.randperm(8, generator=generator)
        for rows in order.split(4):
            logits = twin((pixels[rows] - 0.5) / 0.25)
            chances = logits.exp() / logits.exp().sum(1, keepdim=True)
            loss = -chances[torch.arange(4), data[1][rows]].log().mean()
            slopes = torch.autograd.grad(loss, list(twin.parameters()))
            with torch.no_grad():
                for value, velocity, slope in zip(
                    twin.parameters(), velocities, slopes, strict=True
                ):
                    velocity.mul_(momentum).add_(slope)
                    value -= 0.1 / (1 + decay * step) * velocity
            step += 1
        states.append([value.detach().clone() for value in twin.parameters()])
    # The epoch of the best accuracy stays.
    assert any(
        all(
            torch.allclose(a, b, atol=1e-6)
            for a, b in zip(network.parameters(), state, strict=True)
        )
        for state in states
    )


def test_a_head_of_one_logit_is_trained_and_explained():
    """klawikowska2020's network: a plain VGG with one logit, its loss the binary cross-entropy."""
    own = {"head": "sigmoid", "classes": 2, "width": 0.125, "size": 32}
    with pytest.raises(architectures.RefusedError, match="wanted 2 classes, got 6"):
        built("vgg11", **own | {"classes": 6})
    torch.manual_seed(0)
    network = built("vgg11", **own)
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)][-1] == 1
    pixels, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 2
    logits = network(pixels)
    torch.testing.assert_close(
        F.cross_entropy(class_logits(logits), labels),
        F.binary_cross_entropy_with_logits(logits[:, 0], labels.float()),
    )
    curve = training.train(
        network, (pixels, labels), (pixels, labels), mean=[0.5] * 3, std=[0.25] * 3, size=32,
        layers="all", epochs=2, batch=4, learning_rate=0.001, weight_decay=0.0, shift=0, flip=False,
        seed=3, optimiser="sgd", decay=1e-6,
    )  # fmt: skip
    assert all(row["loss"] < 1 for row in curve)
    maps = lrp.relevance(as_model(network, size=32), pixels, labels)
    assert maps.shape == (8, 32, 32)
    assert torch.isfinite(maps).all()
    assert (maps.abs().sum((1, 2)) > 0).all()


def test_momentum_and_decay_are_of_sgd():
    assert Training(optimiser="sgd", momentum=0.9, decay=1e-6).decay == 1e-6
    for wrong in ({"momentum": 0.9}, {"decay": 1e-6}):
        with pytest.raises(ValueError, match="wanted `optimiser: sgd`"):
            Training(**wrong)


@pytest.mark.parametrize("layers_", ["dense", "all"])
def test_foreign_weights_get_a_head_of_their_own(foreign, layers_):
    state, options = foreign
    model = obtained(model_settings(**options, training=brief(layers=layers_)))
    assert model.state["fc.weight"].shape == (5, 128)
    same = [n for n, v in model.state.items() if v.shape == state[n].shape
            and torch.equal(v, state[n])]  # fmt: skip
    body = [name for name in state if not name.startswith("fc.")]
    if layers_ == "dense":
        assert sorted(same) == sorted(body)  # statistics of norms, too
    else:
        assert "conv1.weight" not in same
        assert "layer4.1.bn2.running_mean" not in same


def test_weights_of_old_lack_the_count_of_batches_and_take_a_head_all_the_same():
    network = built("resnet18")
    state = {n: v for n, v in built("resnet18", classes=7).state_dict().items()
             if not n.endswith("num_batches_tracked")}  # fmt: skip
    result = architectures.with_own_head(network, state)
    assert torch.equal(result["conv1.weight"], state["conv1.weight"])
    assert result["fc.weight"].shape == (6, 128)
    assert not fitting.misfit(network, state, dense=False)
    del state["bn1.weight"]
    assert fitting.misfit(network, state, dense=False).lacking == ["bn1.weight"]


def test_a_network_without_dense_layers_has_none_to_train():
    network = built("squeezenet1_1", width=1, size=32)
    with pytest.raises(
        architectures.RefusedError, match="no dense layer to train; wanted training.la"
    ):
        training.train(
            network, (torch.rand(4, 3, 32, 32), torch.arange(4)),
            (torch.rand(2, 3, 32, 32), torch.arange(2)), mean=[0.5] * 3, std=[0.25] * 3,
            size=32, seed=1, **brief(layers="dense"),
        )  # fmt: skip


def test_weights_that_do_not_fit_the_body_are_refused(foreign):
    _, options = foreign
    options = options | {"width": 0.5, "training": brief()}
    with pytest.raises(
        architectures.RefusedError, match=r"97 more\n  wanted `models.m.width: 0.25`$"
    ):
        obtained(model_settings(**options))


def test_a_network_may_have_another_input_than_the_set():
    options = model_settings(size=80, architecture="vgg11_bn", width=0.125, head="pooled",
                            training=brief())  # fmt: skip
    weights = obtained(options)
    assert weights.facts["size"] == 80
    model = loading.ready(weights, micro_batch=2)
    sides = []
    model.network.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    assert model(torch.rand(3, 3, 64, 64)).shape == (3, 5)
    assert set(sides) == {80}


def test_inception_is_built_without_its_auxiliary_head_and_takes_weights_that_have_one(tmp_path):
    from camdrift.pipeline.vision import torchvision

    full = torchvision.models.inception_v3(num_classes=5, init_weights=False, aux_logits=True)
    path = tmp_path / "w.safetensors"
    save_file(full.state_dict(), path)
    options = model_settings(
        architecture="inception_v3", size=80, weights=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip
    weights = obtained(options)
    assert not any(name.startswith("AuxLogits") for name in weights.state)
    assert weights.facts["left_out"] == {}


def test_the_last_map_of_inception_is_what_its_head_sees():
    calls = watched(built("inception_v3", size=112), 112).calls
    points = {point.name: point for point in hook_points.conv_points(calls)}
    assert list(points)[-1] == "Mixed_7c"
    assert len({point.place for point in points.values()}) == len(points)
    joint = calls[points["Mixed_7c"].place]
    assert len(joint.inputs) == 4
    assert [calls[user].module for user in joint.users] == ["avgpool"]
    assert points["Mixed_7c"].rectified


class Joined(nn.Module):
    """Two branches that are joined, one of them without an activation."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 4, 1)
        self.right = nn.Conv2d(3, 5, 1)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        joined = torch.cat([torch.relu(self.left(x)), self.right(x)], 1)
        return self.head(joined.mean((2, 3)))


def test_what_is_joined_is_a_map_but_its_neurons_are_those_of_the_branches():
    points = hooked(Joined(), 8)
    assert list(points) == ["left", "right", "cat"]
    assert [point.rectified for point in points.values()] == [True, False, False]
    model = as_model(Joined().eval(), size=8, micro_batch=1)
    assert [point.name for point in model.neurons] == ["left", "right"]
    assert len(coverage.spatial(model)) == 4 + 5 + 3


def test_neurons_of_tokens_are_units_of_dense_layers_averaged_over_tokens():
    class Tokens(nn.Module):
        def __init__(self, grid):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.grid = nn.Conv2d(3, 4, 4, 4), grid
            self.dense, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            x = self.embed(x).permute(0, 2, 3, 1)
            x = F.gelu(self.dense(x if self.grid else x.flatten(1, 2)))
            return self.head(x.flatten(1, -2).mean(1))

    pixels = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))[..., :8]
    for grid in (False, True):
        model = as_model(Tokens(grid).eval(), size=8, micro_batch=2)
        assert [point.name for point in model.neurons] == ["embed", "dense"]
        assert coverage.spatial(model).tolist() == [True] * 10 + [False] * 3
        logits, excitations = model.excitations(pixels)
        means = coverage.means(logits, excitations)
        network = model.network
        tokens = network.embed(model.inputs(pixels)).flatten(2)
        torch.testing.assert_close(means[:, :4], tokens.mean(2))
        units = F.gelu(network.dense(tokens.transpose(1, 2)))
        torch.testing.assert_close(means[:, 4:10], units.mean(1))
        low, high = units.amin((1, 2)), units.amax((1, 2))
        expected = (units.mean(1) - low[:, None]) / (high - low)[:, None]
        torch.testing.assert_close(coverage.levels(logits, excitations)[:, 4:10], expected)
        kernels = coverage.kernel_means(model)
        assert kernels[4:10] == pytest.approx(network.dense.weight.mean(1).numpy())


class Modern(nn.Module):
    """Depthwise and grouped convs, SiLU by hand, leaky ReLU, a shared block, and convs left out."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.shared = nn.Sequential(nn.Conv2d(4, 4, 1), nn.LeakyReLU())
        self.unused = nn.Conv2d(4, 4, 1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x * torch.sigmoid(x)
        x = F.silu(self.depthwise(x))
        x = self.shared(self.shared(x))
        if self.training:
            x = self.unused(x)
        return self.head(self.up(x).mean((2, 3)))


def test_modern_networks_are_hooked_and_what_is_left_out_says_why():
    network = Modern().eval()
    points = hooked(network, 8)
    assert list(points) == ["stem", "depthwise", "shared.0", "shared.0:2"]
    assert all(point.rectified for point in points.values())
    ready = watched(network, 8)
    _, tensors = ready(torch.ones(1, 3, 8, 8), hook_points.conv_points(ready.calls))
    stem = network.stem(torch.ones(1, 3, 8, 8))
    torch.testing.assert_close(tensors[0], stem * torch.sigmoid(stem))
    reasons = hook_points.left_out(network, ready.calls)
    assert reasons == {
        "unused": "no output of the forward in eval mode depends on it",
        "up": "ConvTranspose2d is not a two-dimensional convolution",
    }


def test_xception_of_timm_is_slimmed_and_hooked():
    points = hooked(built("timm:legacy_xception", head="pooled"))
    assert list(points)[-1] == "conv4.pointwise"
    assert points["conv4.pointwise"].rectified
    assert not points["conv4.conv1"].rectified  # depthwise: its own output

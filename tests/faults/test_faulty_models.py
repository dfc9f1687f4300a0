"""Networks and weights that would give wrong results, or none, after hours."""

import hashlib
import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from camdrift import settings
from camdrift.explain import cam
from camdrift.models import (
    architectures,
    checks,
    loading,
    training,
    weights,
)
from camdrift.settings import ModelSettings, SettingsError

PLAN = {
    "set": "s", "width": 1.0, "head": "torchvision", "classes": 3, "size": None,
    "mean": [0.5] * 3, "std": [0.25] * 3, "weights": None, "sha256": None, "new_head": False,
    "training": None,
}  # fmt: skip
TRAINING = {
    "layers": "all", "epochs": 1, "batch": 2, "learning_rate": 0.01, "weight_decay": 0.0,
    "shift": 0, "flip": False,
}  # fmt: skip
PIXELS = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


class Plain(nn.Module):
    """All networks here do this, but for one fault."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.conv(self.first(x)))).mean((2, 3)))

    def first(self, x):
        return x

    def last(self, x):
        return self.head(x)


class Functional(Plain):
    def first(self, x):
        return F.batch_norm(x, None, None, training=True)


class Forgotten(Plain):
    def last(self, x):
        return self.head(F.dropout(x, 0.5))  # training=True is its default


class Stubborn(Plain):
    def train(self, mode=True):
        super().train(mode)
        self.norm.train()
        return self


class Unkept(Plain):
    def __init__(self, classes):
        super().__init__(classes)
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)


class Noisy(Plain):
    def __init__(self, classes):
        super().__init__(classes)
        self.drop = nn.Dropout(0.5)

    def train(self, mode=True):
        super().train(mode)
        self.drop.train()
        return self

    def last(self, x):
        return self.head(self.drop(x))


class Sociable(Plain):
    def first(self, x):
        return x - x.mean(0, keepdim=True)


class Scaled(Plain):
    """The batch's extreme is a neighbour's, or the image's own: it takes a harsh neighbour."""

    def first(self, x):
        return x / x.abs().max()


class Ranked(Plain):
    """An image's place in the batch counts."""

    def last(self, x):
        return self.head(x).cumsum(0)


class Random(Plain):
    def last(self, x):
        return self.head(x + torch.rand_like(x))


class Frozen(Plain):
    """torch.fx keeps the one number that it sees; the network draws in each call."""

    def last(self, x):
        return self.head(x) + torch.rand(1)


class Counted(Plain):
    calls = 0

    def last(self, x):
        self.calls += 1
        return self.head(x) * self.calls


class Branching(Plain):
    """torch.fx does not trace with tensors: it takes the other way."""

    def last(self, x):
        return self.head(x * 2 if isinstance(x, torch.Tensor) else x)


class Single(Plain):
    def last(self, x):
        return self.head(x).sum(0, keepdim=True)


class Narrow(Plain):
    """It works for one image alone."""

    def last(self, x):
        return self.head(x.reshape(1, -1))


class Convless(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, classes)

    def forward(self, x):
        return self.head(x.flatten(1))


class Logarithmic(Plain):
    """NaN wherever a normalised input is below -1."""

    def first(self, x):
        return torch.log(x + 1)


def obtained(architecture, labels=LABELS, **changed):
    name = architecture if isinstance(architecture, str) else architecture.__name__
    name = name if ":" in name else f"{__name__}:{name}"
    plan = ModelSettings.model_validate(PLAN | {"architecture": name} | changed)
    return loading.obtain(
        plan, size=16, labels=labels.tolist(), split=lambda _: (PIXELS, labels), seed=1, name="m"
    )


def weight_settings(network, tmp_path, **changed):
    """The names of a network's weights, after some are set to a value."""
    state = network.state_dict()
    for name, value in changed.items():
        state[name.replace("__", ".")].view(-1)[0] = value
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    return {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture
def never(monkeypatch):
    """Training fails, so that what is refused was refused before it."""
    monkeypatch.setattr(training, "train", lambda *a, **k: pytest.fail("it was trained first"))


class Projected(Plain):
    """A matrix that is drawn when the network is built, and stands in no state dict."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__(classes)
        torch.seed()
        self.matrix = [torch.randn(classes, classes)]

    def last(self, x):
        return self.head(x) @ self.matrix[0]


def test_what_no_state_dict_restores_is_refused_before_it_is_trained(never):
    with pytest.raises(checks.UnsoundError, match="drawn when it is built"):
        obtained(Projected, training=TRAINING)


def test_the_look_at_what_is_restored_draws_nothing():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    facts = PLAN | {"architecture": f"{__name__}:Plain", "classes": 3, "size": 16}
    loading._refuse_lost(Plain(), facts)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), expected)


def test_tensors_that_no_state_dict_holds_are_noticed():
    assert not architectures._has_more_than_its_state(Plain())
    blurred, nested, plain = Plain(), Plain(), Plain()
    blurred.norm.register_buffer("kernel", torch.ones(3), persistent=False)
    nested.norm.tables = {"positions": [torch.ones(2)]}
    plain.scale = torch.ones(())
    assert all(architectures._has_more_than_its_state(n) for n in (blurred, nested, plain))


def test_a_network_with_more_than_its_state_is_trained_and_loaded():
    """Its blur has a buffer that is not persistent, which the meta device would leave empty."""
    weights = obtained("timm:resnetblur18", size=32, training=TRAINING)
    ready = loading.ready(weights, micro_batch=2)
    tensors = [*ready.parameters(), *ready.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert torch.isfinite(ready(PIXELS)).all()


def test_accuracy_at_chance_is_said(capsys):
    sides = torch.arange(6) % 3
    bad = obtained(Plain, labels=(sides + 1) % 3, training=TRAINING)
    assert bad.facts["chance"] == pytest.approx(1 / 3, abs=1e-4)
    assert "not surely more than 33.3%" in capsys.readouterr().out


def test_the_plain_network_is_sound(tmp_path):
    assert obtained(Plain, **weight_settings(Plain(), tmp_path)).facts["classes"] == 3
    assert obtained(Plain, training=TRAINING).facts["classes"] == 3


@pytest.mark.parametrize("name", ["conv__weight", "norm__running_mean", "norm__running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, name, value, monkeypatch):
    plan = weight_settings(Plain(), tmp_path, **{name: value})
    monkeypatch.setattr(Plain, "last", lambda self, x: pytest.fail("it ran"))
    monkeypatch.setattr(loading, "_network", lambda facts, initialised: Plain())
    with pytest.raises(architectures.RefusedError, match=f"'{name.replace('__', '.')}' has 1 of "):
        obtained(Plain, **plan)


def test_weights_beyond_float32_are_refused_by_name(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(Plain().double().state_dict() | {"head.bias": torch.tensor([1e300, 0, 0]).double()},
              path)  # fmt: skip
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(architectures.RefusedError, match="'head.bias' has 1 of 3 .* as float32"):
        obtained(Plain, weights=str(path), sha256=digest)


def test_training_that_ends_in_weights_that_are_not_finite_is_refused(monkeypatch):
    def spoil(network, *_, **__):
        with torch.no_grad():
            network.norm.running_var[1] = float("inf")  # the logits stay finite
        return []

    monkeypatch.setattr(training, "train", spoil)
    with pytest.raises(SettingsError, match="models.m, trained: 'norm.running_var' has 1 of 4"):
        obtained(Plain, training=TRAINING)


def test_a_loss_that_is_not_finite_is_a_message_of_the_settings():
    with pytest.raises(SettingsError, match="lower learning_rate"):
        obtained(Plain, training=TRAINING | {"learning_rate": 1e30, "epochs": 3})


FAULTS = {
    Functional: r"batch_norm\(training=True\) works as in training.*wanted training=self.training",
    Forgotten: r"dropout\(training=True\) works as in training.*wanted training=self.training",
    Stubborn: "BatchNorm2d 'norm' works as in training.*wanted a train",
    Unkept: "BatchNorm2d 'norm' works as in training.*wanted track_running_stats=True",
    Noisy: "Dropout 'drop' works as in training.*wanted a train",
    Sociable: "depend on the images beside it",
    Scaled: "depend on the images beside it",
    Ranked: "depend on the images beside it",
    Random: "asked twice .* other logits",
    Single: r"returns \(1, 3\) for 4 images, wanted \(4, 3\)",
    Narrow: r"does not run on 4 images: RuntimeError.*line \d+ of",
    Convless: "the network has no two-dimensional conv layer",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_faulty_network_is_refused_before_it_is_trained(kind, never):
    with pytest.raises(SettingsError, match=FAULTS[kind]):
        obtained(kind, training=TRAINING)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_faulty_network_is_refused_with_weights_from_a_file(kind, tmp_path):
    with pytest.raises(SettingsError, match=FAULTS[kind]):
        obtained(kind, **weight_settings(kind(3), tmp_path))


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Frozen, "asked twice"), (Counted, "asked twice")],
)
def test_what_its_graph_does_not_repeat_is_refused(kind, message, tmp_path):
    with pytest.raises(checks.UnsoundError, match=message):
        obtained(kind, **weight_settings(kind(3), tmp_path))


def test_a_network_that_tells_tracing_from_running_is_explained_as_it_runs(tmp_path):
    assert obtained(Branching, **weight_settings(Branching(3), tmp_path)).facts["classes"] == 3
    explained = cam.all_layers(Branching(3), PIXELS, 1)
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, Branching(3).eval()(PIXELS))


@pytest.mark.parametrize("kind", [Functional, Forgotten, Stubborn, Unkept])
def test_a_library_call_refuses_what_works_as_in_training(kind):
    with pytest.raises(checks.UnsoundError, match=FAULTS[kind]):
        cam.all_layers(kind(3), PIXELS, methods=["GradCAM"])


def test_a_network_that_gives_nan_for_real_images_is_refused(tmp_path):
    """At this mean every pixel is above -1 but those of one image, which is not among the first."""
    plan = weight_settings(Logarithmic(), tmp_path) | {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert obtained(Logarithmic, **plan).facts["classes"] == 3
    images = PIXELS.clone()
    images[4] = -3.0
    model_settings = ModelSettings.model_validate(
        PLAN | plan | {"architecture": f"{__name__}:Logarithmic"}
    )
    with pytest.raises(checks.UnsoundError, match="NaN or infinite logits for 1 of 6 images"):
        loading.obtain(
            model_settings, size=16, labels=[0, 2], split=lambda _: (images, LABELS), seed=1,
            name="m",
        )  # fmt: skip


def test_a_network_that_gives_nan_for_the_first_images_is_refused(tmp_path):
    plan = weight_settings(Logarithmic(), tmp_path) | {"mean": [2.0] * 3, "std": [1.0] * 3}
    with pytest.raises(checks.UnsoundError, match="NaN or infinite logits for 4 of 4 images"):
        obtained(Logarithmic, **plan)


def test_logits_of_minus_infinity_are_none_of_its_business():
    training.accuracy(Masked(), PIXELS, LABELS, mean=[0.5] * 3, std=[0.25] * 3, size=16)
    checks.refuse_dependence(Masked().eval(), PIXELS, classes=3)


class Masked(Plain):
    def last(self, x):
        return self.head(x) + torch.tensor([0.0, 0.0, -float("inf")])


def no_network(classes):
    return 5


def a_tuple(classes):
    return Tuple(classes)


def a_raising(classes):
    raise ZeroDivisionError("no such")


class Tuple(Plain):
    def last(self, x):
        return self.head(x), x


class Named(Plain):
    def last(self, x):
        return {"logits": self.head(x)}


class Stuck(Plain):
    def __init__(self, classes):
        super().__init__(1000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Stuck", r"returns \(1, 1000\) for one image, wanted \(1, 3\).*`classes:`"),
        ("a_tuple", "returns a tuple, wanted a tensor of logits"),
        ("Named", "returns a dict, wanted a tensor of logits"),
        ("no_network", "wanted a network from .*no_network', got a int"),
        ("a_raising", r"called with classes=3, raised ZeroDivisionError: no such \(line \d+ of"),
        ("PLAN", "wanted a function, got"),
        ("missing", "cannot import .*AttributeError"),
    ],
)
def test_what_is_no_classifier_is_a_message(name, message):
    with pytest.raises(SettingsError, match=message):
        obtained(name, training=TRAINING)


def test_a_set_of_more_classes_than_logits_is_a_message():
    with pytest.raises(SettingsError, match="models.m.classes: wanted more than 7.*, got 3"):
        obtained(Plain, labels=torch.tensor([0, 1, 2, 0, 1, 7]), training=TRAINING)


def test_a_network_that_cannot_be_copied_is_trained_all_the_same():
    assert obtained(Locked, training=TRAINING).facts["classes"] == 3


class Locked(Plain):
    def __init__(self, classes):
        super().__init__(classes)
        self.lock = threading.Lock()


def test_the_check_draws_nothing():
    network = Random(3).eval()
    before = torch.get_rng_state()
    with pytest.raises(checks.UnsoundError, match="asked twice"):
        checks.refuse_dependence(network, PIXELS, classes=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_check_leaves_no_trace():
    network = Plain().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    facts = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 16, "classes": 3}
    loading._refuse_early(network, PIXELS, facts)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())
    assert all(module.training for module in network.modules())


def file(tmp_path, content, name="w.pt"):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ModelSettings.model_validate(
        PLAN | {"architecture": "vgg11", "weights": str(path), "sha256": digest}
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "wanted a dict of tensors by name, got a list"),
        ({"weights": {"w": torch.zeros(1)}, "epoch": 3}, "got a dict under 'weights'; save"),
        ({"w": torch.zeros(1), "epoch": 3}, "got a int under 'epoch'; save"),
        ({"w": torch.zeros(1, dtype=torch.half).expand(2**20, 2**20)}, "'w' of .1048576, 1048576"),
        ({"w": torch.eye(3).to_sparse()}, "wanted dense, real tensors, got 'w'"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "wanted dense, real tensors, got 'w'"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 and then nothing", "cannot be read"),
        (b"<html>404</html>", "cannot be read as safetensors, nor .*, as a web page does"),
        (b"version https://git-lfs", "as a pointer of Git LFS does"),
    ],
)
def test_a_weights_file_that_is_none_is_a_message(tmp_path, content, message):
    with pytest.raises(architectures.RefusedError, match=message):
        weights.read(file(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"\x08" + b"\0" * 7 + b"{broken}"])
def test_a_safetensors_file_that_is_none_is_a_message(tmp_path, content):
    with pytest.raises(architectures.RefusedError, match="cannot be read as safetensors"):
        weights.read(file(tmp_path, content, "w.safetensors"))


def test_weights_under_state_dict_are_found(tmp_path):
    tensors = weights.read(file(tmp_path, {"state_dict": {"w": torch.ones(2).half()}, "epoch": 3}))
    assert tensors["w"].dtype == torch.float32


def test_settings_name_what_weights_are_wanted():
    plan = PLAN | {"architecture": "vgg11", "weights": "https://host/w.bin"}
    with pytest.raises(ValueError, match="wanted the sha256 of https://host/w.bin"):
        settings.ModelSettings.model_validate(plan)
    settings.ModelSettings.model_validate(plan | {"sha256": "0" * 64})

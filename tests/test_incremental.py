import pytest
import torch
from torch import nn

from camdrift.models import architectures, incremental
from camdrift.models.incremental import Incremental, painted
from camdrift.models.model import Model
from conftest import as_model

HALVES = [0.5] * 3


def network(architecture: str, *, size: int, width: float, head: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(
        architecture=architecture, width=width, head=head, classes=classes, size=size,
        initialised=True,
    )  # fmt: skip


def model_of(architecture: str, **where) -> Model:
    size = where["size"]
    net = network(architecture, **where)
    # Weights as drawn leave the logits at a hundredth of what the last layers add up.
    last = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    nn.init.normal_(last.weight, std=0.1)
    return Model(net, mean=HALVES, std=HALVES, size=size, micro_batch=8)


def changes(size: int, images: int):
    """Corners, edges and the centre of each image, and places drawn uniformly."""
    generator = torch.Generator().manual_seed(1)
    ends = [0, 1, size // 2, size - 2, size - 1]
    places = torch.tensor([[[row, column]] for row in ends for column in ends])
    places = torch.cat([places, torch.randint(0, size, (12, 1, 2), generator=generator)])
    places = places.repeat(images, 1, 1)
    owners = torch.arange(images).repeat_interleave(len(places) // images)
    values = torch.rand(len(places), 1, 3, generator=generator) * 3 - 1
    pixels = torch.rand(images, 3, size, size, generator=generator)
    return pixels, owners, places, values


def agree(model: Model, size: int, images: int = 2, limit: float = 1e-6) -> Incremental:
    pixels, owners, places, values = changes(size, images)
    engine = Incremental(model, pixels)
    logits = engine.logits(owners, places, values)
    with torch.no_grad():
        full = model(painted(pixels[owners], places, values))
        clean = model(pixels)[owners]
    assert (full - clean).abs().max() > 1000 * limit * full.abs().max()
    assert (logits - full).abs().max() <= limit * full.abs().max()
    return engine


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("head", ["pooled", "torchvision"])
def test_vgg16_of_full_width(size, head):
    if head == "torchvision" and size == 48:
        pytest.skip("its dense layers take the time, not its convs")
    model = model_of("vgg16", size=size, width=1.0, head=head, classes=10)
    engine = agree(model, size, images=1)
    assert len(engine._stages) >= 7


@pytest.mark.parametrize("architecture", ["vgg11", "vgg16", "vgg16_bn"])
@pytest.mark.parametrize("head", ["pooled", "torchvision"])
@pytest.mark.parametrize("size", [33, 50, 64])
def test_vgg_of_quarter_width(architecture, head, size):
    model = model_of(architecture, size=size, width=0.25, head=head, classes=10)
    assert len(agree(model, size)._stages) >= 6


@pytest.mark.parametrize(("architecture", "width"), [("resnet18", 0.25), ("squeezenet1_1", 1.0)])
def test_what_branches_is_recomputed_from_its_first_branch_on(architecture, width):
    engine = agree(model_of(architecture, size=40, width=width, head="torchvision", classes=5), 40)
    assert 1 <= len(engine._stages) <= 2


CHAINS = {
    "strides": [
        nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, stride=2),
    ],
    "pools": [
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(6, 6, 1),
        nn.MaxPool2d(2, stride=1), nn.LeakyReLU(), nn.Conv2d(6, 6, 2, padding=1),
    ],
    "holes": [
        nn.Conv2d(3, 6, 3, dilation=2, padding=2), nn.MaxPool2d(3, 2), nn.Tanh(),
        nn.Conv2d(6, 6, 3, groups=3, padding=2), nn.MaxPool2d(2, 1, dilation=2),
    ],
    "pool of what is below zero": [
        nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(6, 6, 3),
    ],
    "gaps": [nn.Conv2d(3, 6, 1, stride=3), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)],
    "norm later": [
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(6), nn.Dropout2d(),
        nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6),
    ],
}  # fmt: skip


@pytest.mark.parametrize("size", [22, 23, 24, 25, 29])
@pytest.mark.parametrize("name", CHAINS)
def test_strides_pools_borders_and_odd_sizes(name, size):
    torch.manual_seed(0)
    chain = nn.Sequential(*CHAINS[name], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))
    for module in chain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    engine = agree(as_model(chain, size=size), size)
    assert len(engine._stages) == sum(isinstance(m, nn.Conv2d | nn.MaxPool2d) for m in CHAINS[name])


UNKNOWN = {
    "padding by name": nn.Conv2d(3, 6, 3, padding="same"),
    "reflection": nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
    "not square": nn.Conv2d(3, 6, (1, 3)),
    "another kind": nn.AvgPool2d(2, ceil_mode=True),
    "whole window": nn.Conv2d(3, 6, 15, padding=7),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_it_does_not_know_is_left_to_the_model(name):
    first = UNKNOWN[name]
    chain = [first, nn.Conv2d(3 if isinstance(first, nn.AvgPool2d) else 6, 6, 3), nn.ReLU(),
             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]  # fmt: skip
    torch.manual_seed(0)
    assert agree(as_model(nn.Sequential(*chain)), 12)._stages == []


def test_images_that_the_model_resizes(model):
    assert agree(model, 20)._stages == []


def test_logits_straight_from_a_conv():
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 1, 3), nn.Flatten()
    )
    assert len(agree(as_model(chain), 12)._stages) == 2


def test_several_pixels(model, pixels):
    places = torch.tensor([[[0, 0], [11, 11], [3, 4]], [[5, 5], [5, 5], [2, 9]]])
    values = torch.rand(2, 3, 3)
    owners = torch.tensor([4, 7])
    logits = Incremental(model, pixels).logits(owners, places, values)
    torch.testing.assert_close(logits, model(painted(pixels[owners], places, values)))


def test_the_company_changes_no_bit(monkeypatch):
    model = model_of("vgg11", size=33, width=0.25, head="pooled", classes=10)
    pixels, owners, places, values = changes(33, 3)
    whole = Incremental(model, pixels).logits(owners, places, values)
    order = torch.randperm(len(owners), generator=torch.Generator().manual_seed(2))
    shuffled = Incremental(model, pixels)
    assert torch.equal(shuffled.logits(owners[order], places[order], values[order]), whole[order])
    for image in range(3):
        mine = owners == image
        alone = Incremental(model, pixels[image : image + 1])
        nothing = torch.zeros(int(mine.sum()), dtype=torch.int64)
        assert torch.equal(alone.logits(nothing, places[mine], values[mine]), whole[mine])
    assert len(owners) > incremental.CHUNK

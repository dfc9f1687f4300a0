"""Attacks that move or keep maps: smoothing, drift and its gradient, limits, both attacks."""

import copy
import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camdrift import attacks, storage
from camdrift.attacks import map_keeping, map_moving, pgd
from camdrift.explain import cam, manipulation
from camdrift.models import smoothing
from camdrift.models.logits import probabilities
from camdrift.perturbations import limits, perturbation
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import SpoiltError
from camdrift.settings import SettingsError, params
from camdrift.storage import Attacked
from conftest import ROOT, as_model, inside, small_network
from test_attacks import generators

STEPS = {"step": 0.2, "steps": 12, "beta": [10.0, 100.0], "layers": None}
MOVING = STEPS | {"eps": 0.03, "tolerance": 0.05, "towards": None}
KEEPING = STEPS | {"eps": 0.03, "bisections": 4, "explains": "own_top1"}


def moved(model, pixels, **changed):
    settings = MOVING | changed
    labels = model(pixels).argmax(1)
    return map_moving.perturb(model, pixels, labels, generators=generators(len(pixels)), **settings)


def kept(model, pixels, **changed):
    settings = KEEPING | changed
    labels = model(pixels).argmax(1)
    return map_keeping.perturb(
        model, pixels, labels, generators=generators(len(pixels)), **settings
    )


def drift_of(model, pixels, changed, classes=None, emptied=0.0):
    """1 minus the cosine of each pair of maps, mean over layers that had one, in loops."""
    own = model(pixels).argmax(1)
    before = cam.all_layers(model, pixels, own).maps[cam.GRAD_CAM]
    after = cam.all_layers(model, changed, classes).maps[cam.GRAD_CAM]
    result = []
    for image in range(len(pixels)):
        each = []
        for one, other in zip(before, after, strict=True):
            a, b = one[image].flatten().numpy(), other[image].flatten().numpy()
            if a.any():
                each.append(1 - (a @ b / np.sqrt((a @ a) * (b @ b)) if b.any() else emptied))
        result.append(np.mean(each) if each else 0.0)
    return np.array(result)


@pytest.fixture
def balanced(pixels):
    """A model that takes the images for different classes."""
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= as_model(network)(pixels).mean(0)
    model = as_model(network)
    assert len(model(pixels).argmax(1).unique()) > 1
    return model


# Smoothing


@pytest.mark.parametrize(
    ("rectify", "slope", "top"),  # a slope below 0 stands for the lowest value
    [
        (F.relu, 0, math.inf), (torch.relu, 0, math.inf), (torch.Tensor.relu, 0, math.inf),
        (lambda x: F.relu(x.clone(), inplace=True), 0, math.inf), (nn.ReLU(), 0, math.inf),
        (lambda x: torch.relu_(x.clone()), 0, math.inf), (nn.ReLU6(), 0, 6),
        (lambda x: F.leaky_relu(x, 0.2), 0.2, math.inf), (nn.LeakyReLU(0.1), 0.1, math.inf),
        (nn.Hardtanh(-2, 1), -2, 1),
    ],
)  # fmt: skip
def test_a_smoothed_rectifier_is_off_by_log_2_over_beta_at_most(rectify, slope, top):
    values = torch.linspace(-9, 9, 101, dtype=torch.float64)
    low = values.clamp_min(slope) if slope < 0 else slope * values
    plain = torch.where(values > 0, values.clamp_max(top), low)
    torch.testing.assert_close(rectify(values), plain)
    for beta in (1.0, 10.0, 100.0):
        with smoothing.Smooth(beta):
            smooth = rectify(values)
        assert not torch.equal(smooth, plain)
        assert (smooth - plain).abs().max() <= math.log(2) / beta + 1e-12
    torch.testing.assert_close(rectify(values), plain)


def test_a_smoothed_network_nears_its_own_as_beta_rises(model, pixels):
    own = model(pixels)
    errors = []
    for beta in (1.0, 10.0, 100.0, 1000.0):
        with smoothing.Smooth(beta):
            errors.append(float((model(pixels) - own).detach().abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]


def with_activation(activation) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    )


@pytest.mark.parametrize("attack", [moved, kept])
def test_a_network_whose_rectifiers_are_not_smoothed_is_refused(attack, pixels):
    model = as_model(with_activation(nn.PReLU()))
    with pytest.raises(SettingsError, match="'1' computes prelu, which has no smooth form"):
        attack(model, pixels)
    for activation in (nn.GELU(), nn.Hardswish(), nn.Hardsigmoid(), nn.LeakyReLU()):
        attack(as_model(with_activation(activation)), pixels)


def test_the_smooth_forms_of_hard_activations_near_them():
    values = torch.linspace(-9, 9, 101, dtype=torch.float64)
    for activation in (nn.Hardswish(), nn.Hardsigmoid()):
        with smoothing.Smooth(100.0):
            smooth = activation(values)
        assert 0 < (smooth - activation(values)).abs().max() < 0.01


def test_derivatives_of_softplus_are_its_own():
    values = torch.randn(40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: smoothing.softplus(x, 3.0), values)
    assert torch.autograd.gradgradcheck(lambda x: smoothing.softplus(x, 3.0), values)
    torch.testing.assert_close(smoothing.softplus(values, 3.0), F.softplus(values, beta=3.0))


# Drift and its gradient


def test_the_drift_is_that_of_the_maps_of_all_layers(model, pixels):
    changed = (pixels + 0.05 * torch.randn(pixels.shape)).clamp(0, 1)[:4]
    own = model(pixels[:4]).argmax(1)
    rivals = model(changed).scatter(1, own[:, None], -torch.inf).argmax(1)
    for follows, classes in ((True, rivals), (False, own)):
        walks = walks_on(model, pixels[:4])
        logits, drift = walks.watch(emptied=0.0, follows=follows).drift(model, changed)
        np.testing.assert_allclose(drift, drift_of(model, pixels[:4], changed, classes), atol=1e-5)
        torch.testing.assert_close(logits, model(changed))


def walks_on(model, batch, **changed):
    settings = {"step": 0.2, "steps": 3, "beta": [10.0, 100.0]} | changed
    count = len(batch)
    bounds = Limits(torch.full((count,), 0.03))
    places = tuple(range(len(model.maps)))
    labels = model(batch).argmax(1)
    return manipulation.Walks(
        model, batch, labels, 0, bounds, torch.zeros_like(batch), places, **settings
    )


@pytest.mark.parametrize("beta", [3.0, 30.0])
def test_the_drifts_gradient_is_the_limit_of_differences(beta):
    model = as_model(small_network().double())
    rng = torch.Generator().manual_seed(3)
    clean = torch.rand(4, 3, 12, 12, generator=rng, dtype=torch.float64)
    watch = walks_on(model, clean).watch(emptied=0.0)
    at = clean + 0.02 * torch.randn(clean.shape, generator=rng, dtype=torch.float64)
    at.requires_grad_()
    _, drift = watch.drift(model, at, beta)
    (gradient,) = torch.autograd.grad(drift.sum(), at)
    assert gradient.flatten(1).abs().sum(1).min() > 0
    for _ in range(20):
        way = torch.randn(clean.shape, generator=rng, dtype=torch.float64)
        ends = [watch.drift(model, at + sign * 1e-6 * way, beta)[1] for sign in (1, -1)]
        slope = (ends[0] - ends[1]).detach() / 2e-6
        expected = (gradient * way).flatten(1).sum(1)
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-7)


def test_without_smoothing_the_weights_of_maps_have_no_gradient(pixels):
    """At the first of two convs, only the network behind it decides a channel's weight."""
    model = as_model(small_network())
    batch = pixels[:4].clone().requires_grad_()
    for beta, moves in ((None, False), (10.0, True)):
        with smoothing.Smooth(beta) if beta else torch.enable_grad():
            logits, (first, _) = model.activations(batch)
        (slope,) = torch.autograd.grad(logits[:, 0].sum(), first, create_graph=True)
        weights = slope.mean((2, 3))
        (gradient,) = torch.autograd.grad(weights.sum(), batch, allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == moves


def test_a_map_that_becomes_empty_does_the_attack_no_good():
    filled, empty = torch.ones(2, 3, 3), torch.zeros(2, 3, 3)
    turned = filled.clone()
    turned[:, 0] = 0  # cosine sqrt(6 / 9)
    for emptied in (0.0, 1.0):
        pairs = [(turned, filled), (empty, filled), (filled, empty), (empty, empty)]
        cosines = [manipulation._cosine(*pair, emptied=emptied) for pair in pairs]
        torch.testing.assert_close(cosines[0], torch.full((2,), math.sqrt(2 / 3)))
        assert all(torch.equal(each, torch.full((2,), emptied)) for each in cosines[1:])


@pytest.mark.parametrize(
    ("layers", "places"), [(None, (0, 1)), ([1], (0,)), ([-1], (1,)), ([2, 1, "last"], (0, 1))]
)
def test_layers_are_named_or_counted(model, layers, places):
    labels = [point.label for point in model.maps]
    given = layers and [labels[-1] if layer == "last" else layer for layer in layers]
    assert manipulation.places_of(model, given) == places


@pytest.mark.parametrize("layer", [0, 3, -3, "9-9"])
def test_a_layer_that_is_not_there_is_refused(model, pixels, layer):
    with pytest.raises(SettingsError, match=rf"numbers from 1 to 2, got {layer!r}"):
        moved(model, pixels, layers=[layer])


# Limits


def test_changes_are_projected_as_on_paper():
    clean = torch.tensor([0.5, 0.5, 0.9, 0.1]).view(1, 1, 2, 2)
    change = torch.tensor([0.4, -0.1, 0.4, -0.4]).view(1, 1, 2, 2)
    boxed = Limits(torch.tensor([0.3])).project(clean, change)
    expected = torch.tensor([0.3, -0.1, 0.1, -0.1])
    torch.testing.assert_close(boxed.flatten(), expected, rtol=2e-5, atol=0)
    # Its norm is sqrt(.12); half of it is allowed.
    bounds = Limits(torch.tensor([0.3]), torch.tensor([math.sqrt(0.12) / 2]))
    halved = bounds.project(clean, change).flatten()
    torch.testing.assert_close(halved, torch.tensor([0.15, -0.05, 0.05, -0.05]), rtol=2e-5, atol=0)
    torch.testing.assert_close(bounds.project(clean, halved.view(1, 1, 2, 2)).flatten(), halved)


def test_steps_are_as_large_as_their_share():
    gradient = torch.tensor([3.0, -4.0, 0.0, 0.0]).view(1, 1, 2, 2)
    box, ball = Limits(torch.tensor([0.3])), Limits(torch.tensor([0.3]), torch.tensor([0.5]))
    assert box.step(gradient, 0.1).flatten().tolist() == pytest.approx([0.03, -0.03, 0, 0])
    assert ball.step(gradient, 0.1).flatten().tolist() == pytest.approx([0.03, -0.04, 0, 0])
    assert not ball.step(torch.zeros_like(gradient), 0.1).any()


@pytest.mark.parametrize("attack", [map_moving, map_keeping])
def test_every_image_has_limits_of_its_own(attack, model, pixels):
    labels = model(pixels).argmax(1)
    bounds = Limits(torch.linspace(0.01, 0.05, 10), torch.linspace(0.3, 0.1, 10))
    settings = MOVING if attack is map_moving else KEEPING
    change, effect = perturbation.run(
        attack.perturb, model, model, pixels, labels, generators=generators(10),
        settings=settings, limits=bounds, shard=4,
    )  # fmt: skip
    assert (torch.tensor(effect["linf"]) <= bounds.linf).all()
    assert (torch.tensor(effect["l2"]) <= bounds.l2).all()
    assert (torch.tensor(effect["l2"]) > 0.5 * bounds.l2).float().mean() > 0.5
    inside = pixels + change.pixels
    assert inside.min() >= 0
    assert inside.max() <= 1


def test_the_limits_of_a_cell_are_the_sizes_of_the_attack_that_it_is_within(tmp_path):
    content = params.read(ROOT / "params.yaml")
    content["cells"]["fgsm"]["within"] = "studies/layers/pgd/attack"
    cells = params.parse(content).cells
    images = pd.DataFrame({"image": [4, 7, 9], "l2": [0.4, 0.7, 0.9], "linf": [0.04, 0.07, 0.09]})
    attacked = Attacked(
        np.zeros((3, 3, 4, 4), np.float32), np.zeros((0, 3, 4, 4), np.float32), images,
        pd.DataFrame(),
    )  # fmt: skip
    with inside(tmp_path):
        storage.write(storage.cell_folder("layers", "pgd", "attack"), attacked)
        own = limits.within(cells["fgsm"], pd.Series([9, 4]))
        assert limits.within(cells["pgd"], pd.Series([9, 4])) is None
    torch.testing.assert_close(own.l2, torch.tensor([0.9, 0.4]))
    torch.testing.assert_close(own.linf, torch.tensor([0.09, 0.04]))


def test_an_attack_without_limits_is_made_smaller(model, pixels):
    labels = model(pixels).argmax(1)
    bounds = Limits(torch.full((10,), 0.02), torch.linspace(0.2, 2, 10))
    settings = {"eps": 0.03, "step": 0.01, "steps": 5, "random_start": False, "early_stop": False}
    run = (pgd.perturb, model, model, pixels, labels)
    whole, _ = perturbation.run(*run, generators=generators(10), settings=settings)
    change, effect = perturbation.run(
        *run, generators=generators(10), settings=settings, limits=bounds, shard=3
    )
    torch.testing.assert_close(change.pixels, bounds.project(pixels, whole.pixels))
    assert (torch.tensor(effect["l2"]) <= bounds.l2).all()
    assert effect["linf"].max() <= 0.02


# Map-moving


@pytest.mark.parametrize("beta", [[10.0, 100.0], [0.5, 0.5]])
def test_moved_maps_keep_class_and_probability_and_go_further_than_noise(balanced, pixels, beta):
    model = balanced
    attack = moved(model, pixels, beta=beta)
    changed = pixels + attack.pixels
    classes, shares = model(pixels).argmax(1), model(pixels).softmax(1)
    for values in (changed, changed.mul(255).round().div(255)):
        now = model(values).softmax(1)
        assert torch.equal(now.argmax(1), classes)
        apart = (now - shares).gather(1, classes[:, None]).abs()
        assert apart.max() <= 0.05
    noise = 0.03 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(4)).sign()
    drift, of_noise = (
        drift_of(model, pixels, values.clamp(0, 1), classes, emptied=1.0)
        for values in (changed, pixels + noise)
    )
    # So smooth a network leads astray; whether an image counts, it does not decide.
    assert drift.mean() > 2 * of_noise.mean() or beta[0] < 1
    assert attack.pixels.abs().max() <= 0.03


def test_maps_come_nearer_to_those_of_another_image(balanced, pixels):
    others = pixels.roll(5, 0)
    classes = balanced(pixels).argmax(1)
    target = cam.all_layers(balanced, others).maps[cam.GRAD_CAM]

    def apart(images):
        maps = cam.all_layers(balanced, images, classes).maps[cam.GRAD_CAM]
        layers = []
        for now, before in zip(maps, target, strict=True):
            cosine = F.cosine_similarity(now.flatten(1), before.flatten(1))
            layers.append(torch.where(before.flatten(1).any(1), 1 - cosine, torch.nan))
        return torch.stack(layers).nanmean(0)

    labels = balanced(pixels).argmax(1)
    settings = MOVING | {"towards": "another", "steps": 30, "step": 0.1}
    change, _ = perturbation.run(
        map_moving.perturb, balanced, balanced, pixels, labels, generators=generators(10),
        settings=settings, others=others, shard=4,
    )  # fmt: skip
    before, after = apart(pixels), apart(pixels + change.pixels)
    assert (after <= before + 1e-6).all()
    assert after.mean() < 0.9 * before.mean()
    assert torch.equal(balanced(pixels + change.pixels).argmax(1), classes)
    with pytest.raises(ValueError, match="wanted `others`"):
        moved(balanced, pixels, towards="another")


def test_an_image_that_cannot_keep_its_probability_stays_as_it_is(model, pixels):
    attack = moved(model, pixels, tolerance=0.0, steps=2)
    assert not attack.pixels.any()


def test_one_layer_can_be_moved_alone(model, pixels):
    classes = model(pixels).argmax(1)
    before = cam.all_layers(model, pixels, classes).maps[cam.GRAD_CAM]
    drifts = []
    for layers in (None, [1]):
        changed = pixels + moved(model, pixels, layers=layers).pixels
        first = cam.all_layers(model, changed, classes).maps[cam.GRAD_CAM][0]
        drifts.append(1 - F.cosine_similarity(first.flatten(1), before[0].flatten(1)).mean())
    assert drifts[1] > drifts[0]


# Map-keeping


@pytest.mark.parametrize("explains", ["own_top1", "seed_class"])
def test_kept_maps_drift_less_than_under_pgd_where_both_change_the_class(
    balanced, pixels, explains
):
    model = balanced
    labels = model(pixels).argmax(1)
    plain = pgd.perturb(
        model, pixels, labels, generators=generators(10), eps=0.03, step=0.006, steps=12,
        random_start=False, early_stop=True,
    )  # fmt: skip
    attack = kept(model, pixels, explains=explains)
    changed = pixels + attack.pixels
    flips = model(changed).argmax(1) != labels
    rounded = model(changed.mul(255).round().div(255)).argmax(1) != labels
    assert torch.equal(flips, rounded)
    theirs = (pixels + plain.pixels).clamp(0, 1)
    both = (flips & (model(theirs).argmax(1) != labels)).numpy()
    assert both.sum() >= 4
    classes = None if explains == "own_top1" else labels
    drift, of_pgd = (drift_of(model, pixels, values, classes)[both] for values in (changed, theirs))
    assert drift.mean() < of_pgd.mean()
    assert (drift <= of_pgd + 1e-6).mean() > 0.7
    assert attack.pixels.abs().max() <= 0.03


def test_the_weight_is_bisected_for_each_image(model, pixels, monkeypatch):
    """The first image changes its class at any weight, the second at none, the third below 5."""
    limit, weights = torch.tensor([math.inf, 0.0, 5.0, 0.0]), []

    def walk(self, watch, objective, judge, *, sign, start):
        one, zero = torch.ones(4), torch.zeros(4)
        logits = F.one_hot(self.labels, 4).float()
        counts = zero.bool()
        weight = objective(logits, zero, logits, counts) - objective(logits, one, logits, counts)
        weights.append(weight.tolist())
        drift = torch.where(weight < limit, 1 / weight, torch.nan)
        change = weight.view(-1, 1, 1, 1).expand_as(start).clone()
        return change, drift, torch.full((4,), 7)

    monkeypatch.setattr(manipulation.Walks, "walk", walk)
    attack = kept(model, pixels[:4])
    first, second, third, _ = np.log10(weights).T
    np.testing.assert_allclose(first, [0, 1, 1.5, 1.75], atol=1e-5)
    np.testing.assert_allclose(second, [0, -1, -1.5, -1.75], atol=1e-5)
    np.testing.assert_allclose(third, [0, 1, 0.5, 0.75], atol=1e-5)
    # The best: the largest weight that changed the class, or the last where none did.
    best = np.log10(attack.pixels[:, 0, 0, 0])
    np.testing.assert_allclose(best[:3], [1.75, -1.75, 0.5], atol=1e-5)
    assert attack.evaluations.tolist() == [30] * 4


def test_a_derivative_that_is_not_finite_names_its_image():
    class Power(nn.Module):
        def forward(self, values):
            return values.abs().pow(1.5)

    network = with_activation(Power())
    with torch.no_grad():  # at 0, its first derivative is 0 and its second infinite
        network[0].weight[0, :, :, :], network[0].bias[0] = 0, 0
        network[0].weight[0, 0, 1, 1] = 1
    pixels = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    pixels[5, 0] = 0.4  # the mean, so that the first channel is 0 there, and nowhere else
    kept(as_model(network), pixels[:5])
    with pytest.raises(SpoiltError, match="not finite, for image 5"):
        kept(as_model(network), pixels)


def test_the_best_of_a_walk_is_the_best_that_counts(balanced, pixels, monkeypatch):
    """Every image that is looked at on the network as it is, is remembered."""
    seen, own = [], manipulation.Watch.drift

    def drift(self, model, batch, beta=None):
        logits, drifts = own(self, model, batch, beta)
        if beta is None:
            rounded = model(batch.mul(255).round().div(255))
            counts = (logits.argmax(1) != self.labels) & (rounded.argmax(1) != self.labels)
            seen.append(torch.where(counts, drifts, torch.inf))
        return logits, drifts

    monkeypatch.setattr(manipulation.Watch, "drift", drift)
    attack = kept(balanced, pixels[:4], bisections=1, explains="seed_class")
    least = torch.stack(seen).amin(0)
    assert len(seen) == 1 + 7  # the start, and the second half of 12 steps with its ends
    assert least.isfinite().any()
    labels = balanced(pixels[:4]).argmax(1)
    reached = drift_of(balanced, pixels[:4], pixels[:4] + attack.pixels, labels)
    there = least.isfinite().numpy()
    np.testing.assert_allclose(reached[there], least.numpy()[there], atol=1e-6)


def smooth_twin(network, beta):
    """The network with softplus in the place of ReLU, and no norm folded."""
    twin = copy.deepcopy(network).eval()
    for place, module in enumerate(twin):
        if isinstance(module, nn.ReLU):
            twin[place] = nn.Softplus(beta, threshold=1e9)
    return twin


def test_a_walk_is_its_slow_twin(pixels):
    """An image at a time, by plain autograd through a network that is written with softplus."""
    network = small_network().double()
    model = as_model(network)
    batch = pixels[:4].double()
    eps, share, steps, weight = 0.05, 0.2, 6, 3.0
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))

    def maps_of(net, image, label):
        values, kept_values = (image - mean) / std, []
        for place, module in enumerate(net):
            values = module(values)
            if place in (2, 5):  # the activations behind the convs
                kept_values.append(values)
        slopes = torch.autograd.grad(values[0, label], kept_values, create_graph=True)
        maps = [
            (slope.mean((2, 3), keepdim=True) * value).sum(1).relu()
            for value, slope in zip(kept_values, slopes, strict=True)
        ]
        return values[0], maps

    labels = model(batch).argmax(1)
    ends = []
    for image, label in zip(batch, labels.tolist(), strict=True):
        plain = smooth_twin(network, 1.0)
        for place in (2, 5):
            plain[place] = nn.ReLU()
        _, before = maps_of(plain, image[None].requires_grad_(), label)
        before = [each.detach() for each in before]
        change = torch.zeros_like(image)
        for step in range(steps):
            beta = 10.0 * 10 ** (step / steps)
            at = (image + change)[None].detach().requires_grad_()
            logits, now = maps_of(smooth_twin(network, beta), at, label)
            cosines = [
                (a * b).sum() / (a.norm() * b.norm()) for a, b in zip(now, before, strict=True)
            ]
            drift = 1 - sum(cosines) / 2
            others = torch.cat([logits[:label], logits[label + 1 :]])
            rising = -(logits[label] - others.max()) - weight * drift
            (gradient,) = torch.autograd.grad(rising, at)
            change = change + share * eps * gradient[0].sign()
            change = change.clamp(-eps, eps)
            change = (image + change).clamp(0, 1) - image
        ends.append(change)

    walks = manipulation.Walks(
        model, batch, labels, 0, Limits(torch.full((4,), eps, dtype=torch.float64)),
        torch.zeros_like(batch), (0, 1), share, steps, [10.0, 100.0],
    )  # fmt: skip
    objective = functools.partial(map_keeping._objective, labels, torch.full((4,), weight))
    change, drift, _ = walks.walk(
        walks.watch(emptied=0.0), objective, lambda logits, rows: logits.argmax(1) > 99, sign=-1,
        start=torch.zeros_like(batch),
    )  # fmt: skip
    assert drift.isnan().all()  # nothing counts, so that the last is returned
    torch.testing.assert_close(change, torch.stack(ends), rtol=2e-5, atol=1e-9)


class Attention(nn.Module):
    """Patches, and attention among them by one fused call."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 8, 3, stride=3)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens)[:, None].chunk(3, -1)
        tokens = tokens + F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.head(F.gelu(tokens).mean(1))


def test_maps_before_fused_attention_are_moved(pixels):
    model = as_model(Attention())
    change = moved(model, pixels, steps=4)
    assert change.pixels.any()


def test_probabilities_of_a_network_that_ends_in_a_softmax_are_its_own():
    logits = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.2, 0.3]])
    torch.testing.assert_close(probabilities(logits), logits.softmax(1))
    torch.testing.assert_close(probabilities(logits.softmax(1)), logits.softmax(1))


def test_settings_are_checked():
    for values, text in (({"beta": [10.0]}, "beta"), ({"layers": []}, "layers"),
                         ({"explains": "none"}, "explains"), ({"steps": 0}, "steps")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            attacks.resolved("map_keeping", {}, KEEPING | values)

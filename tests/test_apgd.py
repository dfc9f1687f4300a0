"""Auto-PGD: its checkpoints and losses on paper, a slow twin, and its limits."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from camdrift.attacks import apgd
from camdrift.perturbations.limits import Limits
from camdrift.settings import SettingsError
from conftest import as_model, small_network
from test_attacks import attacked, generators

# A size at which the class of some images changes, and that of others does not.
OWN = {"eps": 0.012, "steps": 12, "restarts": 1, "rho": 0.75, "loss": "ce"}


@pytest.fixture
def balanced(pixels):
    """A model that takes the images for different classes."""
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= as_model(network)(pixels).mean(0)
    return as_model(network)


def test_checkpoints_on_paper():
    """Of 100 steps: the paper's p is 0, .22, .41, .57, .7, .8, .87, .93, .99 of them."""
    lengths = itertools.islice(apgd.checkpoints(100), 8)
    assert list(itertools.accumulate(lengths)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(itertools.islice(apgd.checkpoints(3), 3)) == [1, 1, 1]


def test_the_ratio_of_logits_on_paper():
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0]])
    labels = torch.tensor([0, 2])
    assert apgd.logits_ratio(logits, labels).tolist() == pytest.approx([-0.5, 1.0])
    larger = apgd.logits_ratio(7 * logits, labels)
    assert larger.tolist() == pytest.approx([-0.5, 1.0])
    with pytest.raises(SettingsError, match="wanted ce for a model of 2 classes"):
        apgd.logits_ratio(logits[:, :2], labels)


def slow_ratio(logits, labels):
    values, own = sorted(logits[0], reverse=True), int(labels[0])
    other = max(value for kind, value in enumerate(logits[0]) if kind != own)
    return -((logits[0, own] - other) / (values[0] - values[2]))[None]


LOSSES = {"ce": lambda *pair: F.cross_entropy(*pair, reduction="none"), "dlr": slow_ratio}


def slow(model, image, label, generator, *, eps, steps, restarts, rho, loss):
    """One image by the letter of algorithm 1, with the public code's start and first step."""
    eps *= 1 - 1e-5

    def look(point):
        point = point.clone().requires_grad_()
        logits = model(point[None])
        value = LOSSES[loss](logits, torch.tensor([label]))[0]
        (gradient,) = torch.autograd.grad(value, point)
        return gradient, float(value.detach()), int(logits.argmax()) != label

    def project(point):
        return torch.max(torch.min(point, image + eps), image - eps).clamp(0, 1)

    draw = torch.from_numpy(generator.uniform(-1, 1, tuple(image.shape))).float()
    x = project(image + eps * draw / draw.abs().max())
    gradient, value, flips = look(x)
    best, best_gradient, most = x, gradient, value
    adversarial = x if flips else None
    size, before, values = 2 * eps, x, []
    lengths = apgd.checkpoints(steps)
    last, length, was_halved, earlier = 0, next(lengths), True, most
    for k in range(steps):
        z = project(x + size * gradient.sign())
        following = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, following
        gradient, value, flips = look(x)
        if flips:
            adversarial = x
        values.append(value)
        if value > most:
            best, best_gradient, most = x, gradient, value
        if k + 1 - last == length:
            rises = sum(values[j] > (values[j - 1] if j else 0.0) for j in range(last, k + 1))
            halves = rises <= rho * length or (not was_halved and most <= earlier)
            if halves:
                size, x, gradient = size / 2, best, best_gradient
            was_halved, earlier, last, length = halves, most, k + 1, next(lengths)
    return (best if adversarial is None else adversarial) - image


@pytest.mark.parametrize("loss", LOSSES)
def test_slow_twin(balanced, pixels, loss):
    labels, own = balanced(pixels).argmax(1), OWN | {"loss": loss}
    result = attacked("apgd", balanced, pixels, labels, **own).pixels
    flips = balanced((pixels + result).clamp(0, 1)).argmax(1) != labels
    assert 0 < flips.sum() < len(pixels)
    single = as_model(balanced._plain, micro_batch=1)
    for i, generator in enumerate(generators(10)):
        expected = slow(single, pixels[i], int(labels[i]), generator, **own)
        # A gradient close to 0 may have either sign.
        assert ((result[i] - expected).abs() < 1e-5).float().mean() > 0.98


def test_it_flips_what_a_coarse_step_of_pgd_does_not(balanced, pixels):
    """PGD's step is as large as its box, so it only ever visits corners; here the step halves."""
    labels = balanced(pixels).argmax(1)
    settings = {"eps": 0.2, "step": 0.4, "steps": 30, "early_stop": False, "random_start": False}
    plain = attacked("pgd", balanced, pixels, labels, **settings)
    auto = attacked("apgd", balanced, pixels, labels, **OWN | {"eps": 0.2, "steps": 30})
    losses = [
        F.cross_entropy(balanced((pixels + each.pixels).clamp(0, 1)), labels, reduction="none")
        for each in (plain, auto)
    ]
    assert losses[1].mean() > losses[0].mean()
    assert (auto.evaluations == 31).all()


@pytest.mark.parametrize("l2", [None, 0.3])
def test_it_stays_within_the_limits_of_each_image(balanced, pixels, l2):
    """An image that may not change does not, and spoils no other."""
    linf = torch.tensor([0.0, *torch.linspace(0.01, 0.05, 9)])
    limits = Limits(linf, None if l2 is None else torch.where(linf > 0, l2, 0.0))
    result = apgd.perturb(
        balanced,
        pixels,
        balanced(pixels).argmax(1),
        generators=generators(10),
        limits=limits,
        **OWN,
    )
    changed = (pixels + result.pixels).clamp(0, 1) - pixels
    assert (changed.abs().flatten(1).amax(1) <= limits.linf).all()
    assert changed.flatten(1).norm(dim=1).max() <= (np.inf if l2 is None else l2)
    assert (result.pixels.abs().flatten(1).amax(1) > 0).tolist() == [False] + 9 * [True]


def test_an_image_that_a_walk_flips_takes_no_further_one(balanced, pixels):
    labels = balanced(pixels).argmax(1)
    more = attacked("apgd", balanced, pixels, labels, **OWN | {"restarts": 3})
    once = attacked("apgd", balanced, pixels, labels, **OWN)
    flips = balanced((pixels + once.pixels).clamp(0, 1)).argmax(1) != labels
    assert 0 < flips.sum() < len(pixels)
    assert torch.equal(more.pixels[flips], once.pixels[flips])
    assert (more.evaluations[flips] == 13).all()
    assert (more.evaluations[~flips] > 13).all()
    losses = [
        F.cross_entropy(balanced((pixels + each.pixels).clamp(0, 1)), labels, reduction="none")
        for each in (once, more)
    ]
    assert (losses[1] >= losses[0])[~flips].all()

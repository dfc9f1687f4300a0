"""The adaptive attack on detectors, on a small random network."""

import numpy as np
import pytest
import torch

from camdrift.detectors import class_mahalanobis, drift, lid, relevance
from camdrift.detectors.families import families
from camdrift.evaluation import adaptive, measuring
from camdrift.features import pooled
from camdrift.features.reference import Reference
from camdrift.models import gradients
from camdrift.models.model import Model
from conftest import as_model, deep_network
from test_detectors import CHANCE, changed

SETTINGS = changed(
    behaviour={"probe": -1, "copies": 3}, noisecam={"layer": 1, "brightness": [0.3, 0.5]}
)
OWNER = {name: family for family in families(SETTINGS) for name in family.readings()}
NAMES = [name for name, family in OWNER.items() if family.has_surrogate]


@pytest.fixture
def model() -> Model:
    return as_model(deep_network())


def reference(model, pixels):
    """The images themselves, of three classes, as training images."""
    layers = [layer.numpy() for layer in pooled.measure(model, pixels)]
    return Reference(layers, np.arange(len(pixels)) % 3)


@pytest.fixture
def objective(model, pixels):
    """The objective of a fitted detector, by its name."""
    known = reference(model, pixels)
    return lambda name, detector: OWNER[name].surrogate(detector, model, known)


@pytest.fixture
def fitted(model, pixels):
    rng = [np.random.default_rng(i) for i in range(20)]
    assert set(OWNER) - set(NAMES) == {CHANCE}
    noisy = pixels + 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(2))
    both = torch.cat([pixels, noisy.clamp(0, 1)])
    known = reference(model, pixels)
    features, _ = measuring.measure_images(model, both, lambda name: rng, families(SETTINGS), known)
    truth = np.repeat([False, True], 10)
    return {name: OWNER[name].readings()[name].fit(features, truth) for name in NAMES}, features


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_has_a_gradient_by_the_pixels(name, fitted, objective, model, pixels):
    detectors, _ = fitted
    batch = pixels[:4].clone().requires_grad_()
    logits, scores = objective(name, detectors[name])(batch)
    torch.testing.assert_close(logits, model(pixels[:4]))
    assert scores.shape == (4,)
    (gradient,) = torch.autograd.grad(scores.sum(), batch)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "name",
    [
        "confidence",
        "energy",
        "squeezing",
        "residual",
        "logistic",
        "mahalanobis",
        "kde",
        "recovery",
        *drift.NAMES,
        *class_mahalanobis.NAMES,
        *lid.NAMES,
        *relevance.NAMES,
    ],
)
def test_where_it_can_the_objective_is_the_detectors_score(name, fitted, objective, model, pixels):
    detectors, features = fitted
    _, scores = objective(name, detectors[name])(pixels[:4].clone().requires_grad_())
    expected = detectors[name].score_samples(features.iloc[:4])
    np.testing.assert_allclose(scores.detach(), expected, rtol=2e-3, atol=1e-4)


def test_behaviours_surrogate_is_the_drift_from_the_cleaned_image(fitted, objective, model, pixels):
    detectors, features = fitted
    score = objective("behaviour_median", detectors["behaviour_median"])
    _, scores = score(pixels[:4].clone().requires_grad_())
    expected = 1 - features["similarity"].iloc[:4]
    np.testing.assert_allclose(scores.detach(), expected, atol=1e-4)


def test_it_flips_within_its_budget_and_looks_more_benign(fitted, objective, model, pixels):
    detectors, _ = fitted
    labels = model(pixels).argmax(1)
    budget = {"eps": 0.5, "step": 0.05, "steps": 20}
    non_adaptive = adaptive.perturb(model, pixels, labels, None, **budget)
    score = objective("energy", detectors["energy"])
    evasive = adaptive.perturb(model, pixels, labels, score, **budget)
    for attacked in (non_adaptive, evasive):
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert (attacked - pixels).abs().max() <= 0.5 + 1e-6
    both = (model(non_adaptive).argmax(1) != labels) & (model(evasive).argmax(1) != labels)
    assert both.any()
    energy = [-model(x)[both].logsumexp(1).mean() for x in (evasive, non_adaptive)]
    assert energy[0] < energy[1]


@pytest.mark.parametrize("name", NAMES)
def test_convs_of_constant_weights_have_the_same_derivatives(
    name, fitted, objective, model, pixels
):
    detectors, _ = fitted

    def gradient():
        score = objective(name, detectors[name])  # one that draws draws the same
        batch = pixels[:4].clone().requires_grad_()
        (by_pixels,) = torch.autograd.grad(score(batch)[1].sum(), batch)
        return by_pixels

    with gradients.ConstantConvs():
        cheap = gradient()
    assert torch.equal(cheap, gradient())


@pytest.mark.parametrize(
    "conv",
    [
        torch.nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1), groups=2),
        torch.nn.Conv2d(4, 6, 3, padding="same"),
        torch.nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_convs_of_constant_weights_may_have_any_shape(conv):
    conv.requires_grad_(False)
    batch = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def derivatives():
        output = conv(batch)
        (first,) = torch.autograd.grad(output.sin().sum(), batch, create_graph=True)
        return output, first, *torch.autograd.grad(first.square().sum(), batch)

    with gradients.ConstantConvs():
        cheap = derivatives()
    assert all(map(torch.equal, cheap, derivatives()))

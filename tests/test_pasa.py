"""PASA: sensitivities by a slow twin, attributions on paper, and a planted shift."""

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift.detectors import pasa
from camdrift.features.images import Images
from conftest import as_model, small_network
from test_attacks import generators

SETTINGS = pasa.Settings(spread=0.15, steps=4)


def slow_attribution(model, image, kind, steps):
    """One step at a time, by the gradient of a single image."""
    total = np.zeros(tuple(image.shape))
    for step in range(steps):
        point = (image * ((step + 0.5) / steps))[None].clone().requires_grad_()
        model(point)[0, kind].backward()
        total += point.grad[0].numpy()
    return image.numpy() * total / steps


def test_sensitivities_twin(model, pixels):
    result = pasa.measure(Images(model, pixels[:3], generators(3)), SETTINGS)
    single = as_model(small_network(), micro_batch=1)
    for i, generator in enumerate(generators(3)):
        image = pixels[i]
        noise = torch.from_numpy(generator.standard_normal((3, 12, 12))).float()
        noisy = (image + 0.15 * (image.max() - image.min()) * noise).clamp(0, 1)
        logits, moved = (single(each[None])[0] for each in (image, noisy))
        kind = int(logits.argmax())
        assert result["pasa_prediction"][i] == pytest.approx(
            sum(abs(float(a) - float(b)) for a, b in zip(logits, moved, strict=True)), rel=1e-4
        )
        own, other = (slow_attribution(single, each, kind, 4) for each in (image, noisy))
        expected = np.abs(own - other).sum()
        assert result["pasa_attribution"][i] == pytest.approx(expected, rel=1e-3)


def test_attributions_add_up_to_the_change_of_the_logit(model, pixels):
    """Completeness (Sundararajan et al. 2017, proposition 1)."""
    classes = torch.zeros(len(pixels), dtype=torch.int64)
    result = pasa.integrated_gradients(model, pixels, classes, steps=200)
    change = (model(pixels) - model(torch.zeros_like(pixels)))[:, 0]
    torch.testing.assert_close(result.flatten(1).sum(1), change, rtol=0.02, atol=2e-3)


def test_noise_that_moves_an_image_more_or_less_than_benign_ones_is_seen():
    rng = np.random.default_rng(0)

    def rows(factor, count=40):
        return pd.DataFrame({
            "pasa_prediction": factor * np.exp(rng.normal(0, 0.1, count)),
            "pasa_attribution": np.exp(rng.normal(0, 0.1, count)),
        })  # fmt: skip

    benign, many, few = rows(1.0), rows(3.0), rows(0.3)
    detector = pasa.Pasa().fit(benign[:20], np.zeros(20, dtype=bool))
    scores = [detector.score_samples(part[20:]) for part in (benign, many, few)]
    for attacked in scores[1:]:
        assert (attacked[:, None] > scores[0]).mean() > 0.9


def test_the_score_is_the_larger_distance_in_median_deviations():
    benign = pd.DataFrame({"pasa_prediction": np.exp([1.0, 2.0, 3.0, 4.0, 5.0]),
                           "pasa_attribution": np.exp([0.0, 0.0, 1.0, 2.0, 2.0])})  # fmt: skip
    detector = pasa.Pasa().fit(benign, np.zeros(5, dtype=bool))
    image = pd.DataFrame({"pasa_prediction": np.exp([6.0, 3.0]),
                          "pasa_attribution": np.exp([1.0, 5.0])})  # fmt: skip
    # Medians 3 and 1, median absolute deviations 1 and 1.
    assert detector.score_samples(image) == pytest.approx([3.0, 4.0])


def test_the_attack_follows_the_attribution_through_a_smoothed_network(pixels):
    """Its gradient is that of finite differences; through ReLU a part of it would be 0."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 8, 3), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(8 * 64, 4),
    )  # fmt: skip
    model = as_model(network)
    classes = torch.zeros(2, dtype=torch.int64)
    batch = pixels[:2].clone().requires_grad_()
    direction = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))

    def length(images):
        return pasa.integrated_gradients(model, images, classes, steps=3, graph=True).square().sum()

    (gradient,) = torch.autograd.grad(length(batch), batch)
    step = 1e-2
    ends = [
        float(length((batch.detach() + sign * step * direction).requires_grad_()).detach())
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.05)

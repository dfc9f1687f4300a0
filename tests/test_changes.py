"""The published loop and its storage, checked against what its code does."""

import numpy as np
import pytest

from camdrift.perturbations import changes, strengths
from camdrift.settings import Protocol

LEVELS = [0.25, 0.5, 1.0, 2.0, 4.0]
CORRECTED = Protocol(
    strengths="exact", quantise="none", noise="matched", similarity="raw", score="logits",
    target="seed_class", threshold="held_out_quantile",
)  # fmt: skip


def protocol(**switches: str) -> Protocol:
    return CORRECTED.model_copy(update=switches)


def published_loop(image, step, noise, levels):
    """The public code of renkhoff2022, line by line."""
    gen_img = image + step
    adversarial, random = [], []
    for level in levels:
        gen_img = gen_img - step
        random.append(gen_img + level * noise)
        gen_img = gen_img + level * step
        adversarial.append(gen_img)
    return adversarial, random


def test_the_published_levels():
    assert strengths.multipliers(LEVELS, applied="accumulating") == [0.25, -0.25, -0.25, 0.75, 3.75]
    assert strengths.offsets(LEVELS) == [0.0, -0.75, -1.25, -1.25, -0.25]
    assert strengths.multipliers(LEVELS, applied="exact") == LEVELS


@pytest.fixture
def attacked():
    """Integer grey levels, two steps of root mean square 0.5 grey levels, a draw of noise."""
    rng, shape = np.random.default_rng(0), (3, 3, 32, 32)
    clean = rng.integers(20, 230, shape).astype(np.float32) / 255
    steps = rng.standard_normal((2, *shape))
    steps *= 0.5 / 255 / np.sqrt(np.square(steps).mean((2, 3, 4), keepdims=True))
    return clean, steps.astype(np.float32), rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_accumulating_loop_is_the_published_loop(attacked, steps):
    clean, parts, draw = attacked
    whole, last = parts[:steps].sum(0), parts[steps - 1]
    last_step = last if steps > 1 else last[:0]
    own = protocol(strengths="accumulating", noise="with_negated_attack")
    noise = changes.like(last, draw)
    adversarial, random = published_loop(clean + whole - last, last, noise, LEVELS)
    multiples, offsets = (
        strengths.multipliers(LEVELS, applied="accumulating"),
        strengths.offsets(LEVELS),
    )
    for i, level in enumerate(LEVELS):
        pixels = changes.attacked(clean, whole, last_step, multiples[i], applied="accumulating")
        np.testing.assert_allclose(pixels, adversarial[i], rtol=0, atol=1e-6)
        scale = np.full(3, level)
        base = changes.noise_base(whole, last_step, draw, protocol=own)
        pixels = changes.noisy(clean, whole, last_step, base, scale, offsets[i], protocol=own)
        np.testing.assert_allclose(pixels, random[i], rtol=0, atol=1e-6)


def test_cutting_off_makes_the_published_levels_alike(attacked):
    clean, parts, _ = attacked
    step = parts[0]
    stored = {}
    for level, multiple in zip(
        LEVELS, strengths.multipliers(LEVELS, applied="accumulating"), strict=True
    ):
        changed = changes.attacked(clean, step, step[:0], multiple, applied="accumulating")
        stored[level] = changes.stored(changed, quantise="floor")
    assert np.array_equal(stored[0.5], stored[1.0])
    assert (stored[0.25] == stored[2.0]).mean() > 0.95
    assert (stored[0.25] == stored[0.5]).mean() < 0.01
    for changed in stored.values():
        assert float((changed - clean).mean() * 255) == pytest.approx(-0.5, abs=0.05)


def test_levels_survive_storage():
    levels = np.tile((np.arange(256, dtype=np.float32) / 255).reshape(16, 16), (1, 3, 1, 1))
    for quantise in ("none", "round", "floor"):
        assert np.array_equal(changes.stored(levels, quantise=quantise), levels)


def test_storage_on_paper():
    pixels = np.tile(np.float32([-1.0, 10.2 / 255, 10.8 / 255, 2.0]), (1, 3, 1, 1))
    for quantise, expected in (("none", [0, 10.2, 10.8, 255]), ("round", [0, 10, 11, 255]),
                               ("floor", [0, 10, 10, 255])):  # fmt: skip
        levels = changes.stored(pixels, quantise=quantise) * 255
        np.testing.assert_allclose(levels, np.tile(expected, (1, 3, 1, 1)), rtol=1e-6)


def test_noise_has_the_mean_and_spread_of_the_perturbation(attacked):
    _, parts, draw = attacked
    whole = parts[0] * np.float32([1, 5, 0]).reshape(3, 1, 1, 1) + np.float32(0.01)
    noise = changes.like(whole, draw)
    for i in range(3):
        values = whole[i].astype(float)
        np.testing.assert_allclose(noise[i], values.mean() + values.std() * draw[i], rtol=1e-5)
    assert np.isclose(noise[2].std(), 0, atol=1e-6)

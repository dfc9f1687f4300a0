import numpy as np
import pytest
import torch

from camdrift import noise


def slow_scale(clean, base, target):
    """Bisection on the size of the clipped noise."""

    def size(factor):
        return float(((clean + factor * base).clamp(0, 1) - clean).norm())

    low, high = 0.0, 1.0
    while size(high) < target and high < 1e6:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    return high


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(6, 3, 8, 8, generator=generator, dtype=torch.float64)
    clean[0] = 0  # black: half of the noise is clipped away
    clean[1] = clean[1].round()  # black and white
    base = torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64) * 0.05
    base[:, 0, 0, 0] = 0
    return clean, base


def test_scale_twin(images):
    clean, base = images
    targets = torch.tensor([[0.01, 0.3, 1.0, 4.0]], dtype=torch.float64).expand(6, -1)
    found = noise.scale_to(clean, base, targets)
    for i in range(6):
        for j in range(4):
            expected = slow_scale(clean[i], base[i], float(targets[i, j]))
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-9)


def test_noise_is_as_large_as_the_attack_after_clipping(images):
    clean, base = (value.float() for value in images)
    change = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.1
    table = noise.matched(clean, change, base, [0.25, 1.0, 4.0], scaling="after_clipping")
    assert np.allclose(table["noise_l2"], table["attack_l2"], rtol=1e-5)
    unclipped = noise.matched(clean, change, base, [0.25, 1.0, 4.0], scaling="unclipped")
    assert (unclipped["scale"] == unclipped["strength"]).all()
    black = unclipped.query("row == 0")
    assert not np.allclose(black["noise_l2"], black["attack_l2"], rtol=0.01)


def test_noise_that_cannot_be_large_enough_is_at_its_largest():
    clean, base = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[1.0, 0.0]]]])
    factor = noise.scale_to(clean, base, torch.tensor([[3.0]]))
    assert float(noise.clipped(clean, float(factor) * base).norm()) == 0.5


@pytest.mark.parametrize(("base", "target"), [(0.0, 1.0), (1.0, 0.0)])
def test_nothing_to_match_gives_nothing(base, target):
    clean = torch.full((1, 3, 2, 2), 0.5)
    factor = noise.scale_to(clean, torch.full_like(clean, base), torch.tensor([[target]]))
    assert float(factor) == 0


def test_draws_have_the_mean_and_spread_of_the_perturbation():
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(2, 3, 64, 64, generator=generator) * 0.1 + 0.03
    change[1] *= 5
    drawn = noise.gaussian(change, [np.random.default_rng(i) for i in range(2)])
    for i in range(2):
        assert float(drawn[i].mean()) == pytest.approx(
            float(change[i].mean()), abs=0.01 * (1 + 4 * i)
        )
        assert float(drawn[i].std()) == pytest.approx(float(change[i].std()), rel=0.03)
    again = noise.gaussian(change[1:], [np.random.default_rng(1)])
    assert torch.equal(drawn[1], again[0])

"""The gradient-free attack on detectors, on scores whose least value is known."""

import numpy as np
import pytest
import torch

from camdrift.evaluation import adaptive, square

EPS = 0.1


def generators(count=3):
    return [np.random.default_rng(seed) for seed in range(count)]


@pytest.fixture
def clean():
    return torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def brightness(pixels):
    """A score without a gradient: the sum in whole hundredths."""
    return pixels.sum((1, 2, 3)).mul(100).round().numpy().astype(float)


def search(clean, start, score, queries=400, count=3):
    return square.perturb(clean, start, score, generators(count), eps=EPS, queries=queries)


def test_it_lowers_a_score_that_has_no_gradient(clean):
    result = search(clean, clean, brightness)
    lowest = brightness((clean - EPS).clamp(0, 1))
    first, last = brightness(clean), brightness(result)
    assert ((first - last) > 0.2 * (first - lowest)).all()
    assert (result - clean).abs().max() <= EPS + 1e-6
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_query_moves_one_square_to_the_edges_unless_that_raises_the_score(clean):
    seen, values, largest = [], [], []

    def score(pixels):
        seen.append(pixels.clone())
        values.append(np.random.default_rng(len(seen)).integers(6, size=len(pixels)).astype(float))
        return values[-1]

    start = (clean + EPS / 3).clamp(0, 1)
    result = search(clean, start, score, queries=30)
    assert len(seen) == 30
    for image in range(3):
        best, lowest = seen[0][image], values[0][image]
        assert torch.equal(best, start[image])
        for query in range(1, 30):
            there = (seen[query][image] != best).any(0)
            rows, columns = (there.any(axis).nonzero().flatten() for axis in (1, 0))
            assert len(rows)  # it moves something
            side = square.side((query - 1) / 29, height=12, width=16)
            spread = 1 + max(np.ptp(rows.numpy()), np.ptp(columns.numpy()))
            assert spread <= side
            largest += [spread] if query == 1 else []
            inside = seen[query][image][:, there]
            edges = [(clean[image] + sign).clamp(0, 1)[:, there] for sign in (-EPS, EPS)]
            assert torch.stack([(inside - e).abs() for e in edges]).amin(0).max() < 1e-6
            if values[query][image] <= lowest:  # ties are kept, or a count would never fall
                best, lowest = seen[query][image], values[query][image]
        assert torch.equal(result[image], best)
    # The first square has 30 % of 12 x 16 px: 58, a side of 8.
    assert largest == [8, 8, 8]


def test_without_a_flip_an_image_stays_until_a_square_flips_it(clean):
    calls = []

    def score(pixels):
        calls.append(pixels)
        return np.array([np.inf, np.inf if len(calls) < 8 else 5.0 - len(calls), np.inf])

    start = (clean + EPS / 2).clamp(0, 1)
    result = search(clean, start, score, queries=9)
    moved = (result != start).flatten(1).any(1)
    assert moved.tolist() == [False, True, False]


def test_an_image_is_attacked_alike_alone_and_among_others(clean):
    together = search(clean, clean, brightness, queries=60)
    alone = search(clean[:1], clean[:1], brightness, queries=60, count=1)
    assert torch.equal(together[:1], alone)


def test_squares_shrink_as_in_the_authors_code():
    # 30 % of 1000 x 1000 px: a side of 548; its area halves after each of nine shares.
    limits = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    for halvings, limit in enumerate(limits):
        sides = [square.side(limit + step, height=1000, width=1000) for step in (0, 1e-6)]
        assert sides == [round(1000 * (0.3 / 2**n) ** 0.5) for n in (halvings, halvings + 1)]
    assert square.side(0, height=1000, width=1000) == 548
    assert square.side(0, height=3, width=4000) == 3  # no longer than the shorter side
    assert square.side(0.99, height=8, width=8) == 1


def test_a_surrogates_values_are_of_all_images_whatever_the_batch(model, pixels):
    def score(batch):
        logits = model(batch)
        return logits, -logits.logsumexp(1)

    values = adaptive.values(model, pixels, score)
    with torch.no_grad():
        expected = -model(pixels).logsumexp(1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)

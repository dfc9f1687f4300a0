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


def brightness(pixels, query):
    """A score without a gradient: the sum in whole hundredths."""
    return pixels.sum((1, 2, 3)).mul(100).round().numpy().astype(float)


def search(clean, start, judge, queries=400, count=3):
    return square.perturb(clean, start, judge, generators(count), eps=EPS, queries=queries)


def test_it_lowers_a_score_that_has_no_gradient(clean):
    result = search(clean, clean, brightness)
    lowest = brightness((clean - EPS).clamp(0, 1), 0)
    first, last = brightness(clean, 0), brightness(result, 0)
    assert ((first - last) > 0.2 * (first - lowest)).all()
    assert (result - clean).abs().max() <= EPS + 1e-6
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_query_moves_one_square_to_the_edges_and_stays_only_if_the_score_is_lower(clean):
    seen, scores = [], []

    def judge(pixels, query):
        assert query == len(seen)
        seen.append(pixels.clone())
        scores.append(np.random.default_rng(query).uniform(size=len(pixels)))
        return scores[-1]

    start = (clean + EPS / 3).clamp(0, 1)
    result = search(clean, start, judge, queries=30)
    assert len(seen) == 30
    for image in range(3):
        best, lowest = seen[0][image], scores[0][image]
        assert torch.equal(best, start[image])
        for query in range(1, 30):
            there = (seen[query][image] != best).any(0)
            rows, columns = (there.any(axis).nonzero().flatten() for axis in (1, 0))
            if len(rows):
                side = square.side(query / 30, height=12, width=16)
                assert max(np.ptp(rows.numpy()), np.ptp(columns.numpy())) < side
                inside = seen[query][image][:, there]
                edges = [(clean[image] + sign).clamp(0, 1)[:, there] for sign in (-EPS, EPS)]
                assert torch.stack([(inside - e).abs() for e in edges]).amin(0).max() < 1e-6
            if scores[query][image] < lowest:
                best, lowest = seen[query][image], scores[query][image]
        assert torch.equal(result[image], best)


def test_without_a_flip_an_image_stays_until_a_square_flips_it(clean):
    def judge(pixels, query):
        return np.array([np.inf, np.inf if query < 7 else 5.0 - query, np.inf])

    start = (clean + EPS / 2).clamp(0, 1)
    result = search(clean, start, judge, queries=9)
    moved = (result != start).flatten(1).any(1)
    assert moved.tolist() == [False, True, False]


def test_an_image_is_attacked_alike_alone_and_among_others(clean):
    together = search(clean, clean, brightness, queries=60)
    alone = search(clean[:1], clean[:1], brightness, queries=60, count=1)
    assert torch.equal(together[:1], alone)


def test_squares_shrink_as_in_the_paper():
    # 5 % of 32 x 32 px is 51, of side 7; then a half, a quarter, an eighth, a sixteenth of it ...
    done = [0, 0.001, 0.002, 0.006, 0.03, 0.06, 0.2, 0.9]
    sides = [square.side(share, height=32, width=32) for share in done]
    assert sides == [7, 7, 5, 4, 3, 2, 1, 1]
    assert square.side(0, height=3, width=4000) == 3  # no longer than the shorter side


def test_a_surrogates_values_are_of_all_images_whatever_the_batch(model, pixels):
    def score(batch):
        logits = model(batch)
        return logits, -logits.logsumexp(1)

    values = adaptive.values(model, pixels, score)
    with torch.no_grad():
        expected = -model(pixels).logsumexp(1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)

"""Two one-sided tests, and the judgement of the largest of several differences by them."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm, t
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from camdrift.analysis import statistics
from camdrift.analysis.equivalence import equivalence
from camdrift.analysis.statistics import Resampler
from camdrift.papers import differences
from camdrift.papers.findings import HOLDS, NOT, UNDECIDED


def normal_draws(values, count=400_000):
    """Draws of a mean whose spread is that of resamples: 1 / n of the variance, not 1 / (n - 1)."""
    spread = np.std(values) / np.sqrt(len(values))
    return np.random.default_rng(0).normal(np.mean(values), spread, count)[:, None]


@pytest.mark.parametrize("count", [6, 12, 40])
@pytest.mark.parametrize("margin", [0.2, 0.4, 0.8])
def test_p_of_a_normal_mean_is_that_of_statsmodels(count, margin):
    first = np.random.default_rng(count).normal(0, 1, count)
    second = first + np.random.default_rng(1).normal(0.1, 0.5, count)
    tests = equivalence(
        normal_draws(second - first), margin=margin, confidence=0.95, clusters=count
    )
    expected = ttost_paired(second, first, -margin, margin)[0]
    assert tests.p[0] == pytest.approx(expected, abs=0.004, rel=0.05)
    interval = t.interval(0.9, count - 1, loc=np.mean(second - first),
                          scale=np.std(second - first, ddof=1) / count**0.5)  # fmt: skip
    assert [tests.low[0], tests.high[0]] == pytest.approx(interval, abs=0.01)


@pytest.mark.parametrize("margin", [0.2, 0.3, 0.5])
def test_verdicts_of_resampled_means_are_those_of_statsmodels(margin):
    """Of 25 pictures of four tiles each: of the pictures' means, paired and as two samples."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, (2, 25, 4)) * 0.3 + rng.normal(0, 0.4, (2, 25, 1))
    sources = np.repeat(np.arange(25), 4)
    resampler = Resampler.draw(sources, resamples=20_000, rng=np.random.default_rng(0))
    draws = resampler.means((second - first).reshape(-1, 1))
    tests = equivalence(draws, margin=margin, confidence=0.95, clusters=25)
    expected = ttost_paired(second.mean(1), first.mean(1), -margin, margin)[0]
    assert tests.p[0] == pytest.approx(expected, abs=0.006, rel=0.15)
    apart = draws[:, 0] * 0
    for sign, arm in ((1, second), (-1, first)):
        own = Resampler.draw(sources, resamples=20_000, rng=np.random.default_rng(sign + 5))
        apart += sign * own.means(arm.reshape(-1, 1))[:, 0]
    tests = equivalence(apart[:, None], margin=margin, confidence=0.95, clusters=np.inf)
    expected = ttost_ind(second.mean(1), first.mean(1), -margin, margin)[0]
    assert tests.p[0] == pytest.approx(expected, abs=0.015, rel=0.2)


def test_equivalence_twin():
    draws = np.random.default_rng(2).normal([0.0, 0.05, -0.02], 0.04, (500, 3))
    draws[7, 1] = np.nan
    for clusters in (8, np.inf):
        tests = equivalence(draws, margin=0.1, confidence=0.95, clusters=clusters)
        for column in range(3):
            shares = []
            for sign in (1, -1):
                beyond = 0
                for draw in draws[:, column]:
                    beyond += not sign * draw < 0.1
                shares.append((1 + beyond) / 501)
            p = max(shares)
            if clusters == 8:
                p = t.cdf(norm.ppf(p) / np.sqrt(8 / 7), 7)
            assert tests.p[column] == pytest.approx(p)


def test_equivalence_at_a_level_is_the_interval_within_the_margin():
    rng = np.random.default_rng(4)
    draws = rng.normal(rng.uniform(-0.1, 0.1, 60), 0.03, (20_000, 60))
    for confidence, clusters in itertools.product((0.9, 0.95, 0.99), (5, 30, np.inf)):
        tests = equivalence(draws, margin=0.1, confidence=confidence, clusters=clusters)
        within = (tests.low > -0.1) & (tests.high < 0.1)
        clear = np.abs(tests.p / (1 - confidence) - 1) > 0.01
        assert clear.sum() > 50
        assert (within == (tests.p < 1 - confidence))[clear].all()
        low, high = statistics.interval(draws, confidence=confidence, clusters=clusters)
        assert ((low < tests.low) & (tests.high < high)).all()


def test_unknown_draws_have_no_p():
    tests = equivalence(np.full((50, 1), np.nan), margin=1, confidence=0.95, clusters=1)
    assert np.isnan([tests.p[0], tests.low[0], tests.high[0]]).all()


def judged(means, *, limit=0.1, spread=0.02, count=30):
    rng = np.random.default_rng(5)
    values = np.array(means) + spread * rng.normal(size=(count, len(means)))
    values += means - values.mean(0)
    resampler = Resampler.draw(np.arange(count), resamples=2000, rng=rng)
    return differences.judge(
        values.mean(0), resampler.means(values), limit=limit, confidence=0.95, clusters=count
    )


@pytest.mark.parametrize(
    ("means", "spread", "verdict", "by_tests"),
    [
        ([0.01, -0.05], 0.02, HOLDS, HOLDS),
        ([0.01, -0.2], 0.02, NOT, NOT),
        ([0.01, -0.11], 0.1, UNDECIDED, UNDECIDED),
        # Of t with 29 degrees the quantiles are 1.70 and 2.05: 1.9 errors from the limit.
        ([0.0, 0.1 - 1.9 * 0.1 / 30**0.5], 0.1, UNDECIDED, HOLDS),
    ],
)
def test_the_largest_difference_by_both_rules(means, spread, verdict, by_tests):
    result = judged(means, spread=spread)
    assert (result.verdict, result.verdict_by_tests) == (verdict, by_tests)
    assert result.most == int(np.abs(means).argmax())
    assert result.values == pytest.approx(np.abs(means))
    assert result.beyond == (verdict == NOT)
    assert result.text.startswith("by two one-sided tests, seen: largest p ")
    assert result.text.endswith(f"would be '{by_tests}'")


def test_the_sign_of_a_difference_does_not_matter():
    first, second = judged([0.03, -0.08]), judged([-0.03, 0.08])
    assert first.values == pytest.approx(second.values)
    assert (first.low < first.values).all()
    assert (first.values < first.high).all()
    assert (first.high > 0).all()

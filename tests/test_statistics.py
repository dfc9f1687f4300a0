import numpy as np
import pandas as pd
import pytest

from camdrift import statistics


def bootstrap(values, clusters, resamples=2000):
    return statistics.bootstrap(
        np.asarray(values, dtype=float), np.asarray(clusters), resamples=resamples,
        confidence=0.95, rng=np.random.default_rng(0),
    )  # fmt: skip


def test_bootstrap_twin():
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(1, 1, (30, 2)), np.repeat(list("abcde"), 6)
    values[3, 1] = np.nan
    found = bootstrap(values, clusters, resamples=300)
    draws = np.random.default_rng(0).multinomial(5, [0.2] * 5, size=300)
    for column in range(2):
        means = []
        for draw in draws:
            drawn = [
                value
                for name, times in zip("abcde", draw, strict=True)
                for value in list(values[clusters == name, column]) * times
                if not np.isnan(value)
            ]
            means.append(np.mean(drawn))
        assert found.low[column] == pytest.approx(np.quantile(means, 0.025))
        assert found.high[column] == pytest.approx(np.quantile(means, 0.975))
        assert found.mean[column] == pytest.approx(np.nanmean(values[:, column]))
        assert found.p[column] == pytest.approx((1 + np.sum(np.array(means) <= 0)) / 301)
    assert found.n.tolist() == [30, 29]


def test_an_interval_by_cluster_is_wider_than_by_image():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=10), 20)[:, None] + rng.normal(0, 0.1, (200, 1))
    by_image = bootstrap(values, np.arange(200))
    by_cluster = bootstrap(values, np.repeat(np.arange(10), 20))
    assert by_cluster.high - by_cluster.low > 3 * (by_image.high - by_image.low)


def test_one_cluster_has_no_interval():
    found = bootstrap([[1.0], [2.0]], ["a", "a"])
    assert found.mean[0] == 1.5
    assert np.isnan([found.low[0], found.high[0], found.p[0]]).all()


def test_holm_on_paper():
    # Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, then made to rise.
    found = statistics.holm(np.array([0.04, 0.01, np.nan, 0.03, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, np.nan, 0.06, 0.06])


def test_compromised_on_paper():
    def rows(variant, draw, values):
        return pd.DataFrame(
            {"image": range(len(values)), "variant": variant, "strength": 1.0, "draw": draw,
             "layer": "1-1", "value": values}
        )  # fmt: skip

    similarity = pd.concat(
        [
            rows("noise", 0, [0.9, 0.8, 0.7, np.nan]),  # median 0.8
            rows("noise", 1, [0.85, 0.79, 0.7, 0.95]),
            rows("adversarial", 0, [0.8, 0.1, np.nan, 0.79]),
        ]
    )
    found = statistics.compromised(similarity)
    attack, noise = (found[found["arm"] == arm] for arm in ("attack", "noise"))
    assert attack["compromised"].tolist() == [False, True, True]  # strictly below
    assert noise["compromised"].tolist() == [False, True, True, False]

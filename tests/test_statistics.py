import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm, sem, spearmanr, t
from sklearn.metrics import roc_auc_score

from camdrift.analysis import statistics


def bootstrap(values, clusters, resamples=2000):
    rng = np.random.default_rng(0)
    resampler = statistics.Resampler.draw(np.asarray(clusters), resamples=resamples, rng=rng)
    return resampler.estimate(np.asarray(values, dtype=float), confidence=0.95)


def test_bootstrap_twin():
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(1, 1, (30, 2)), np.repeat(list("abcde"), 6)
    values[3, 1] = np.nan
    estimate = bootstrap(values, clusters, resamples=300)
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
        # Of five clusters: where a normal mean's t interval ends, in standard errors of the draws.
        tail = norm.cdf(t.ppf(0.025, 4) * np.sqrt(5 / 4))
        assert estimate.low[column] == pytest.approx(np.quantile(means, tail))
        assert estimate.high[column] == pytest.approx(np.quantile(means, 1 - tail))
        assert estimate.mean[column] == pytest.approx(np.nanmean(values[:, column]))
        assert estimate.p[column] == pytest.approx((1 + np.sum(np.array(means) <= 0)) / 301)
    assert estimate.n.tolist() == [30, 29]


def test_an_interval_of_few_clusters_is_the_t_interval_of_a_normal_mean():
    values = np.random.default_rng(3).normal(0.3, 1, 12)
    spread = values.std()  # of a draw's mean, times the root of 12
    draws = np.random.default_rng(4).normal(values.mean(), spread / 12**0.5, 400_000)[:, None]
    low, high = statistics.interval(draws, confidence=0.95, clusters=12)
    expected = t.interval(0.95, 11, loc=values.mean(), scale=sem(values))
    assert [low[0], high[0]] == pytest.approx(expected, abs=0.02)
    plain = statistics.interval(draws, confidence=0.95, clusters=np.inf)
    assert plain[0][0] == pytest.approx(np.quantile(draws, 0.025))
    assert low[0] < plain[0][0] < plain[1][0] < high[0]


def test_intervals_of_few_clusters_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(5)
    held = {10: 0, np.inf: 0}
    for _ in range(1000):
        clusters = rng.normal(size=10)
        draws = clusters[rng.integers(0, 10, (400, 10))].mean(1)[:, None]
        for count in held:
            low, high = statistics.interval(draws, confidence=0.95, clusters=count)
            held[count] += low[0] < 0 < high[0]
    assert held[np.inf] < 920 < held[10] < 970


def test_an_interval_by_cluster_is_wider_than_by_image():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=10), 20)[:, None] + rng.normal(0, 0.1, (200, 1))
    by_image = bootstrap(values, np.arange(200))
    by_cluster = bootstrap(values, np.repeat(np.arange(10), 20))
    assert by_cluster.high - by_cluster.low > 3 * (by_image.high - by_image.low)


def test_one_cluster_has_no_interval():
    estimate = bootstrap([[1.0], [2.0]], ["a", "a"])
    assert estimate.mean[0] == 1.5
    assert np.isnan([estimate.low[0], estimate.high[0], estimate.p[0]]).all()


@pytest.mark.parametrize("comparisons", [1, 13, 39, 55, 159, 400])
def test_resamples_are_enough_for_holm(comparisons):
    count = statistics.required_resamples(2000, comparisons=comparisons, confidence=0.95)
    assert count >= 2000
    best = np.full(comparisons, 1 / (count + 1))
    assert (statistics.holm(best) < 0.05).all()
    assert statistics.out_of_reach(comparisons, resamples=count, confidence=0.95) == ""
    one_beyond = np.full(comparisons, 2 / (count + 1))
    assert (statistics.holm(one_beyond) < 0.05).all()


def test_what_holm_cannot_reach_is_said():
    count = statistics.required_resamples(2000, comparisons=5000, confidence=0.95)
    assert count == statistics.MOST_RESAMPLES
    assert (statistics.holm(np.full(5000, 1 / (count + 1))) >= 0.05).all()
    said = statistics.out_of_reach(5000, resamples=count, confidence=0.95)
    assert said.startswith("out of reach: after Holm over 5000 comparisons")
    # 159 comparisons are within reach from 159 / 0.05 = 3,180 draws on, the data's among them.
    assert statistics.out_of_reach(159, resamples=3170, confidence=0.95)
    assert not statistics.out_of_reach(159, resamples=3180, confidence=0.95)


def test_holm_on_paper():
    # Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, then made to rise.
    adjusted = statistics.holm(np.array([0.04, 0.01, np.nan, 0.03, 0.02]))
    np.testing.assert_allclose(adjusted, [0.06, 0.04, np.nan, 0.06, 0.06])


def test_means_of_rows_leave_gaps_out_and_a_row_of_gaps_has_none():
    values = np.random.default_rng(0).random((6, 4))
    values[1, 2] = values[2, :3] = values[3] = np.nan
    expected = []
    for row in values:
        known = [value for value in row if value == value]
        expected.append([sum(known) / len(known) if known else np.nan])
    np.testing.assert_allclose(statistics.row_means(values), expected, rtol=1e-12)


def test_an_interval_is_the_same_beside_a_column_with_gaps():
    draws = np.random.default_rng(0).random((200, 2))
    both = statistics.interval(draws, confidence=0.9, clusters=10)
    draws[0, 1] = np.nan
    one = statistics.interval(draws, confidence=0.9, clusters=10)
    assert [bound[0] for bound in one] == [bound[0] for bound in both]
    rest = statistics.interval(draws[1:, 1:], confidence=0.9, clusters=10)
    assert [bound[1] for bound in one] == [bound[0] for bound in rest]


def test_no_cluster_has_no_mean():
    estimate = bootstrap(np.empty((0, 2)), [])
    assert np.isnan([estimate.mean, estimate.low, estimate.high, estimate.p]).all()
    assert estimate.n.tolist() == [0, 0]


def rows(variant, draw, values, *, layer="1-1", folds=None):
    size = len(values)
    return pd.DataFrame(
        {"image": range(size), "variant": variant, "strength": 1.0, "draw": draw, "layer": layer,
         "fold": folds or [0] * size, "success": True, "value": values}
    )  # fmt: skip


def compromised(table, rule, quantile=0.5):
    judgements = statistics.compromised(table, rule=rule, quantile=quantile)
    return {arm: part["compromised"].tolist() for arm, part in judgements.groupby("arm")}


SIMILARITY = pd.concat(
    [
        rows("noise", 0, [0.9, 0.8, 0.7, np.nan]),  # median and mean 0.8
        rows("noise", 1, [0.85, 0.79, 0.7, 0.95]),
        rows("adversarial", 0, [0.8, 0.1, np.nan, 0.79]),
    ]
)


def test_the_papers_rule_on_paper():
    flags = compromised(SIMILARITY, "layer_median")
    assert flags["attack"] == [False, True, True]  # strictly below
    assert flags["noise"] == [False, True, True, False]


def test_the_papers_threshold_is_that_of_the_flipped_images_noise():
    table = SIMILARITY.assign(success=SIMILARITY["image"].isin([1, 2]))  # noise 0.8, 0.7
    judgements = statistics.compromised(table, rule="layer_median", quantile=0.5)
    noise = judgements[judgements["arm"] == "noise"].set_index("image")["compromised"]
    assert noise.to_dict() == {0: False, 1: False, 2: True, 3: False}  # below 0.75


def test_the_public_codes_rule_has_one_threshold_for_all_layers():
    other = SIMILARITY.assign(layer="1-2", value=SIMILARITY["value"] - 0.6)  # mean 0.2
    judgements = statistics.compromised(
        pd.concat([SIMILARITY, other]), rule="global_mean", quantile=0.5
    )
    attack = judgements[judgements["arm"] == "attack"]  # below (0.8 + 0.2) / 2
    by_layer = attack.groupby("layer")["compromised"].agg(list).to_dict()
    assert by_layer == {"1-1": [False, True, False], "1-2": [True, True, True]}


def test_a_held_out_threshold_is_that_of_the_other_fold():
    folds = [0, 0, 1, 1]
    table = pd.concat(
        [
            rows("noise", 0, [0.9, 0.8, 0.5, 0.4], folds=folds),  # medians 0.85 and 0.45
            rows("noise", 1, [0.9, 0.8, 0.5, 0.4], folds=folds),
            rows("adversarial", 0, [0.5, 0.4, 0.8, 0.9], folds=folds),
        ]
    )
    flags = compromised(table, "held_out_quantile")
    assert flags["attack"] == [False, True, True, False]
    assert flags["noise"] == [False, False, True, True]


def test_a_held_out_quantile_calls_its_share_of_noise_compromised():
    rng = np.random.default_rng(0)
    folds = [i % 2 for i in range(4000)]
    table = pd.concat([rows("noise", k, rng.random(4000), folds=folds) for k in (0, 1)])
    judgements = statistics.compromised(table, rule="held_out_quantile", quantile=0.05)
    assert judgements["compromised"].mean() == pytest.approx(0.05, abs=0.01)


def test_folds_keep_a_source_together():
    sources = pd.Series(list("aabbccddee"))
    numbers = statistics.folds(sources, count=2, rng=np.random.default_rng(0))
    assert numbers.groupby(sources).nunique().max() == 1
    assert sorted(numbers.value_counts()) == [4, 6]


def test_the_published_list_is_five_times_the_same():
    curves = {level: np.full(20, level) for level in (0.25, 0.5, 1.0, 2.0, 4.0)}
    lists = statistics.shared_list(curves)
    assert set(lists) == set(curves)
    for stored in lists.values():
        assert len(stored) == 100
        assert (stored == lists[1.0]).all()
    assert (lists[1.0][:20] == 0.25).all()  # what figure 2a draws as the noise at 100 %


def test_coverage_curve_twin():
    covered = np.random.default_rng(0).random((5, 7)) < 0.3
    covered[:, 0] = False
    curves = [
        np.logical_or.accumulate(covered[list(order)], axis=0).mean(1)
        for order in itertools.permutations(range(5))
    ]
    np.testing.assert_allclose(statistics.coverage_curve(covered), np.mean(curves, axis=0))


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=30)
    without = np.array([np.delete(values, i).mean() for i in range(30)])
    low, high = statistics.jackknife(without, values.mean(), confidence=0.95)
    error = values.std(ddof=1) / 30**0.5
    assert values.mean() - low == pytest.approx(1.96 * error, abs=1e-4)
    assert high - values.mean() == pytest.approx(1.96 * error, abs=1e-4)
    assert np.isnan(statistics.jackknife(without[:1], 0.0, confidence=0.95)).all()


def test_spearman_is_scipys_on_each_resample():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 30), rng.normal(size=30).round(1)  # with ties
    weights = rng.multinomial(30, np.full(30, 1 / 30), size=6)
    correlation = statistics.spearman(x, y, weights=weights)
    for one, drawn in zip(correlation, weights, strict=True):
        rows = np.repeat(np.arange(30), drawn)
        assert one == pytest.approx(spearmanr(x[rows], y[rows]).statistic)
    assert np.isnan(statistics.spearman(np.ones(30), y, weights=weights)).all()


def test_auroc_is_scikit_learns_on_each_resample():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40), rng.random(40) < 0.4  # with ties
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=5)
    area = statistics.auroc(scores, positive, weights=weights)
    for one, drawn in zip(area, weights, strict=True):
        assert one == pytest.approx(roc_auc_score(positive, scores, sample_weight=drawn))
    assert np.isnan(statistics.auroc(scores, np.ones(40, bool), weights=weights)).all()


def test_the_far_end_of_all_or_none_is_a_binomials():
    low, high = statistics.far_ends(0, 12, confidence=0.95)
    assert (low, high) == (0, pytest.approx(binomtest(0, 12).proportion_ci(0.95).high))
    low, high = statistics.far_ends(1, 12, confidence=0.9)
    assert (low, high) == (pytest.approx(binomtest(12, 12).proportion_ci(0.9).low), 1)

"""Every detector through one contract, and each rule on paper."""

import numpy as np
import pandas as pd
import pytest

from camdrift.detectors import rules
from camdrift.detectors.names import PROFILE, READINGS


def table(count: int, *, attacked: bool, seed: int = 0) -> pd.DataFrame:
    """Made-up features; every one of the attacked images lies to the attacked side."""
    rng = np.random.default_rng([seed, attacked])
    side = 1.0 if attacked else 0.0

    def near(value: float) -> np.ndarray:
        return value + 0.1 * rng.random(count)

    columns = {
        "probability": near(0.9 - 0.4 * side), "energy": near(-9 + 4 * side),
        "squeezing": near(side), "residual": near(1 + side), "chance": rng.random(count),
        "similarity": near(0.8 - 0.6 * side), "copies_median": near(0.75),
        "copies_quantile": near(0.5), "copies_mean": near(0.75), "copies_std": near(0.1),
    }  # fmt: skip
    for reading in READINGS:
        for place in range(3):  # only the middle threshold tells them apart
            columns[f"clusters_{reading}_{place}"] = np.full(count, 6 * side if place == 1 else 9.0)
    for name in PROFILE:
        columns |= {f"{name}_{layer}": near(side) for layer in range(2)}
    return pd.DataFrame(columns)


CALIBRATING = pd.concat([table(40, attacked=False), table(40, attacked=True)], ignore_index=True)
TRUTH = np.repeat([False, True], 40)


@pytest.mark.parametrize("name", rules.NAMES)
def test_contract(name):
    detector = rules.make(name, thresholds=3, clusters=3)
    assert detector.fit(CALIBRATING, TRUTH) is detector
    benign, attacked = table(30, attacked=False, seed=1), table(30, attacked=True, seed=1)
    scores = [detector.score_samples(rows) for rows in (benign, attacked)]
    assert all(part.shape == (30,) and np.isfinite(part).all() for part in scores)
    called = [detector.predict(rows) for rows in (benign, attacked)]
    assert all(part.dtype == bool for part in called)
    if name != rules.CHANCE:
        assert scores[1].min() > scores[0].max()
        assert called[1].all()
        assert called[0].mean() <= 0.35
    again = rules.make(name, thresholds=3, clusters=3).fit(CALIBRATING, TRUTH)
    np.testing.assert_array_equal(again.score_samples(benign), scores[0])


@pytest.mark.parametrize("name", rules.NAMES)
def test_calibrating_images_of_one_kind_are_refused_or_enough(name):
    detector = rules.make(name, thresholds=3, clusters=3)
    with pytest.raises(rules.UnfitError, match="no benign image"):
        detector.fit(CALIBRATING[TRUTH], TRUTH[TRUTH])
    if name.startswith("noisecam") or name == "logistic":
        with pytest.raises(rules.UnfitError, match="no adversarial image"):
            detector.fit(CALIBRATING[~TRUTH], TRUTH[~TRUTH])
    else:
        detector.fit(CALIBRATING[~TRUTH], TRUTH[~TRUTH])


def test_behaviours_rules_on_paper():
    rows = pd.DataFrame({
        "similarity": [0.70, 0.40, 0.10], "copies_median": 0.8, "copies_quantile": 0.5,
        "copies_mean": 0.8, "copies_std": 0.3,
    })  # fmt: skip
    expected = {"median": [True, True, True], "quantile": [False, True, True],
                "deviations": [False, False, True]}  # fmt: skip
    for rule, called in expected.items():
        detector = rules.BehaviourDeviation(rule)
        assert detector.predict(rows).tolist() == called
    assert rules.BehaviourDeviation().score_samples(rows) == pytest.approx([0.1, 0.4, 0.7])


def test_noise_cam_takes_the_threshold_that_is_right_most_often_and_calls_four_clusters():
    detector = rules.NoiseCam("code_logits", thresholds=3).fit(CALIBRATING, TRUTH)
    assert detector.place_ == 1
    rows = pd.DataFrame({"clusters_code_logits_1": [0, 3, 4]})
    assert detector.predict(rows).tolist() == [False, False, True]


def test_a_chosen_threshold_lets_one_in_twenty_benign_images_pass():
    benign = pd.DataFrame({"energy": np.arange(100.0)})
    detector = rules.Single("energy").fit(benign, np.zeros(100, dtype=bool))
    assert detector.predict(benign).sum() == 4

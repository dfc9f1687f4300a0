"""The contract of all detectors, and each rule on small examples."""

import numpy as np
import pandas as pd
import pytest
from dvc.utils.serialize import load_yaml

from camdrift.detectors import behaviour, chance, noisecam
from camdrift.detectors.detector import Single, UnfitError
from camdrift.detectors.families import check, families, with_layer
from camdrift.settings import DetectionSettings, SettingsError, params
from conftest import ROOT

OWN = params.load(ROOT / "params.yaml").detection
# With the detectors that the default study leaves out.
MORE = load_yaml(ROOT / "tests" / "tiny.yaml")["detection"]["detectors"]
SETTINGS = OWN.model_copy(update={"detectors": MORE | OWN.detectors})


def changed(**settings: dict) -> DetectionSettings:
    """The detection of params.yaml with some settings of its detectors changed, by detector."""
    detectors = {name: of | settings.get(name, {}) for name, of in SETTINGS.detectors.items()}
    return SETTINGS.model_copy(update={"detectors": detectors})


def fresh() -> dict:
    """All detectors by name; NoiseCAM has three brightnesses."""
    detection = changed(noisecam={"brightness": [0.2, 0.4, 0.6]})
    return {
        name: each for family in families(detection) for name, each in family.readings().items()
    }


NAMES = list(fresh())
CHANCE = next(iter(chance.readings(chance.Settings())))
JOINT = ("drift", "class_mahalanobis", "lid", "relevance")
WITH_RULE = {*behaviour.NAMES, *noisecam.NAMES}


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
    for reading in noisecam.READINGS:
        for place in range(3):  # only the middle threshold tells them apart
            columns[f"clusters_{reading}_{place}"] = np.full(count, 6 * side if place == 1 else 9.0)
    columns |= {f"profile_{name}_{layer}": near(side) for name in "abc" for layer in range(2)}
    for name in JOINT:
        columns |= {f"{name}_{layer}": near(side) for layer in range(2)}
    columns |= {
        "kde": near(side),
        "recovery_test": near(side),
        "pasa_prediction": near(1 + side),
        "pasa_attribution": near(1),
    }
    return pd.DataFrame(columns)


CALIBRATING = pd.concat([table(40, attacked=False), table(40, attacked=True)], ignore_index=True)
TRUTH = np.repeat([False, True], 40)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    detector = fresh()[name]
    assert detector.fit(CALIBRATING, TRUTH) is detector
    benign, attacked = table(30, attacked=False, seed=1), table(30, attacked=True, seed=1)
    scores = [detector.score_samples(rows) for rows in (benign, attacked)]
    assert all(part.shape == (30,) and np.isfinite(part).all() for part in scores)
    alarms = [detector.predict(rows) for rows in (benign, attacked)]
    assert all(part.dtype == bool for part in alarms)
    if name != CHANCE:
        assert scores[1].min() > scores[0].max()
        assert alarms[1].all()
        assert alarms[0].mean() <= 0.35
    again = fresh()[name].fit(CALIBRATING, TRUTH)
    np.testing.assert_array_equal(again.score_samples(benign), scores[0])


@pytest.mark.parametrize("name", NAMES)
def test_calibrating_images_of_one_kind_are_refused_or_enough(name):
    detector = fresh()[name]
    with pytest.raises(UnfitError, match="no benign image"):
        detector.fit(CALIBRATING[TRUTH], TRUTH[TRUTH])
    if fresh()[name].trained_on == "attacked":
        with pytest.raises(UnfitError, match="no adversarial image"):
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
    for rule, alarms in expected.items():
        detector = behaviour.BehaviourDeviation(rule)
        assert detector.predict(rows).tolist() == alarms
    assert behaviour.BehaviourDeviation().score_samples(rows) == pytest.approx([0.1, 0.4, 0.7])


def test_noise_cam_takes_the_threshold_that_is_right_most_often_and_calls_four_clusters():
    detector = noisecam.NoiseCam("code_logits", thresholds=3).fit(CALIBRATING, TRUTH)
    assert detector.place_ == 1
    rows = pd.DataFrame({"clusters_code_logits_1": [0, 3, 4]})
    assert detector.predict(rows).tolist() == [False, False, True]


def test_a_chosen_threshold_lets_one_in_twenty_benign_images_pass():
    benign = pd.DataFrame({"energy": np.arange(100.0)})
    detector = Single("energy").fit(benign, np.zeros(100, dtype=bool))
    assert detector.predict(benign).sum() == 4


def test_which_have_a_rule_of_their_own():
    assert {name for name, detector in fresh().items() if detector.own_rule} == WITH_RULE


def test_names_without_a_file_and_wrong_settings_are_told_all_at_once():
    faults = check({"energie": {}, "squeezing": {"bits": 9, "window": 2}, "chance": {"seed": 1}})
    assert [fault.removeprefix("detection.detectors.") for fault in faults] == [
        "energie: no detector 'energie'; there are: behaviour, chance, class_mahalanobis, "
        "confidence, drift, energy, kde, lid, logistic, mahalanobis, noisecam, pasa, recovery, "
        "relevance, residual, squeezing",
        "squeezing.bits: wanted a number of at most 8, got 9",
        "squeezing.window: wanted an odd number of px, got 2",
        "chance: no key 'seed'; there are: none",
    ]
    with pytest.raises(SettingsError, match="energie: no detector"):
        families(SETTINGS.model_copy(update={"detectors": {"energie": {}}}))


def test_layers_that_a_model_has_not_become_its_last():
    by_place = changed(behaviour={"probe": -3})
    layers = {family.name: family.within(2).layers for family in families(by_place)}
    assert layers["behaviour"] == {"probe": -2}
    assert layers["noisecam"] == {"layer": 2}


def test_the_most_sensitive_layer_is_a_number_only_once_it_is_chosen():
    sensitive = changed(behaviour={"probe": "sensitive"})
    first = next(family for family in families(sensitive) if family.name == "behaviour")
    assert first.layers == {}
    second = next(f for f in families(with_layer(sensitive, 7)) if f.name == "behaviour")
    assert second.layers == {"probe": 7}
    placed = with_layer(changed(behaviour={"probe": -3}), 7)
    assert placed.detectors["behaviour"]["probe"] == -3


def test_detectors_say_what_they_are_trained_on():
    sources = {name: detector.trained_on for name, detector in fresh().items()}
    assert {n for n, kind in sources.items() if kind == "attacked"} == {
        "logistic", *(f"{name}_logistic" for name in JOINT), *noisecam.NAMES
    }  # fmt: skip
    assert {n for n, kind in sources.items() if kind == "benign"} == {
        "mahalanobis", "pasa", "kde", "recovery", *JOINT
    }  # fmt: skip

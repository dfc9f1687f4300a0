"""Tables and verdicts of transferred attacks, on networks whose answers are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, t, ttest_1samp
from torch.nn.functional import cross_entropy

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.models import loading
from camdrift.papers.chakraborty2022 import (
    comparison,
    equivalence,
    figures,
    flags,
    floor,
    panels,
    readings,
    report,
    tables,
    verdicts,
)
from camdrift.papers.chakraborty2022.comparison import PLAIN, PREPROCESSED, Comparison, Tried
from camdrift.papers.chakraborty2022.reading import Reading
from camdrift.papers.findings import HOLDS, NOT, NOT_RUN, PARTLY, UNDECIDED
from camdrift.pipeline import run
from camdrift.settings import SettingsError, Target, TransferStudy, params
from camdrift.storage import Transferred
from camdrift.storage.pixels import from_8bit
from conftest import ROOT, inside, script

SETTINGS = params.load(ROOT / "params.yaml")
EPS = [0.01, 0.1]
PLAN = TransferStudy(
    paper="chakraborty2022", title="", transferred="ResNet50", label="given", eps=EPS,
    ranges=["unit"], explains="given", examples=1,
)  # fmt: skip
N = 40
CONTROLS = ["own, noise", "own, negated", "transferred, negated"]


def folders(study):
    return lambda end: storage.end_folder(study, "transferred", end)


FAMILIES = {"VGG16": "deep", "ResNet50": "deep", "ResNet101": "deep", "InceptionV3": "wide",
            "Xception": "wide"}  # fmt: skip


def transferred(
    *, lost, shift, noise_lost=0.0, clean_wrong=0, spread=0.01, seed=0, size=64, eps_of=EPS,
    unrelated=0.5,
):  # fmt: skip
    """What an attack did: `lost` of the images at each eps, maps shifted by `shift` at each."""
    rng = np.random.default_rng(seed)
    names = [f"image {i:02d}" for i in range(N)]
    images = pd.DataFrame({"image": np.arange(N), "id": names, "source": names,
                           "label": np.arange(N) % 2, "class_name": np.arange(N) % 2})  # fmt: skip
    label = images["label"].to_numpy()

    def predicted(share):
        wrong = np.arange(N) < clean_wrong + round(share * N)
        return np.where(wrong, 1 - label, label)

    rows = [("own", 0.0, predicted(0))]
    for k, eps in enumerate(eps_of):
        shares = {"own": lost[k], "transferred": lost[k], "noise": noise_lost, "from X": 0.5}
        rows += [(kind, eps, predicted(share)) for kind, share in shares.items()]
    rows += [(kind, eps_of[-1], predicted(noise_lost)) for kind in CONTROLS]
    outcomes = pd.concat(
        [pd.DataFrame({"image": images["image"], "attack": kind, "range": "unit", "eps": eps,
                       "prediction": top, "psnr": 20.0 if eps else np.nan})
         for kind, eps, top in rows]
    )  # fmt: skip
    outcomes["prediction_8bit"] = np.where(
        outcomes["attack"].isin(["own", "transferred"]) & (outcomes["eps"] > 0),
        outcomes["prediction"],
        np.nan,
    )
    kinds = [(kind, eps) for kind in ("own", "transferred", "noise") for eps in eps_of]
    kinds += [(kind, eps_of[-1]) for kind in CONTROLS]
    means = np.array([shift[eps_of.index(eps)] for _, eps in kinds])
    values = means[None, :, None, None] + rng.normal(0, spread, (N, len(kinds), 2, 1))
    last = np.repeat(values, 2, axis=3).astype(np.float32)
    layers = pd.DataFrame({"name": ["a", "b"], "label": ["a", "b"], "height": [4, 2],
                           "width": [4, 2], "start": [0, 16]})  # fmt: skip
    shape = (1, 1 + len(kinds), 2, 20)
    return Transferred(
        images, outcomes.reset_index(drop=True), pd.DataFrame(kinds, columns=["attack", "eps"]),
        last, last, np.full((N, 2, 2), unrelated, np.float32), np.ones((N, 2, 2, 2), np.float32),
        layers,
        rng.random(shape).astype(np.float16),
        np.zeros((1, 1 + len(kinds), 16, 16, 3), np.uint8),
        pd.DataFrame({"image": [N - 1], "class_name": ["x"]}),
        {"size": size, "convs": 2, "channels": 4.0, "parameters": 100, "zero_gradients": {"X": 0}},
    )  # fmt: skip


def compared(by_network=None, preprocessed=None) -> Comparison:
    """Five networks that differ where `by_network` says so; wide ones lose more, VGG16 is calm."""
    usual = {
        "VGG16": {"lost": [0.0, 0.1], "shift": [0.01, 0.05]},
        "ResNet50": {"lost": [0.1, 0.8], "shift": [0.1, 0.3]},
        "ResNet101": {"lost": [0.0, 0.2], "shift": [0.08, 0.25]},
        "InceptionV3": {"lost": [0.2, 0.7], "shift": [0.15, 0.35]},
        "Xception": {"lost": [0.1, 0.6], "shift": [0.12, 0.32]},
    }
    for name, changed in (by_network or {}).items():
        usual[name] = usual[name] | changed
    tried = {
        (name, PLAIN): Tried(FAMILIES[name], [transferred(**facts, seed=i)])
        for i, (name, facts) in enumerate(usual.items())
    }
    for name, facts in (preprocessed or {}).items():
        tried[name, PREPROCESSED] = Tried(FAMILIES[name], [transferred(**facts, seed=9)])
    return Comparison("test", PLAN, tried, SETTINGS.statistics, 1)


def test_accuracy_has_wilsons_interval():
    outputs = tables.tables(compared())
    row = outputs["accuracy"].query("network == 'VGG16' and attack == 'transferred' and eps == 0.1")
    p, n, z = 0.9, N, 1.959964
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert row["accuracy"].item() == p
    assert row["low"].item() == pytest.approx(middle - reach, abs=1e-3)
    assert row["high"].item() == pytest.approx(middle + reach, abs=1e-3)


def test_the_matrix_names_who_made_the_attack_once():
    matrix = tables.tables(compared())["matrix"]
    rows = matrix.query("eps == 0.1")
    assert not rows.duplicated(["made_on", "network"]).any()
    of = rows.set_index(["made_on", "network"])["lost"]
    assert of["ResNet50", "VGG16"] == pytest.approx(0.1)
    assert of["VGG16", "VGG16"] == pytest.approx(0.1)
    assert of["ResNet50", "ResNet50"] == pytest.approx(0.8)
    assert of["X", "Xception"] == pytest.approx(0.5)


def test_mod_is_the_mean_of_the_images_with_groups_and_the_papers_last_row():
    study = compared()
    rows = tables.tables(study)["mod"].query("attack == 'transferred' and explains == 'given'")
    rows = rows.set_index(["network", "eps", "group"])
    part = study.tried["Xception", PLAIN].parts[0]
    values = part.last[:, 3, 0, 0]  # variants: own, own, transferred, transferred
    assert rows.loc[("Xception", 0.1, "all"), "mod"] == pytest.approx(values.mean(), abs=1e-3)
    tail = values[24:]  # the attack takes the first 24 of 40
    assert rows.loc[("Xception", 0.1, "class kept"), "mod"] == pytest.approx(tail.mean(), abs=1e-3)
    assert rows.loc[("Xception", 0.1, "class lost"), "images"] == 24
    five = [rows.loc[(name, 0.1, "all"), "mod"] for name in FAMILIES]
    assert rows.loc[("mean", 0.1, "all"), "mod"] == pytest.approx(np.mean(five), abs=1e-3)


def test_empty_maps_are_left_out_counted_and_taken_as_they_are():
    part = transferred(lost=[0, 0], shift=[0.1, 0.2])
    part.last[:10, 3, 0, 0] = np.nan
    part.last[:10, 3, 0, 1] = 0.5
    study = Comparison("t", PLAN, {("VGG16", PLAIN): Tried("deep", [part])}, SETTINGS.statistics, 1)
    rows = tables.tables(study)["mod"].query("attack == 'transferred' and explains == 'given'")
    row = rows.query("network == 'VGG16' and eps == 0.1 and group == 'all'")
    assert row["empty"].item() == 0.25
    assert row["images"].item() == 30
    assert row["mod"].item() == pytest.approx(0.2, abs=0.01)
    assert row["blank"].item() == pytest.approx(0.75 * 0.2 + 0.25 * 0.5, abs=0.01)


def test_sets_of_a_network_are_pooled():
    parts = [transferred(lost=[0.1, 0.5], shift=[0.1, 0.2], seed=k) for k in (1, 2)]
    parts[1].images["id"] += " b"
    study = Comparison("t", PLAN, {("VGG16", PLAIN): Tried("deep", parts)}, SETTINGS.statistics, 1)
    outputs = tables.tables(study)
    assert set(outputs["accuracy"]["images"]) == {2 * N}
    row = outputs["accuracy"].query("attack == 'transferred' and eps == 0.1")
    assert row["right"].item() == N


def verdict(study: Comparison, claim: str):
    return verdicts.judged(study, claim, SETTINGS.flags)


def test_claims_that_are_borne_out_hold():
    help_ = {name: {"lost": [0.0, 0.0], "shift": [0.1, 0.2]} for name in ("VGG16", "ResNet50")}
    study = compared({"VGG16": {"lost": [0.0, 0.3]}}, preprocessed=help_)
    for claim in ("D1", "D2", "D4", "D5", "D7"):
        assert verdict(study, claim).verdict in (HOLDS, UNDECIDED), claim
    for claim in ("D1", "D2", "D4", "D7"):
        assert verdict(study, claim).verdict == HOLDS, claim
    assert verdict(study, "D2").value == pytest.approx((0.7 + 0.6) / 2 - (0.3 + 0.2) / 2)
    assert verdict(study, "D7").value == pytest.approx((0.3 + 0.8) / 2)


def test_carrying_over_is_judged_network_by_network():
    all_lose = {name: {"lost": [0.0, 0.6]} for name in FAMILIES}
    assert verdict(compared(all_lose), "D5").verdict == HOLDS
    finding = verdict(compared(all_lose | {"VGG16": {"lost": [0.0, 0.0]}}), "D5")
    assert finding.verdict == PARTLY
    assert finding.value == pytest.approx(0)
    assert "the value is that of VGG16" in finding.detail
    noisy = {name: facts | {"noise_lost": 0.6} for name, facts in all_lose.items()}
    assert verdict(compared(noisy), "D5").verdict == NOT  # noise takes as much
    # One falls short, the others cannot be told from 5 points: n is of one of those.
    unclear = {name: {"lost": [0.0, 0.1], "noise_lost": 0.0} for name in FAMILIES}
    finding = verdict(compared(unclear | {"VGG16": {"lost": [0.0, 0.0]}}), "D5")
    assert finding.verdict == UNDECIDED
    assert finding.low < 0.05 < finding.high
    assert "test images would decide it" in finding.detail


def test_claims_that_are_not_borne_out_do_not_hold():
    calm = {"lost": [0.2, 0.7], "shift": [0.3, 0.2]}
    study = compared({name: calm for name in FAMILIES if name != "ResNet50"})
    first = verdict(study, "D1")
    assert first.verdict == NOT  # four of five fall
    assert first.value == pytest.approx(-0.1, abs=0.01)
    assert verdict(study, "D2").value == pytest.approx(0)
    assert verdict(study, "D2").verdict == NOT
    worst = compared({"VGG16": {"shift": [0.1, 0.9]}})
    assert verdict(worst, "D4").verdict == NOT
    assert "rank 5 by MOD and 5 by VID" in verdict(worst, "D4").detail


def test_a_network_that_rises_by_chance_alone_is_not_decided():
    flat = {"shift": [0.2, 0.2], "spread": 0.3}
    finding = verdict(compared({name: flat for name in FAMILIES}), "D1")
    assert finding.verdict == UNDECIDED
    assert finding.low < 0 < finding.high


def test_at_equal_shift_is_read_off_the_curves():
    straight = {"VGG16": {"lost": [0.1, 0.2], "shift": [0.1, 0.2], "spread": 1e-6},
                "ResNet101": {"lost": [0.1, 0.4], "shift": [0.1, 0.4], "spread": 1e-6},
                "InceptionV3": {"lost": [0.2, 0.6], "shift": [0.1, 0.3], "spread": 1e-6},
                "Xception": {"lost": [0.2, 0.6], "shift": [0.1, 0.3], "spread": 1e-6}}  # fmt: skip
    finding = verdict(compared(straight), "D3")
    # Deep networks lose as much as the shift, wide ones twice that: the mean over (0, 0.2].
    assert finding.value == pytest.approx(np.mean(np.linspace(0, 0.2, 11)[1:]), abs=1e-3)
    assert finding.verdict == HOLDS
    assert "0.200" in finding.detail


def failing(study: Comparison) -> Comparison:
    """The same, with maps of failing images moved further."""
    for name in FAMILIES:
        part = study.tried[name, PLAIN].parts[0]
        for k, eps in enumerate(EPS):
            rows = part.outcomes.query(f"attack == 'transferred' and eps == {eps}")
            failed = rows["prediction"].to_numpy() != part.images["label"].to_numpy()
            part.last[failed, 2 + k] += 0.2
    return study


def test_failing_images_shift_more_where_they_do():
    assert verdict(failing(compared()), "D6").verdict == HOLDS
    steady = compared({name: {"shift": [0.2, 0.1]} for name in FAMILIES})
    assert verdict(steady, "D6").verdict == NOT


def test_where_all_maps_of_a_network_are_empty_the_others_are_ranked():
    study = failing(compared())
    study.tried["Xception", PLAIN].parts[0].last[:, 3, :, 0] = np.nan
    detail = verdict(study, "D6").detail
    assert "over 9 networks and eps" in detail
    assert "the rank correlation nan" not in detail


def test_with_too_many_empty_maps_nothing_on_maps_is_decided_and_both_readings_are_told():
    assert verdict(compared(), "D4").verdict == HOLDS
    study = compared()
    part = study.tried["VGG16", PLAIN].parts[0]
    part.last[:8, 3, 0, 0], part.last[:8, 3, 0, 1] = np.nan, 1.0  # of the set's class alone
    undecided = verdict(study, "D4")
    assert undecided.verdict == UNDECIDED
    assert "up to 20% of the pairs of maps have an empty one" in undecided.detail
    assert "test images would decide" not in undecided.detail
    assert "empty maps taken as blank: " in undecided.detail
    assert undecided.detail.endswith("holds")  # on maps of the own top class
    assert verdict(study, "D2").verdict == HOLDS  # speaks of no map


def test_what_was_not_tried_is_not_run_and_missing_networks_are_named():
    study = compared()
    assert verdict(study, "D7").verdict == NOT_RUN
    few = {key: tried for key, tried in study.tried.items() if key[0] in ("ResNet50", "Xception")}
    few = replace(study, tried=few)
    assert "wanted VGG16" in verdict(few, "D4").detail
    assert "deep and wide" in verdict(few, "D2").detail
    table = verdicts.claims_table(few, SETTINGS.flags)
    assert list(table["id"]) == [f"D{i}" for i in range(1, 9)]
    assert table.set_index("id").loc["D7", "verdict"] == NOT_RUN


def test_inputs_of_other_sizes_are_told_and_left_out_of_the_second_reading():
    finding = verdict(compared({"InceptionV3": {"size": 112}}), "D2")
    assert "of those at 64 px alone 0.450 [" in finding.detail
    assert "inputs of all are 64 px" in verdict(compared(), "D2").detail


def test_few_sources_and_empty_maps_are_flagged():
    study = compared()
    for tried in study.tried.values():
        tried.parts[0].images["source"] = tried.parts[0].images["label"].astype(str)
    study.tried["Xception", PLAIN].parts[0].last[:20, 3, 0, 0] = np.nan
    rows = flags.flags(study, SETTINGS.flags)
    assert list(rows["flag"]) == ["empty maps", "few sources", "few images", "small groups"]
    assert "pairs: Xception 50%" in rows["text"].iloc[0]
    few = rows.set_index("flag").loc["few images"]
    assert few["text"] == "MOD of few pairs of maps: Xception at eps 0.1 20"
    assert few["touches"] == "D1 D3 D4 D6 D8"


def test_folds_are_one_set(tmp_path, monkeypatch):
    """So that a reading which was seen on a set is marked on each of its folds."""
    part = transferred(lost=[0, 0], shift=[0.1, 0.2])
    parts = [replace(part, images=part.images.assign(id=part.images["id"] + name)) for name in "ab"]
    monkeypatch.setattr(storage, "read", lambda kind, folder: parts[int(folder.name[-1])])
    targets = {
        f"vgg16_{k}": Target(study="t", set=f"orl_{k}", model="m", network="VGG16") for k in (0, 1)
    }
    with inside(tmp_path):
        study = comparison.read(
            "t", folders("t"), PLAN, targets, set(), SETTINGS.statistics, seed=1
        )
    assert study.sets == {"orl"}
    assert len(study.images) == 2 * N


def read_out(study: Comparison, claim: str) -> pd.DataFrame:
    rows = readings.table(study, SETTINGS.flags).query("claim == @claim")
    return rows.set_index(["reading", "network"])


GIVEN_CLASS, OWN_CLASS = "maps of the class that the set gives", "maps of the own top class"
RELATIVE = "relative to unrelated pairs"


def test_the_given_class_decides_where_it_can_and_the_own_class_stands_beside():
    def falling():
        study = compared()
        for tried in study.tried.values():
            part = tried.parts[0]
            part.last[:, 3, 1] = part.last[:, 2, 1] - 0.1  # of the own class: falls everywhere
        return study, study.tried["VGG16", PLAIN].parts[0]

    study, _ = falling()
    rows = read_out(study, "D1")
    assert list(rows.loc[(GIVEN_CLASS, "all"), ["verdict", "standing"]]) == [HOLDS, "decides"]
    own = rows.loc[(OWN_CLASS, "all")]
    assert list(own[["verdict", "standing", "images"]]) == [NOT, "beside", N]
    assert own["value"] == pytest.approx(-0.1, abs=1e-3)
    assert f"maps of the own top class: {own['value']:.3f}" in verdict(study, "D1").detail
    study, part = falling()
    part.last[:8, 3, 0, 0] = np.nan
    rows = read_out(study, "D1")
    assert list(rows.loc[(GIVEN_CLASS, "all"), ["verdict", "images"]]) == [UNDECIDED, N - 8]
    blank = rows.loc[(f"{GIVEN_CLASS}, empty maps taken as blank", "all")]
    assert list(blank[["verdict", "images"]]) == [HOLDS, N]
    assert rows.loc[(OWN_CLASS, "all"), "verdict"] == NOT
    # Too many empty maps decide nothing in the reading of that class either.
    study, part = falling()
    part.last[:8, 3, 1, 0] = np.nan
    assert read_out(study, "D1").loc[(OWN_CLASS, "all"), "verdict"] == UNDECIDED


def test_readings_are_marked_where_their_results_were_known_before():
    study = compared()
    for sets, kind in (({"orl"}, "beside, seen"), ({"photos", "photos_cropped"}, "beside, seen"),
                       ({"faces"}, "beside")):  # fmt: skip
        rows = readings.table(replace(study, sets=frozenset(sets)), SETTINGS.flags)
        assert set(rows["standing"]) == {"decides", kind}
        first = rows.groupby("claim")["standing"].first()
        assert (first == "decides").all()
        deciding = rows[(rows["standing"] == "decides") & (rows["network"] == "all")]
        assert list(deciding["claim"]) == ["D1", "D2", "D3", "D4", "D5", "D6", "D8"]
        claims = verdicts.claims_table(study, SETTINGS.flags).set_index("id")
        assert list(deciding["verdict"]) == list(claims.loc[deciding["claim"], "verdict"])
        assert list(deciding["value"]) == list(claims.loc[deciding["claim"], "value"])


def test_mod_relative_to_unrelated_pairs_is_divided_by_their_mod_network_by_network():
    # VGG16 shifts least, but its maps of unrelated images are as alike as a clean map and an
    # attacked one: relative to these it shifts most.
    exact = {"spread": 1e-6}
    study = compared({"VGG16": {"unrelated": 0.05} | exact, "ResNet101": exact})
    rows = read_out(study, "D4")
    assert rows.loc[(GIVEN_CLASS, "all"), "verdict"] == HOLDS
    relative = rows.loc[(f"{GIVEN_CLASS}, {RELATIVE}", "all")]
    assert relative["verdict"] == NOT
    assert relative["value"] == pytest.approx(0.25 / 0.5 - 0.05 / 0.05, abs=0.01)  # by ResNet101
    assert "VGG16 1.0" in relative["detail"]
    assert (f"{OWN_CLASS}, {RELATIVE}", "all") in rows.index


def test_the_floor_of_unrelated_pairs_is_resampled_with_the_shifts():
    study, rng = compared(), np.random.default_rng(5)
    for tried in study.tried.values():
        tried.parts[0].unrelated[:] = rng.uniform(0.1, 0.9, (N, 1, 1))
    finding = verdicts.one_is_most_stable(study, Reading("given", relative=True))
    _, place = np.unique(study.images["source"], return_inverse=True)
    every = [np.ones(N), *(weights[place] for weights in study.draws(study.images).weights)]

    def relative(network, weights):
        """MOD at the largest eps and mean VID, both over MOD of unrelated pairs."""
        part = study.tried[network, PLAIN].parts[0]
        mod = spread = floor = 0.0
        for i in range(N):
            first, second = (float(part.last[i, k, 0, 0]) for k in (2, 3))
            mod += weights[i] * second
            spread += weights[i] * abs(second - first) / 2
            floor += weights[i] * float(part.unrelated[i, 0, 0])
        return np.array([mod / floor, spread / floor])

    # As wide as Student's t makes the interval of a normal mean of 40 clusters.
    tail = norm.cdf(t.ppf(0.025, N - 1) * np.sqrt(N / (N - 1)))
    stable = [relative("VGG16", weights) for weights in every]
    parts = {}
    for name in ("ResNet50", "ResNet101", "InceptionV3", "Xception"):
        each = np.array([relative(name, w) - s for w, s in zip(every, stable, strict=True)])
        for measure, (value, *resampled) in zip(("MOD", "VID"), each.T, strict=True):
            ends = np.quantile(resampled, [tail, 1 - tail])
            parts[f"{name} minus VGG16 by {measure}"] = (value, *ends)
    least = min(parts, key=lambda name: parts[name][0])
    assert finding.verdict == HOLDS
    assert finding.detail.endswith(f"the value is that of {least}")
    assert (finding.value, finding.low, finding.high) == pytest.approx(parts[least], abs=1e-6)


def test_lost_at_equal_shift_relative_to_unrelated_pairs_is_read_off_the_curves():
    deep = {"unrelated": 0.1, "spread": 1e-6}
    wide = {"lost": [0.2, 0.6], "shift": [0.1, 0.3], "unrelated": 0.2, "spread": 1e-6}
    study = compared({"VGG16": {"lost": [0.1, 0.2], "shift": [0.1, 0.2]} | deep,
                      "ResNet101": {"lost": [0.1, 0.4], "shift": [0.1, 0.4]} | deep,
                      "InceptionV3": wide, "Xception": wide})  # fmt: skip
    # By a unit of relative MOD deep networks lose .1, wide ones .4; all reach 1.5 units.
    row = read_out(study, "D3").loc[(f"{GIVEN_CLASS}, {RELATIVE}", "all")]
    assert row["value"] == pytest.approx(0.3 * np.mean(np.linspace(0, 1.5, 11)[1:]), abs=1e-3)
    assert "up to 1.500 times that of unrelated pairs" in row["detail"]


def test_networks_without_a_lead_over_chance_are_at_the_floor():
    # Two classes: chance is a half. With 40 % lost a fifth of the lead is left, with 50 % nothing.
    lost = {"VGG16": [0.0, 0.5], "ResNet101": [0.4, 0.5], "InceptionV3": [0.5, 0.5],
            "Xception": [0.1, 0.4]}  # fmt: skip
    study = compared({name: {"lost": each} for name, each in lost.items()})
    off = dict(zip(study.networks(), floor.can_lose(study, "transferred").tolist(), strict=True))
    assert off == {"VGG16": [True, False], "ResNet50": [True, False], "ResNet101": [True, False],
                   "InceptionV3": [False, False], "Xception": [True, True]}  # fmt: skip
    detail = verdict(study, "D2").detail
    assert (
        "off their floor of accuracy: VGG16, ResNet101 at eps 0.01; InceptionV3 at no eps; "
        "Xception at every eps"
    ) in detail
    # Noise takes nothing: there every network can lose.
    assert "under noise off their floor of accuracy: VGG16, ResNet101, InceptionV3, Xception at " \
           "every eps" in verdict(study, "D5").detail  # fmt: skip
    rows = read_out(study, "D2")
    assert list(rows.index.get_level_values("reading")) == [
        "eps 0.1, 3 of 4 at the floor", "eps 0.01, 1 of 4 at the floor"
    ]  # fmt: skip
    assert list(rows["value"]) == pytest.approx([0.45 - 0.5, 0.3 - 0.2])
    assert list(read_out(study, "D5")["value"])[1] == pytest.approx(0.0)  # VGG16 loses none at .01


def test_no_network_that_is_at_chance_clean_can_lose():
    study = compared({"VGG16": {"clean_wrong": N // 2, "lost": [0.0, 0.0]}})
    assert not floor.can_lose(study, "transferred")[0].any()


def test_claims_on_several_eps_are_judged_on_the_papers():
    def judged(eps):
        plan = PLAN.model_copy(update={"eps": eps})
        return Comparison("t", plan, {}, SETTINGS.statistics, 1).judged

    assert judged([0.01, 0.05, 0.075, 0.1]) == [0, 1, 2, 3]
    assert judged([0.01, 0.02, 0.03, 0.05, 0.1]) == [0, 3, 4]
    assert judged([0.01, 0.05, 0.2]) == [0, 1, 2]  # the largest is none of the paper's
    assert judged([0.02, 0.1]) == [0, 1]
    eps = [0.01, 0.02, 0.1]
    part = transferred(lost=[0, 0.2, 0.4], shift=[0.1, 0.05, 0.3], eps_of=eps)
    study = Comparison("t", PLAN.model_copy(update={"eps": eps}), {("VGG16", PLAIN): Tried(
        "deep", [part])}, SETTINGS.statistics, 1)  # fmt: skip
    assert verdict(study, "D1").verdict == HOLDS  # it falls at .02, which is not the paper's
    row = tables.tables(study)["vid"].query(
        "attack == 'transferred' and explains == 'given' and levels == 'eps above 0'"
    )
    expected = np.stack([part.last[:, k, 0, 0] for k in (3, 5)], axis=1).std(axis=1).mean()
    assert row["vid"].item() == pytest.approx(expected, abs=1e-3)


def test_preprocessing_is_compared_under_noise_too():
    plain = {"lost": [0.5, 0.5], "shift": [0.1, 0.2], "noise_lost": 0.25}
    study = compared({"VGG16": plain, "ResNet50": plain}, preprocessed={
        name: {"lost": [0.0, 0.1], "shift": [0.1, 0.2]} for name in ("VGG16", "ResNet50")
    })  # fmt: skip
    pairs = tables.tables(study)["pairs"]
    by = pairs.set_index(["network", "attack", "eps"])
    assert by["difference"].loc["VGG16"].to_dict() == pytest.approx(
        {("clean", 0.0): 0, ("transferred", 0.01): 0.5, ("transferred", 0.1): 0.4,
         ("noise", 0.01): 0.25, ("noise", 0.1): 0.25}
    )  # fmt: skip
    rows = read_out(study, "D7")["value"].droplevel("network")
    assert rows.to_dict() == pytest.approx(
        {"under the transferred attack": 0.4, "under noise of its size": 0.25,
         "attack minus noise": 0.15}
    )  # fmt: skip
    detail = verdict(study, "D7").detail
    assert "under noise of its size eps 0.1 0.250 [" in detail
    assert "attack minus noise eps 0.1 0.150 [" in detail
    assert "one training an arm" in detail
    raised = flags.flags(study, SETTINGS.flags).set_index("flag")
    assert raised.loc["one training an arm", "touches"] == "D7"
    drawn = figures.accuracy_gain_of_preprocessing({"pairs": pairs})
    assert set(drawn.table["series"]) == {
        "VGG16", "ResNet50", "VGG16, noise of that size", "ResNet50, noise of that size"
    }  # fmt: skip
    # Folds are several trainings.
    for tried in study.tried.values():
        second = replace(tried.parts[0], images=tried.parts[0].images.copy())
        second.images["id"] += " b"
        tried.parts.append(second)
    assert "one training an arm" not in verdict(study, "D7").detail
    assert "one training an arm" not in set(flags.flags(study, SETTINGS.flags)["flag"])


@pytest.mark.parametrize("difference", [0.0, 0.05, -0.05, 0.15, -0.15, 0.3])
@pytest.mark.parametrize("spread", [0.01, 0.1])
def test_equivalence_is_that_of_two_paired_t_tests(difference, spread):
    """MOD differs by less than a tenth of it: .9 a - n is below 0 and 1.1 a - n is above."""
    part = transferred(lost=[0, 0], shift=[0.1, 0.2], spread=spread)
    rng = np.random.default_rng(1)
    attack = part.last[:, 3, 0, 0].astype(float)
    noise = (1 - difference) * attack + rng.normal(0, spread / 4, N)
    part.last[:, 5, 0, 0] = noise
    study = Comparison("t", PLAN, {("VGG16", PLAIN): Tried("deep", [part])}, SETTINGS.statistics, 1)
    (own,) = equivalence.equivalences(study, Reading("given")).values()
    assert own.value == pytest.approx(1 - noise.mean() / attack.mean(), abs=1e-6)
    p = max(
        ttest_1samp(0.9 * attack - noise, 0, alternative="less").pvalue,
        ttest_1samp(1.1 * attack - noise, 0, alternative="greater").pvalue,
    )
    assert not 0.02 < p < 0.08  # the bootstrap and Student's t may differ there
    assert (own.verdict == HOLDS) == (p < 0.05)
    if abs(difference) > 0.1 and spread == 0.01:
        assert own.verdict == NOT
    rows = read_out(study, "D8")
    assert rows.loc[(GIVEN_CLASS, "VGG16"), "verdict"] == own.verdict
    assert (
        f"MOD under attack and noise {attack.mean():.3f} and {noise.mean():.3f}"
        in (rows.loc[(GIVEN_CLASS, "VGG16"), "detail"])
    )


def test_groups_of_few_images_are_told_and_left_out_of_a_further_reading():
    study = failing(compared())
    # Of 40 images, at most 20 are in the smaller group: none has 30.
    rows = read_out(study, "D6")
    large = rows.loc[(f"{GIVEN_CLASS}, groups of 30 images at least", "all")]
    assert list(large[["verdict", "images"]]) == [UNDECIDED, 0]
    # VGG16 at .1, ResNet50 at both, ResNet101 at .1, InceptionV3 and Xception at both.
    assert "8 of them with fewer than 30 images that fail or that do not" in (
        verdict(study, "D6").detail
    )
    assert rows.loc[(GIVEN_CLASS, "all"), "images"] == 4  # VGG16 and others lose a tenth
    text = flags.flags(study, SETTINGS.flags).set_index("flag").loc["small groups", "text"]
    assert text.startswith("in 8 of 8 networks and eps")
    few = verdicts.shift_explains_failure(study, Reading("given", least=12))
    # Groups of 12 and more at .1: InceptionV3's 12 that stay, Xception's 16.
    differences = []
    for name, lost in (("InceptionV3", 28), ("Xception", 24)):
        last = study.tried[name, PLAIN].parts[0].last[:, 3, 0, 0]
        differences.append(last[:lost].mean() - last[lost:].mean())
    assert f"failed minus not {np.mean(differences):.3f} [" in few.detail


def test_every_cell_of_the_headline_tells_its_images_and_marks_few():
    study = compared()
    study.tried["Xception", PLAIN].parts[0].last[:20, 3, 0, 0] = np.nan
    outputs = tables.tables(study)
    cells = report.accuracy(outputs).set_index("network")
    assert cells.loc["VGG16", "eps 0.1"].startswith("0.900 [")
    assert (
        cells.drop(columns="preprocessing")
        .map(lambda text: text.endswith("], n 40"))
        .all(axis=None)
    )
    cells = report.mod(outputs, "given").set_index("network")
    assert cells.loc["Xception", "eps 0.1"].endswith("], n 20 (few) (50% empty)")
    assert cells.loc["Xception", "eps 0.01"].endswith("], n 40")
    assert ", n" not in cells.loc["mean", "eps 0.1"]
    told = report.readings({"readings": readings.table(study, SETTINGS.flags)})
    assert set(told.query("claim == 'D1'")["n"]) == {"20 (few)", "40"}
    assert report.readings({}).empty  # results of version 0.1


@pytest.mark.parametrize("explains", ["given", "own_top1"])
def test_a_figure_of_maps_names_their_class_in_its_title(explains):
    outputs = tables.tables(compared())
    short = {"given": "(given class)", "own_top1": "(own top class)"}[explains]
    drawn = figures.study_figures(outputs, explains=explains)
    of_maps = [figure for figure in drawn if "maps of" in figure.caption.lower()]
    assert len(of_maps) == 8
    assert all(figure.title.endswith(short) for figure in of_maps)
    for title, _ in panels.pictures(["A", "B"], transferred="A").values():
        assert title.endswith("(own top class)")


def test_layers_are_read_from_the_bottom_right_to_the_top_left():
    count, side = 45, 2
    part = transferred(lost=[0.0, 0.1], shift=[0.1, 0.2])
    layers = pd.DataFrame({"name": range(count), "label": range(count), "height": side,
                           "width": side, "start": np.arange(count) * side**2})  # fmt: skip
    level = np.repeat(np.arange(count) / count, side**2).astype(np.float16)
    shape = (1, 1 + len(part.variants), 2, len(level))
    part = replace(part, layers=layers, values=np.broadcast_to(level, shape))
    study = Comparison("t", PLAN, {("VGG16", PLAIN): Tried("deep", [part])}, SETTINGS.statistics, 1)
    (figure,) = panels.figures_6_and_on(study, panels.pictures(["VGG16"], transferred="A"))
    picture, columns, rows = figure.panel
    assert columns == [str(i) for i in range(20, 0, -1)]
    assert rows == ["41-45, clean", "eps 0.01", "eps 0.1", "21-40, clean", "eps 0.01", "eps 0.1",
                    "1-20, clean", "eps 0.01", "eps 0.1"]  # fmt: skip
    height, width = picture.shape[0] // 9, picture.shape[1] // 20
    for i in range(count):
        row, column = 8 - 3 * (i // 20), 19 - i % 20
        for above in range(3):
            place = (row - above) * height + height // 2, column * width + width // 2
            np.testing.assert_array_equal(
                picture[place], drawing.coloured(np.full((1, 1), level[i * 4]), 1)[0, 0]
            )
    assert (picture[: 3 * height, : 15 * width] == 255).all()  # no layer 46 to 60


def test_the_tiny_transfer_study_is_written_and_drawn(tiny):
    with inside(tiny.folder):
        outputs = results.load("tiny_generalising")
        plan = tiny.settings.studies["tiny_generalising"]
        accuracy = outputs["accuracy"]
        assert set(accuracy["network"]) == {"VGG11", "ResNet18"}
        assert set(accuracy["range"]) == {"unit", "signed"}
        assert outputs["pairs"]["network"].unique().tolist() == ["ResNet18"]
        assert set(outputs["networks"]["size"]) == {32, 40}
        drawn = figures.study_figures(outputs, explains=plan.explains)
        names = {figure.name for figure in drawn}
        files = {f.stem for f in storage.results("tiny_generalising", "figures").iterdir()}
        assert names | {f"chakraborty_figure_{k}" for k in (5, 6, 7)} <= files
        for figure in drawn:
            assert not figure.table.empty, figure.name
            drawing.plotly(figure)
        folder = storage.results("tiny_generalising", "figures")
        panels = folder.glob("chakraborty_figure_[5-9].png")
        assert all(drawing.holds_images(file) for file in panels)
        page = storage.report("tiny_generalising").read_text()
        assert "Preprocessing, image by image" in page
        assert set(outputs["pairs"]["attack"]) == {"clean", "transferred", "noise"}
        assert set(outputs["readings"]["standing"]) == {"decides", "beside"}  # digits were not seen
        readme = storage.results("tiny_generalising", "README.md").read_text()
        for words in ("| D1 | own | ", "| D5 | eps 0.05, ", ", n 50 |",
                      "- one training an arm: touches D7"):  # fmt: skip
            assert words in readme
        table = report.accuracy(outputs)
        assert list(table.columns) == ["network", "preprocessing", "eps 0", "eps 0.05", "eps 0.2"]


def test_psnr_of_digits_is_above_what_eps_says(tiny):
    with inside(tiny.folder):
        rows = results.load("tiny_generalising")["psnr"].query("attack == 'transferred'")
    # Digits are black and white: half of the changes leave [0, 1] and are clipped.
    assert (rows["psnr"] > rows["unclipped"]).all()
    assert (rows["psnr"] < rows["unclipped"] + 6.5).all()


@pytest.mark.parametrize("label", ["given", "predicted"])
def test_the_sign_raises_the_loss_of_the_label_that_is_asked_for(tiny, monkeypatch, label):
    artefacts = []
    monkeypatch.setattr(storage, "write", lambda folder, artefact: artefacts.append(artefact))
    with inside(tiny.folder):
        stage = run.Stage("gradient_sign@tiny_vgg11")
        stage.params["studies"]["tiny_generalising"]["label"] = label
        script("gradient_sign").main(stage)
        images = storage.read(storage.ImageSet, storage.set_folder("digits"))
        model = loading.load("vgg11_eighth", micro_batch=16)
    (signs,) = artefacts
    rows = images.index.loc[signs.images["image"]]
    assert list(rows["id"]) == list(signs.images["id"])
    assert set(rows["split"]) == {"test"}
    pixels = torch.from_numpy(from_8bit(images.pixels[rows.index]))
    with torch.no_grad():
        logits = model(pixels)
        labels = torch.tensor(rows["label"].to_numpy()) if label == "given" else logits.argmax(1)
        moved = model((pixels + 0.02 * torch.from_numpy(signs.sign)).clamp(0, 1))
    before, after = (cross_entropy(x, labels, reduction="none") for x in (logits, moved))
    assert (after > before).float().mean() > 0.9


def folds(folder, **changed):
    """Writes two folds of two networks; the images of `changed` are as that says."""
    targets = {}
    for network in ("ResNet50", "VGG16"):
        for fold in ("a", "b"):
            part = transferred(lost=[0.1, 0.5], shift=[0.1, 0.2], seed=ord(fold))
            part.images["id"] += changed.get(f"{network}_{fold}", fold)
            if fold == "b":  # a fold on which nothing is right
                part.outcomes["prediction"] = 7
            # Folds in another order for each network.
            end = f"{network}_{'ab'['ba'.index(fold)] if network == 'VGG16' else fold}"
            storage.write(storage.end_folder("test", "transferred", end), part)
            targets[end] = Target(study="test", set=f"set_{fold}", model="m",
                                  network=network, family="deep", maps=True)  # fmt: skip
    return comparison.read(
        "test", folders("test"), PLAN, targets, set(), SETTINGS.statistics, seed=1
    )


def test_folds_are_joined_in_the_same_order_for_all_networks(tmp_path):
    with inside(tmp_path):
        study = folds(tmp_path)
        images = [tried.images["id"].tolist() for tried in study.networks().values()]
        assert images[0] == images[1]
        assert len(set(images[0])) == 2 * N
        for tried in study.networks().values():
            assert not tried.right("transferred", 0.1, of="unit")[N:].any()
        assert list(study.networks()) == ["ResNet50", "VGG16"]


def test_networks_that_were_not_tried_alike_are_refused(tmp_path):
    with inside(tmp_path):
        with pytest.raises(SettingsError, match="is tested on two sets of ResNet50"):
            folds(tmp_path, ResNet50_b="a")
        with pytest.raises(SettingsError, match="VGG16 has other test images"):
            folds(tmp_path, VGG16_b="c")


def test_arms_are_paired_by_the_name_of_the_image():
    study = compared(preprocessed={"VGG16": {"lost": [0.0, 0.0], "shift": [0.1, 0.2]}})
    part = study.tried["VGG16", PREPROCESSED].parts[0]
    part.outcomes["prediction"] = 7
    last = part.images["id"] == f"image {N - 1:02d}"
    mine = part.outcomes["image"] == part.images.loc[last, "image"].item()
    part.outcomes.loc[mine, "prediction"] = int(part.images.loc[last, "label"].item())
    turned = part.images.iloc[::-1].reset_index(drop=True)
    outcomes = pd.concat([rows.iloc[::-1] for _, rows in part.outcomes.groupby(
        ["attack", "range", "eps"], sort=False)], ignore_index=True)  # fmt: skip
    other = Tried("deep", [replace(part, images=turned, outcomes=outcomes)])
    study.tried["VGG16", PREPROCESSED] = other
    _, right = comparison.paired(study, "VGG16", 0.1)
    assert right.tolist() == [False] * (N - 1) + [True]


def test_controls_stand_beside_their_attack_at_the_largest_eps():
    study = compared({"VGG16": {"noise_lost": 0.25}})
    rows = tables.tables(study)["controls"].query("explains == 'given'")
    mine = rows[rows["network"] == "VGG16"].set_index(["attack", "control"])
    assert list(mine.index) == [
        ("own", "none"), ("own", "noise"), ("own", "negated"),
        ("transferred", "none"), ("transferred", "noise"), ("transferred", "negated"),
        ("none", "unrelated"),
    ]  # fmt: skip
    np.testing.assert_allclose(mine["flipped"], [0.1, *[0.25] * 2, 0.1, *[0.25] * 2, np.nan])
    assert mine.loc[("none", "unrelated"), "mod"] == 0.5
    # The transferred attack's own network has it under that name alone.
    source = rows[rows["network"] == "ResNet50"]
    assert set(source["attack"]) == {"transferred", "none"}
    text = report.controls({"controls": rows}, "given").set_index(["network", "attack"])
    assert text.loc[("VGG16", "own"), "noise"].startswith("25%, 0.0")


def test_a_shift_is_that_of_noise_where_both_are_within_a_tenth():
    """Noise shifts maps as the attack does in these data; one network's attack shifts them more."""
    reading = Reading("given", blank=False)
    finding = equivalence.shift_is_that_of_noise(compared(), reading)
    assert finding.verdict == HOLDS
    assert abs(finding.value) < 0.1
    assert "ResNet50" not in finding.detail
    part = compared().tried["Xception", PLAIN].parts[0]
    kinds = part.variants["attack"].to_numpy()
    last = part.last * np.where(kinds == "noise", 0.5, 1)[None, :, None, None]
    tried = compared().tried | {("Xception", PLAIN): Tried("wide", [replace(part, last=last)])}
    finding = equivalence.shift_is_that_of_noise(replace(compared(), tried=tried), reading)
    assert finding.value == pytest.approx(0.5, abs=0.05)
    assert finding.verdict == PARTLY  # three of four
    assert "Xception 0.32" in finding.detail
    assert finding.low < finding.value < finding.high

"""Claims as data, and the verdicts on paper."""

import dataclasses
import importlib
import inspect
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from camdrift import settings, storage
from camdrift.analysis import results, statistics
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.statistics import Resampler
from camdrift.papers import claims, findings, interface
from camdrift.papers.findings import HOLDS, NO_EFFECT, NOT, NOT_RUN, PARTLY, UNDECIDED
from camdrift.papers.renkhoff2022 import compromise, controls, study, transformers
from camdrift.papers.renkhoff2022 import verdicts as judges
from camdrift.papers.tan2023 import sensitivity
from camdrift.papers.tan2023 import verdicts as detection_verdicts
from camdrift.papers.tan2023.keeping import KEEPING
from camdrift.settings import PAPERS, FlagSettings, StatisticsSettings
from conftest import inside
from test_changes import CORRECTED

CLAIMS = [claim for paper in PAPERS for claim in interface.paper(paper).CLAIMS]


def test_every_claim_is_there_once_and_each_of_the_first_two_papers_has_a_judge():
    ids = [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids)) == 52
    for paper in PAPERS:
        assert {claim.paper for claim in interface.paper(paper).CLAIMS} == {paper}
    layers, detectors = (
        [claim.id for claim in interface.paper(paper).CLAIMS] for paper in PAPERS[:2]
    )
    assert sorted(study.JUDGES) == sorted(layers)
    judged = [*detection_verdicts.JUDGES, sensitivity.CLAIM, KEEPING]
    assert sorted(judged) == sorted(detectors)
    assert all(c.says and c.where and c.statistic and c.holds_if for c in CLAIMS)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_has_what_a_report_asks_for(paper):
    module = interface.paper(paper)
    names = [name for name in vars(interface.Paper) if not name.startswith("_")]
    for name in names:
        parameters = list(inspect.signature(getattr(interface.Paper, name)).parameters)[1:]
        assert list(inspect.signature(getattr(module, name)).parameters) == parameters or (
            name == "metrics"  # some are a table module's own
        )
    for name in interface.Paper.__annotations__:
        assert getattr(module, name), name
    assert set(module.READS) <= set(settings.Settings.model_fields)


def test_a_study_has_the_claims_of_its_own_paper_and_every_claim_has_a_study(tiny):
    with inside(tiny.folder):
        rows = [results.load(name)["claims"].assign(study=plan.paper)
                for name, plan in tiny.settings.studies.items()]  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    assert (table["paper"] == table["study"]).all()
    assert table["id"].tolist() == [claim.id for claim in CLAIMS]


def test_every_claim_names_tables_and_figures_that_studies_have(tiny):
    tables, figures = {}, {}
    with inside(tiny.folder):
        for study, plan in tiny.settings.studies.items():
            tables[plan.paper] = {file.stem for file in storage.results(study, "tables").iterdir()}
            figures[plan.paper] = {f.stem for f in storage.results(study, "figures").iterdir()}
    for claim in CLAIMS:
        assert claim.tables and set(claim.tables) <= tables[claim.paper], claim.id
        assert set(claim.figures) <= figures[claim.paper], claim.id
    assert {claim.id for claim in CLAIMS if not claim.figures} == {
        "A15", "A17", "A18", "B6", "C7", "E3"
    }  # fmt: skip


def test_a_figures_name_leads_to_the_function_that_draws_it(tiny):
    """`tan_figure_8a` is drawn by `figure_8a` of tan2023; the study's own by one of their name."""
    modules = {
        paper: importlib.import_module(f"camdrift.papers.{paper}.figures") for paper in PAPERS
    }
    panels = importlib.import_module("camdrift.papers.chakraborty2022.panels")
    # By argument: which of several things of one kind is drawn.
    several = {"drift_by_arm": "drift_by_arm_", "transfer": "transfer_", "map_drift": "map_drift_"}
    with inside(tiny.folder):
        names = {file.stem for file in storage.REPORTS.glob("*/figures/*.png")}
    assert len(names) > 35
    for name in names:
        paper = next((p for p in modules if name.startswith(p.rstrip("0123456789") + "_")), None)
        if paper is None:
            name = next((f for f, start in several.items() if name.startswith(start)), name)
            assert sum(hasattr(module, name) for module in modules.values()) == 1, name
        elif re.fullmatch("chakraborty_figure_([6-9]|10)", name):
            assert panels.figures_6_and_on
        else:
            function = name.partition("_")[2]
            drawn = modules[paper], panels if paper == "chakraborty2022" else None
            assert any(hasattr(module, function) for module in drawn), name


def test_printed_counts_of_table_1_add_up():
    """klawikowska2020: its attacked sets are the clean test set and successful attacks alone."""
    right = round(0.8580 * 2000)
    assert right == 1716
    assert round(100 * right / (2000 + 408 + 532), 2) == 58.37
    assert round(100 * right / (2000 + 244 + 416), 2) == 64.51  # printed 64.62: 3 were right again
    assert round(100 * (right + 3) / 2660, 2) == 64.62
    printed = next(claim.printed for claim in CLAIMS if claim.id == "C1")
    assert all(number in printed for number in ("85.80", "58.37", "64.62"))


def test_verdicts_of_intervals():
    of = findings.verdict_of_interval
    assert [of(0.1, 0.2, above=0), of(-0.2, -0.1, above=0), of(-0.1, 0.1, above=0)] == [
        HOLDS, NOT, UNDECIDED
    ]  # fmt: skip
    assert of(np.nan, np.nan, above=0) == UNDECIDED
    within = findings.verdict_of_range
    assert within(0.35, 0.45, least=0.3, most=0.5) == HOLDS
    assert within(0.6, 0.7, least=0.3, most=0.5) == NOT
    assert within(0.45, 0.55, least=0.3, most=0.5) == UNDECIDED
    assert within(np.nan, np.nan, least=0.3, most=0.5) == UNDECIDED


@pytest.mark.parametrize(
    ("parts", "expected", "verdict"),
    [
        ([HOLDS] * 4, None, HOLDS),
        ([HOLDS] * 3 + [UNDECIDED], None, PARTLY),
        ([HOLDS] * 2 + [NOT] * 2, None, PARTLY),
        ([HOLDS] + [NOT] * 3, None, NOT),
        ([NO_EFFECT] * 4, None, NO_EFFECT),
        ([NO_EFFECT] * 3 + [NOT], None, NOT),
        ([UNDECIDED] * 3 + [HOLDS], None, UNDECIDED),
        ([HOLDS] * 10 + [NOT] * 3, 10, HOLDS),
        ([HOLDS] * 9 + [NOT] * 4, 10, PARTLY),
        ([], None, UNDECIDED),
    ],
)
def test_verdicts_of_several_layers(parts, expected, verdict):
    assert findings.verdict_of_parts(parts, least=expected) == verdict


def test_a_claim_of_several_things_is_as_good_as_the_worst():
    of = findings.verdict_of_all
    assert [of([HOLDS, HOLDS]), of([HOLDS, PARTLY]), of([HOLDS, NOT]), of([UNDECIDED, HOLDS])] == [
        HOLDS, PARTLY, NOT, UNDECIDED
    ]  # fmt: skip


def test_the_margin_is_the_smallest_that_holds_the_interval():
    assert findings.margin(-0.005, 0.009) == 0.01
    assert findings.margin(-0.005, 0.011) == 0.02
    assert findings.margin(0.03, 0.05) == 0.05
    assert np.isnan(findings.margin(-0.06, 0.0))


class ArrayEvidence(Evidence):
    """Evidence from arrays: (images, strengths, layers), one source an image."""

    def __init__(self, attack, noise, *, strengths, layers=None, failures=None, floor=0.5,
                 summed=False):  # fmt: skip
        options = StatisticsSettings(resamples=400, confidence=0.95, quantile=0.05, folds=2)
        flags = FlagSettings(
            empty_share=0.1, minimum_successes=1, minimum_images=1, minimum_sources=1,
            zero_gradients=0.0, clipped_only=0.0, noise_flips=0.0, size_difference=0.0,
        )  # fmt: skip
        layers_table = pd.DataFrame({"summed": np.broadcast_to(summed, attack.shape[2])})
        outputs = SimpleNamespace(record=SimpleNamespace(layers=layers_table))
        super().__init__(outputs, CORRECTED, options, flags, 1)  # type: ignore[arg-type]
        self.__dict__["_layers"] = layers or [f"layer {i}" for i in range(attack.shape[2])]
        rng, count = np.random.default_rng(0), self.resamples
        draws = {True: Resampler.draw(np.arange(len(attack)), resamples=count, rng=rng)}
        known = {("adversarial", True): attack, ("noise", True): noise}
        if failures is not None:
            draws[False] = Resampler.draw(np.arange(len(failures[0])), resamples=count, rng=rng)
            known |= {("adversarial", False): failures[0], ("noise", False): failures[1]}
        fixed = {"_strengths": strengths, "resamplers": draws, "similarities": known,
                 "unrelated": np.broadcast_to(floor, attack.shape[::2]), "attack": attack,
                 "noise": noise}  # fmt: skip
        for key, value in fixed.items():
            self.__dict__[key] = value

    @property
    def strengths(self):
        return self.__dict__["_strengths"]

    @property
    def layers(self):
        return self.__dict__["_layers"]


def similar(means, *, spread=0.02, images=60, seed=0):
    """Similarities with these means by (strength, layer)."""
    means = np.asarray(means, dtype=float)
    rng = np.random.default_rng(seed)
    return means + spread * rng.standard_normal((images, *means.shape))


def excess(attack, noise, **options) -> findings.Finding:
    evidence = ArrayEvidence(similar([attack]), similar([noise], seed=1), strengths=[1.0])
    return judges.excess(evidence, 1.0, **options)


def test_excess_on_paper():
    finding = excess([0.5, 0.6, 0.7], [0.9, 0.9, 0.9])
    assert finding.verdict == HOLDS
    assert finding.value == pytest.approx(0.3, abs=0.01)
    assert finding.low < 0.3 < finding.high
    assert excess([0.9] * 3, [0.9] * 3).verdict == NO_EFFECT
    assert excess([0.9] * 3, [0.5] * 3).verdict == NOT
    assert excess([0.5, 0.5, 0.9], [0.9] * 3).verdict == PARTLY
    assert excess([0.9, 0.9, 0.5], [0.9] * 3).verdict == NO_EFFECT
    assert excess([0.5, 0.5, 0.9], [0.9] * 3, least=2).verdict == HOLDS


def test_an_effect_smaller_than_the_margin_is_no_effect_however_sure():
    assert excess([0.89] * 3, [0.9] * 3).verdict == NO_EFFECT
    assert excess([0.86] * 3, [0.9] * 3).verdict == HOLDS


def test_a_layer_with_many_empty_maps_is_not_decided():
    attack = similar([[0.5, 0.5]])
    attack[:10, 0, 1] = np.nan
    evidence = ArrayEvidence(attack, similar([[0.9, 0.9]], seed=1), strengths=[1.0])
    finding = judges.excess(evidence, 1.0)
    assert finding.verdict == PARTLY
    assert "1 with too many empty maps" in finding.detail
    assert finding.value == pytest.approx(0.4, abs=0.01)


def test_failures_are_judged_apart():
    flat = similar([[0.9, 0.9]])
    evidence = ArrayEvidence(flat, flat, strengths=[1.0],
                failures=(similar([[0.5, 0.5]]), similar([[0.9, 0.9]], seed=1)))  # fmt: skip
    assert judges.excess(evidence, 1.0, success=False).verdict == HOLDS
    assert judges.excess(evidence, 1.0).verdict == NO_EFFECT


def test_mean_and_variance():
    wide = ArrayEvidence(
        similar([[0.5] * 3], spread=0.1), similar([[0.9] * 3], seed=1), strengths=[1.0]
    )
    assert judges.moments(wide).verdict == HOLDS
    narrow = ArrayEvidence(
        similar([[0.5] * 3], spread=0.002), similar([[0.9] * 3], seed=1), strengths=[1.0]
    )
    assert judges.moments(narrow).verdict == NOT


NAMES = ["1-1", "1-2", "2-1", "4-1", "5-1"]


@pytest.mark.parametrize(
    ("means", "verdict", "share"),
    [
        ([0.8, 0.8, 0.8, 0.3, 0.4], HOLDS, 1.0),
        ([0.3, 0.3, 0.35, 0.7, 0.6], NOT, 0.0),
        ([0.3, 0.4, 0.8, 0.8, 0.5], PARTLY, 0.0),
    ],
)
def test_named_layers(means, verdict, share):
    evidence = ArrayEvidence(
        similar([means]), similar([[0.9] * 5], seed=1), strengths=[1.0], layers=NAMES
    )
    finding = judges.named_layers(evidence)
    assert [finding.verdict, finding.value] == [verdict, pytest.approx(share, abs=0.05)]
    other = ArrayEvidence(similar([means]), similar([[0.9] * 5]), strengths=[1.0])
    assert judges.named_layers(other).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("means", "verdict"),
    [([0.3, 0.3, 0.35, 0.7, 0.6], NOT), ([0.6, 0.7, 0.8, 0.3, 0.4], UNDECIDED)],
)
def test_one_named_layer_that_is_decided_can_refute_both(means, verdict):
    attack = similar([means])
    attack[:20, 0, 4] = np.nan
    evidence = ArrayEvidence(attack, similar([[0.9] * 5], seed=1), strengths=[1.0], layers=NAMES)
    finding = judges.named_layers(evidence)
    assert finding.verdict == verdict
    assert finding.detail.endswith("too many empty maps in 5-1")


def test_depth():
    falling, rising = [0.9, 0.8, 0.7, 0.6, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]
    for means, verdict, value in ((falling, HOLDS, -1), (rising, NOT, 1)):
        evidence = ArrayEvidence(similar([means]), similar([means]), strengths=[1.0])
        finding = judges.depth(evidence)
        assert [finding.verdict, finding.value] == [verdict, pytest.approx(value)]


def test_depth_is_decided_where_similarity_as_it_is_agrees():
    means, floor = np.array([0.9, 0.91, 0.92, 0.93, 0.94]), np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    evidence = ArrayEvidence(
        similar([means], spread=0.001), similar([means]), strengths=[1.0], floor=floor
    )
    finding = judges.depth(evidence)
    # Above their floors deeper layers are less similar; as they are, more similar.
    assert [finding.value, finding.verdict] == [pytest.approx(-1), UNDECIDED]
    assert "all layers, as it is: 1.000 [1.000, 1.000] does not hold" in finding.detail


def test_depth_is_decided_where_each_kind_of_place_agrees():
    falling, rising = [0.9, 0.8, 0.7, 0.6], [0.3, 0.35, 0.4, 0.45]
    means = np.column_stack([falling, rising]).ravel()
    summed = np.tile([False, True], 4)
    evidence = ArrayEvidence(
        similar([means], spread=0.001), similar([means]), strengths=[1.0], summed=summed
    )
    finding = judges.depth(evidence)
    assert finding.verdict == UNDECIDED
    assert "inside branches, above the floor: -1.000 [-1.000, -1.000] holds" in finding.detail
    assert "after sums, above the floor: 1.000 [1.000, 1.000] does not hold" in finding.detail
    means = np.column_stack([falling, np.array(falling) - 0.15]).ravel()
    evidence = ArrayEvidence(
        similar([means], spread=0.001), similar([means]), strengths=[1.0], summed=summed
    )
    assert judges.depth(evidence).verdict == HOLDS


def test_compromise_is_judged_by_the_papers_rule_with_a_held_out_quantile_beside():
    by_rule = {"layer_median": 0.4, "held_out_quantile": 0.9}

    def judge(evidence):
        value = by_rule[evidence.protocol.threshold]
        return findings.Finding(value, value, value, HOLDS if value < 0.5 else NOT, "detail")

    median = CORRECTED.model_copy(update={"threshold": "layer_median"})
    evidence = Evidence(None, median, None, None, 1)  # type: ignore[arg-type]
    finding = compromise.by_both_rules(judge)(evidence)
    assert [finding.value, finding.verdict] == [0.4, HOLDS]
    assert finding.detail == (
        "rule layer_median: detail; rule held_out_quantile: 0.900 [0.900, 0.900] does not hold"
    )
    assert not findings.under_review("A9", finding.detail)
    held_out = Evidence(None, CORRECTED, None, None, 1)  # type: ignore[arg-type]
    finding = compromise.by_both_rules(judge)(held_out)
    assert finding.detail == "rule held_out_quantile: detail"
    assert findings.under_review("A9", finding.detail) == findings.RULE_REASON


@pytest.mark.parametrize(
    ("classes", "share", "verdict"),
    [(1000, 0.48, HOLDS), (1000, 0.9, NOT), (18, 0.48, UNDECIDED)],
)
def test_the_share_of_attackable_images_is_judged_on_imagenets_classes(classes, share, verdict):
    success = np.arange(500) < share * 500
    images = pd.DataFrame({"source": np.arange(500), "success": success})
    evidence = ArrayEvidence(similar([[0.5]]), similar([[0.5]]), strengths=[1.0])
    evidence.__dict__["results"] = SimpleNamespace(
        images=images, name="x", record=SimpleNamespace(facts={"classes": classes})
    )  # fmt: skip
    finding = judges.attackable(evidence)
    assert [finding.value, finding.verdict] == [share, verdict]


@pytest.mark.parametrize("claim", ["A1", "A7", "A9"])
def test_a_reading_of_some_images_is_that_of_a_study_of_them_alone(claim, tiny):
    """Twin: the rows of the other images are taken out of the results before anything is read."""
    name = tiny.settings.studies["tiny"].headline
    cell, plan = tiny.settings.cells[name], tiny.settings
    known = settings.protocols(plan.protocols)
    with inside(tiny.folder):
        whole = results.read("tiny", name, cell, known, plan.statistics, seed=plan.seed)
        table = results.load("tiny")["readings"]
    images = whole.images
    part = images[(images["clean"] == images["label"])].reset_index(drop=True)
    assert 0 < len(part) < len(images)
    few = dataclasses.replace(
        whole,
        images=part,
        every=whole.every[whole.every["image"].isin(part["image"])],
    )
    evidence = Evidence(few, few.first, plan.statistics, plan.flags, plan.seed)
    expected = study.JUDGES[claim](evidence)
    row = table.query("cell == @name and reading == 'correct' and claim == @claim").iloc[0]
    assert [row["verdict"], row["images"]] == [expected.verdict, int(part["success"].sum())]
    values = [expected.value, expected.low, expected.high]
    assert row[["value", "low", "high"]].tolist() == pytest.approx(values, abs=1e-3, nan_ok=True)


def test_evidence_of_one_cell_takes_nothing_from_that_of_other_maps_images_or_rules(tiny):
    """An array that evidences share equals the array from results that nothing else has read."""
    name, plan = tiny.settings.studies["tiny"].headline, tiny.settings
    cell, known = plan.cells[name], settings.protocols(plan.protocols)
    with inside(tiny.folder):
        shared = results.read("tiny", name, cell, known, plan.statistics, seed=plan.seed)
    correct = (shared.images["clean"] == shared.images["label"]).to_numpy()
    for protocol in shared.protocols.values():
        for of in (None, correct, ~correct):
            one, alone = (
                Evidence(outputs, protocol, plan.statistics, plan.flags, plan.seed, of=of)
                for outputs in (shared, dataclasses.replace(shared))
            )
            for arm, expected in alone.compromised.items():
                np.testing.assert_array_equal(one.compromised[arm], expected)
            np.testing.assert_array_equal(one.attack, alone.attack)
            np.testing.assert_array_equal(one.unrelated, alone.unrelated)
    assert len(shared.arrays) > 3 * len(known)


def test_own_and_clean_class_are_read_on_the_same_layers(tiny):
    name = tiny.settings.studies["tiny"].headline  # noqa: F841 in the query
    with inside(tiny.folder):
        table = (
            results.load("tiny")["readings"].query("cell == @name").set_index(["reading", "claim"])
        )
    counts = [
        [
            int(n)
            for n in re.findall(r"(\d+) with too many empty", table.loc[(kind, "A1"), "detail"])
        ]
        for kind in ("own class", "clean class")
    ]
    assert counts[0] == counts[1]


def test_same_curves():
    evidence = ArrayEvidence(
        similar([[0.5, 0.6], [0.5, 0.7], [0.9, 0.9]], spread=0.001),
        similar([[0.9, 0.9]] * 3), strengths=[0.5, 1.0, 2.0],
    )  # fmt: skip
    assert judges.same_curves(evidence, [0.5, 1.0], limit=0.05).verdict == NOT
    finding = judges.same_curves(evidence, [0.5, 1.0], limit=0.2)
    assert finding.verdict == HOLDS
    assert finding.detail.startswith(
        "largest: 0.5 and 1 in layer layer 1; 0 of 2 differences beyond 0.2; by two one-sided "
        "tests, seen: largest p 0.0036, would be 'holds'"
    )
    other = judges.same_curves(evidence, [0.5, 1.0], limit=0.2, by_tests=True)
    assert other.verdict == HOLDS
    assert finding.low < other.low < other.value == finding.value < other.high < finding.high
    assert finding.value == pytest.approx(0.1, abs=0.001)
    assert finding.low < finding.value < finding.high
    finding = judges.same_curves(evidence, [0.5, 1.0, 2.0], limit=0.05)
    assert "2 in layer layer 0; 5 of 6" in finding.detail
    assert judges.same_curves(evidence, [0.5, 4.0], limit=0.1).detail == "no strength 4"


def deep(*, layers=53, strengths=(0.25, 2.0, 4.0), images=40):
    """A network of many layers whose curves at three strengths lie far apart."""
    means = np.stack([np.full(layers, mean) for mean in (0.9, 0.5, 0.45)])
    attack = similar(means, spread=0.1, images=images)
    return ArrayEvidence(attack, similar(means, seed=1, images=images), strengths=list(strengths))


def test_a_verdict_is_within_reach_however_many_layers_there_are():
    """159 differences: with 2,000 resamples none could be significant after Holm."""
    evidence = deep()
    assert evidence.resamples == 2 * 159 / 0.05
    finding = judges.same_curves(evidence, [0.25, 2.0, 4.0], limit=0.03)
    assert finding.verdict == NOT
    assert 0.45 < finding.value < 0.58  # the largest of 53, each with an error of 0.02
    beyond = int(finding.detail.split("; ")[1].split(" ")[0])
    assert beyond >= 106  # of .9 against the others, of 53 layers each
    assert judges.excess(ArrayEvidence(similar([[0.5] * 55]), similar([[0.9] * 55], seed=1),
                              strengths=[1.0]), 1.0).verdict == HOLDS  # fmt: skip


def test_a_verdict_out_of_reach_says_so(monkeypatch):
    monkeypatch.setattr(statistics, "MOST_RESAMPLES", 400)
    finding = judges.same_curves(deep(), [0.25, 2.0, 4.0], limit=0.03)
    assert finding.verdict == UNDECIDED
    assert "0 of 159 differences beyond 0.03; " in finding.detail
    assert "; out of reach: after Holm over 159" in finding.detail
    assert "no p-value of 400 resamples is below 0.4" in finding.detail
    layers = ArrayEvidence(similar([[0.5] * 55]), similar([[0.9] * 55], seed=1), strengths=[1.0])
    assert "out of reach: after Holm over 55" in judges.excess(layers, 1.0).detail


def arms(attack, noise, strengths):
    evidence = ArrayEvidence(np.zeros(attack.shape), np.zeros(noise.shape), strengths=strengths)
    evidence.__dict__["compromised"] = {
        "attack": attack.astype(float),
        "noise": noise.astype(float),
    }
    return evidence


def test_compromised_layers():
    rng = np.random.default_rng(0)
    shares = np.array([0.4, 0.5, 0.9]).reshape(1, 3, 1)
    attack, noise = rng.random((600, 3, 6)) < shares, rng.random((600, 3, 6)) < 0.05
    evidence = arms(attack, noise, [0.25, 1.0, 4.0])
    finding = compromise.compromised_at_lowest(evidence)
    assert [finding.verdict, finding.value] == [HOLDS, pytest.approx(0.4, abs=0.02)]
    assert "noise: 5%" in finding.detail
    finding = compromise.compromised_at_extremes(evidence)
    assert [finding.verdict, finding.value] == [PARTLY, pytest.approx(0.4, abs=0.02)]
    # Of six layers at a half each, 21/32 of the images have at most three; all noisy ones do.
    finding = compromise.few_layers(evidence)
    assert [finding.verdict, finding.value] == [NOT, pytest.approx(42 / 64 - 1, abs=0.06)]
    # All six at 0.5: 1/64; at 0.9: 0.53.
    finding = compromise.all_layers(evidence)
    assert finding.value == pytest.approx(1 / 64, abs=0.02)
    assert "slope 0." in finding.detail


def test_images_with_an_empty_map_have_no_number_of_compromised_layers():
    attack = np.ones((40, 1, 3))
    attack[:, :, 2] = np.nan
    evidence = arms(attack, attack, [1.0])
    assert compromise.few_layers(evidence).detail == "every image has an empty map"
    assert compromise.all_layers(evidence).verdict == UNDECIDED


def test_claims_table_puts_published_beside_corrected():
    columns = ["protocol", "claim", "value", "low", "high", "verdict", "images", "detail"]
    flags = pd.DataFrame(
        [("few sources", "A1 A2", ""), ("threshold", "A1", "as_published")],
        columns=["flag", "touches", "protocols"],
    )
    rows = [("as_published", "A1", 0.2, 0.1, 0.3, HOLDS, 9, "x"),
            ("corrected", "A1", 0.0, -0.01, 0.01, NO_EFFECT, 9, "y")]  # fmt: skip
    table = claims.table(
        CLAIMS,
        pd.DataFrame(rows, columns=columns),
        rests_on=lambda claim: "these",
        flags=flags,
    ).set_index("id")
    row = table.loc["A1"]
    assert row[["published_value", "value"]].tolist() == [0.2, 0.0]
    assert row[["published_verdict", "verdict"]].tolist() == [HOLDS, NO_EFFECT]
    assert row[["detail", "flags", "rests_on"]].tolist() == ["y", "few sources", "these"]
    assert row["published_flags"] == "few sources, threshold"
    assert (table.drop("A1")["verdict"] == NOT_RUN).all()
    assert (table.drop("A1")["rests_on"] == "").all()


def with_control(attack, noise, control, *, name="negated"):
    evidence = ArrayEvidence(similar([attack]), similar([noise], seed=1), strengths=[1.0])
    evidence.similarities[name, True] = similar([control], seed=2)
    evidence.__dict__["values"] = pd.DataFrame({"variant": ["adversarial", "noise", name]})
    return evidence


def test_an_attack_goes_beyond_its_control_where_it_moves_maps_further_than_that():
    less = controls.beyond(with_control([0.5] * 3, [0.9] * 3, [0.6] * 3), "negated")
    assert less.verdict == HOLDS
    assert less.value == pytest.approx(0.1, abs=0.01)
    assert "negated has 75% of the excess over noise" in less.detail
    same = controls.beyond(with_control([0.5] * 3, [0.9] * 3, [0.5] * 3), "negated")
    assert same.verdict == NO_EFFECT
    assert "100% of the excess" in same.detail
    evidence = with_control([0.5] * 3, [0.9] * 3, [0.3] * 3)
    assert controls.beyond(evidence, "negated").verdict == NOT
    assert controls.beyond(evidence, "phase_randomised").verdict == NOT_RUN


def test_weak_attacks_deviate_more_where_their_maps_are_less_similar():
    def judge(means):
        curve = np.repeat(np.array(means)[:, None], 2, axis=1)
        arms = similar(curve), similar(curve, seed=1)
        return controls.weak_deviates_more(ArrayEvidence(*arms, strengths=[0.25, 1.0, 2.0, 4.0]))

    assert judge([0.5, 0.6, 0.7, 0.8]).verdict == HOLDS
    assert judge([0.5, 0.6, 0.7, 0.8]).value == pytest.approx(0.2, abs=0.02)  # the least
    assert judge([0.9, 0.6, 0.5, 0.4]).verdict == NOT
    assert judge([0.5, 0.6, 0.7, 0.3]).verdict == PARTLY
    short = ArrayEvidence(similar([[0.5]]), similar([[0.5]]), strengths=[1.0])
    assert controls.weak_deviates_more(short).verdict == NOT_RUN


def test_the_flip_is_most_of_the_drift_where_little_is_left_with_the_class_held(monkeypatch):
    def evidence(attack):
        arms = similar([[attack] * 3]), similar([[0.8] * 3], seed=1)
        held = ArrayEvidence(*arms, strengths=[1.0])
        held.__dict__["values"] = pd.DataFrame({"variant": ["noise"]})
        return held

    def judge(clean_class):
        by_target = {"own_top1": evidence(0.2), "seed_class": evidence(clean_class)}
        monkeypatch.setattr(controls, "replace", lambda _, protocol: by_target[protocol.target])
        return controls.flip_is_most(evidence(0.2))

    assert judge(0.7).value == pytest.approx(1 - 0.1 / 0.6, abs=0.02)
    assert judge(0.7).verdict == HOLDS
    assert judge(0.3).value == pytest.approx(1 - 0.5 / 0.6, abs=0.02)
    assert judge(0.3).verdict == NOT


def test_a_transformer_drifts_as_conv_networks_do_where_a1_and_a8_hold():
    def judge(attack, *, tokens=(True, True, True)):
        arms = similar([attack] * 2), similar([[0.9] * 3] * 2, seed=1)
        evidence = ArrayEvidence(*arms, strengths=[0.25, 1.0], failures=arms)
        layers = pd.DataFrame({"tokens": tokens} if tokens else {"name": ["a", "b", "c"]})
        evidence.__dict__["results"] = SimpleNamespace(record=SimpleNamespace(layers=layers))
        return transformers.as_conv_networks(evidence)

    both = judge([0.5, 0.6, 0.7])
    assert both.verdict == HOLDS
    assert both.value == pytest.approx(0.3, abs=0.02)
    assert both.detail.startswith("A1: 0.3")
    assert all(f"{claim}: " in both.detail for claim in ("A8", "A1f", "A4"))
    # One block moves less than under noise: A1 holds in part, and so F1.
    assert judge([0.5, 0.6, 0.95]).verdict == PARTLY
    assert judge([0.95, 0.96, 0.97]).verdict == NOT
    for others in ((True, False, True), None):
        assert judge([0.5, 0.6, 0.7], tokens=others).verdict == NOT_RUN


def test_noise_flips_as_many_images_as_the_maps_of_the_study_say(tiny):
    with inside(tiny.folder):
        outputs = results.load("tiny")
    headline = tiny.settings.studies["tiny"].headline
    rows = outputs["switches"].query("cell == @headline and protocol == 'corrected'")
    finding = rows.set_index("claim")
    cell = tiny.settings.cells[headline]
    with inside(tiny.folder):
        maps = storage.read(storage.Maps, storage.cell_folder(cell.study, headline, "cam")).select()
        attacked = storage.read(
            storage.Attacked, storage.cell_folder(cell.study, headline, "attack")
        ).images.set_index("image")
    noisy = maps.query(
        "variant == 'noise' and strength == 1 and draw == 0 and target == 'own_top1' "
        "and recipe == 'exact-none-matched'"
    )
    flips = noisy["prediction"].to_numpy() != attacked.loc[noisy["image"], "clean"].to_numpy()
    assert len(flips) == len(attacked)
    assert finding.loc["A17", "value"] == pytest.approx(flips.mean(), abs=1e-3)


def test_the_headline_cell_decides_unless_it_was_not_run():
    switches = pd.DataFrame({
        "cell": ["first", "head", "first", "head", "last"], "claim": ["A", "A", "B", "B", "B"],
        "verdict": [HOLDS, NOT, HOLDS, NOT_RUN, NOT],
    })  # fmt: skip
    assert claims.deciding(switches, "head") == {"A": "head", "B": "first"}
    assert claims.deciding(switches.iloc[3:4], "head") == {"B": "head"}

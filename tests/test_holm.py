"""Holm's correction over the claims of each paper: a twin by statsmodels on their own p-values."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from camdrift.analysis import results
from camdrift.papers import family
from camdrift.papers.chakraborty2022 import verdicts as transfer
from camdrift.papers.findings import HOLDS, NOT
from camdrift.papers.klawikowska2020 import verdicts as inspecting
from camdrift.papers.tan2023 import verdicts as detecting
from camdrift.papers.tan2023.levels import at_level
from camdrift.settings import params
from conftest import ROOT, inside
from test_detection import evaluate, features, images
from test_generalisation import FAMILIES, compared
from test_retraining import example

SETTINGS = params.load(ROOT / "params.yaml")
LEVEL = 0.05
STEPS = 6  # bisections of a p-value


def p_values(verdict_at, claims) -> dict[str, float]:
    """The smallest level at which each decided claim has its verdict, by bisection."""
    smallest = {}
    for claim in claims:
        first = verdict_at(claim, 1 - LEVEL)
        if first in family.OPEN:
            continue
        low, high = 0.0, LEVEL
        for _ in range(STEPS):
            middle = (low + high) / 2
            stands = verdict_at(claim, 1 - middle) == first
            low, high = (low, middle) if stands else (middle, high)
        smallest[claim] = high
    return smallest


def agrees_with_statsmodels(corrected, verdict_at) -> tuple[int, int]:
    """Asserts that the verdicts that stand are those that statsmodels rejects; returns counts."""
    p = p_values(verdict_at, corrected)
    rejects = multipletests(list(p.values()), LEVEL, method="holm")[0] if p else []
    expected = dict(zip(p, rejects, strict=True))
    stands = {claim: corrected[claim] == verdict_at(claim, 1 - LEVEL) for claim in corrected}
    assert {claim: stands[claim] for claim in p} == expected
    assert all(stands[claim] for claim in corrected if claim not in p)
    return len(p), sum(rejects)


def test_verdicts_on_retraining():
    """C1 asks for 30 % of 180, C2b for half as many: 68 and 38 % are little beyond that."""
    one = example(tests=200, right=180, success={"fgsm": 150, "one_pixel": 68}, anew=0.38)

    def verdict_at(claim, confidence):
        settings = one.settings.model_copy(update={"confidence": confidence})
        return inspecting.JUDGES[claim][0](replace(one, settings=settings)).verdict

    count, stands = agrees_with_statsmodels(inspecting.after_holm(one), verdict_at)
    assert count > 3
    assert stands == count - 2
    plan = SETTINGS.retrainings["inspecting"]
    table = inspecting.claims_table(one, plan, SETTINGS.flags).set_index("id")
    assert table["after_holm"].to_dict() == inspecting.after_holm(one)


def test_verdicts_on_transfer():
    study = compared({name: {"lost": [0.0, 0.25]} for name in FAMILIES if name != "VGG16"})

    def verdict_at(claim, confidence):
        settings = study.settings.model_copy(update={"confidence": confidence})
        level = replace(study, settings=settings)
        return transfer.first_finding(level, claim, SETTINGS.flags).verdict

    corrected = transfer.after_holm(study, SETTINGS.flags)
    count, _ = agrees_with_statsmodels(corrected, verdict_at)
    assert count > 1
    table = transfer.claims_table(study, SETTINGS.flags).set_index("id")
    assert table["after_holm"].to_dict() == corrected


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_verdicts_on_detectors(share):
    rows, strengths = features(strengths=(0.25, 1.0, 4.0), share=share), (0.25, 1.0, 4.0)
    attacked = rows[(rows["variant"] == "adversarial") & (rows["strength"] == 1)]
    test = attacked[attacked["image"] >= 20]
    noise = rows[(rows["variant"] == "noise") & (rows["strength"] == 1) & (rows["image"] >= 20)]
    parts = [rows]
    for arm in ("non_adaptive", "adaptive"):
        parts.append(test.assign(variant=arm, against="behaviour_median"))
        parts.append(noise.assign(variant=f"{arm}_noise", against="behaviour_median"))
    everything = SimpleNamespace(features=pd.concat(parts, ignore_index=True), images=images())
    one = evaluate(share=share, strengths=strengths)
    mine = detecting.Evaluations(one, pd.DataFrame({"cell": ["a"]}), 224)

    @cache
    def verdicts(confidence):
        level = at_level({"a": mine}, {"a": everything}, "a", confidence=confidence)
        rows = detecting.judge_evaluations(level)
        return dict(zip(rows["claim"], rows["verdict"], strict=True))

    def verdict_at(claim, confidence):
        return verdicts(confidence)[claim]

    agrees_with_statsmodels(family.after_holm(verdicts, confidence=1 - LEVEL), verdict_at)


STUDIES = ("tiny", "tiny_detectors", "tiny_inspecting", "tiny_generalising", "tiny_maps")


@pytest.mark.parametrize("study", STUDIES)
def test_every_paper_has_the_second_verdict(tiny, study):
    with inside(tiny.folder):
        table = results.load(study)["claims"]
        text = (tiny.folder / "data/reports" / study / "README.md").read_text()
    assert (table["after_holm"] != "").all()
    still = table["verdict"].isin(family.OPEN)
    assert (table["after_holm"] == table["verdict"])[still].all()
    assert not ((table["after_holm"] == HOLDS) & (table["verdict"] == NOT)).any()
    assert "Holm's correction" in text

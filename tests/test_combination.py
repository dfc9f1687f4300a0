"""Verdicts over several studies: cases whose answers follow from the rule on paper."""

import pandas as pd
import pytest

from camdrift import settings
from camdrift.ops import combination, readme, summary
from camdrift.papers.findings import HOLDS, NO_EFFECT, NOT, NOT_RUN, PARTLY, UNDECIDED, Claim
from camdrift.settings import params
from conftest import inside

MIXED = combination.MIXED


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS], HOLDS),
        ([PARTLY], PARTLY),
        ([NO_EFFECT], NOT),
        ([UNDECIDED], UNDECIDED),
        ([NOT_RUN], NOT_RUN),
        ([HOLDS, HOLDS, UNDECIDED], HOLDS),
        ([HOLDS, UNDECIDED], MIXED),
        ([HOLDS, PARTLY], HOLDS),
        ([PARTLY, PARTLY], PARTLY),
        ([HOLDS, UNDECIDED, UNDECIDED], MIXED),
        ([HOLDS, HOLDS, HOLDS, NOT], MIXED),
        ([NOT, NOT, UNDECIDED], NOT),
        ([NOT, UNDECIDED], MIXED),
        ([HOLDS, NOT_RUN], HOLDS),
    ],
)
def test_networks_and_seeds_give_one_verdict_of_a_set(verdicts, expected):
    assert combination.within_set(verdicts) == expected
    assert combination.within_set(verdicts[::-1]) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS], HOLDS),
        ([HOLDS, UNDECIDED, NOT_RUN], HOLDS),
        ([HOLDS, HOLDS, MIXED], HOLDS),
        ([HOLDS, MIXED], UNDECIDED),
        ([PARTLY, PARTLY], PARTLY),
        ([HOLDS, MIXED, MIXED], UNDECIDED),
        ([HOLDS, HOLDS, PARTLY], HOLDS),
        ([HOLDS, PARTLY], HOLDS),
        ([PARTLY], PARTLY),
        ([HOLDS, NOT], MIXED),
        ([NOT, NOT, MIXED], NOT),
        ([MIXED], UNDECIDED),
        ([UNDECIDED], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_sets_give_one_verdict_of_a_claim(verdicts, expected):
    assert combination.over_sets(dict(enumerate(verdicts))) == expected


def rows(*entries):
    columns = ["claim", "set", "votes", "verdict"]
    return pd.DataFrame(list(entries), columns=columns).assign(review="")


def claim(name, where="IV"):
    return Claim(name, "paper", "Says", where, "", "statistic", "> 0", ())


def test_tiles_have_a_vote_only_where_no_other_set_speaks():
    matrix = rows(
        ("X1", "photos", False, NOT), ("X1", "faces", True, HOLDS), ("X2", "photos", False, NOT)
    )  # fmt: skip
    table = combination.combined(matrix, [claim("X1"), claim("X2"), claim("X3")])
    assert list(table["verdict"]) == [HOLDS, NOT, NOT_RUN]
    assert list(table["on"]) == ["faces", "tiles", "-"]


def test_claims_that_were_seen_are_decided_on_new_sets_alone():
    matrix = rows(
        ("X1", "nips17", True, HOLDS), ("X1", "new", True, NOT), ("X2", "nips17", True, HOLDS)
    )  # fmt: skip
    table = combination.combined(matrix, [claim("X1", "ours, seen"), claim("X2", "ours, seen")])
    assert list(table["verdict"]) == [NOT, "seen (holds)"]


def test_a_set_that_contradicts_itself_is_mixed_where_no_other_decides():
    matrix = rows(
        ("X1", "new", True, HOLDS), ("X1", "new", True, NOT),
        ("X2", "nips17", True, HOLDS), ("X2", "new", True, HOLDS), ("X2", "new", True, NOT),
        ("X3", "new", True, HOLDS), ("X3", "new", True, NOT), ("X3", "other", True, HOLDS),
    )  # fmt: skip
    claims = [claim("X1"), claim("X2", "ours, seen"), claim("X3")]
    assert list(combination.combined(matrix, claims)["verdict"]) == [MIXED, MIXED, UNDECIDED]


def test_a_rule_that_changed_after_results_is_seen_on_their_sets():
    matrix = rows(
        ("A10", "nips17", True, HOLDS), ("A9", "nips17", True, NOT), ("A9", "new", True, HOLDS)
    )
    table = combination.combined(matrix, [claim("A10"), claim("A9")])
    assert list(table["verdict"]) == ["seen (holds)", HOLDS]


def test_a_verdict_under_review_has_no_vote():
    matrix = rows(("A9", "nips17", True, NOT), ("A9", "new", True, HOLDS), ("X1", "old", True, NOT))
    matrix["review"] = ["an earlier rule", "", "an earlier rule"]
    table = combination.combined(matrix, [claim("A9"), claim("X1")])
    assert table[["verdict", "on"]].to_numpy().tolist() == [[HOLDS, "new"], ["under review", "old"]]


def test_every_claim_of_every_published_study_is_an_entry(published):
    with inside(published):
        plan = params.load()
        studies = readme.studies(plan)
        matrix = combination.evidence(plan, studies)
        pairs = {
            (name, row["id"])
            for name in studies
            for row in readme.results.load(name)["claims"].to_dict("records")
            if row["verdict"] != NOT_RUN
        }
        table = pd.read_csv(summary.MATRIX)
    assert list(table["verdict"]) == list(matrix["verdict"])
    assert set(zip(matrix["study"], matrix["claim"], strict=True)) == pairs
    votes = matrix.groupby("set")["votes"].first()
    assert not votes["photos"]
    assert votes[["nips17", "orl", "cats_dogs"]].all()
    networks = matrix.groupby("study")["network"].first()
    assert networks["transformer"] == "vit"
    assert networks["layers"] == "vgg16_quarter"
    every = combination.every_claim(settings.PAPERS)
    assert set(matrix["claim"]) <= {claim.id for claim in every}


def test_a_verdict_that_other_seeds_reverse_is_mixed(published, monkeypatch):
    spread = pd.DataFrame(
        [(1, "", "A3", 0.0, NOT), (2, "", "A3", 1.0, HOLDS), (3, "", "A3", None, NOT_RUN),
         (2, "", "F1", 1.0, HOLDS), (2, "none", "accuracy", 0.9, "")],
        columns=["seed", "cell", "name", "value", "verdict"],
    )  # fmt: skip
    with inside(published):
        plan = params.load()
        monkeypatch.setattr(combination.seeds, "read", lambda study: None)
        alone = combination.evidence(plan, {"layers": plan.studies["layers"]})
        monkeypatch.setattr(combination.seeds, "read", lambda study: spread)
        both = combination.evidence(plan, {"layers": plan.studies["layers"]})
    assert alone["seed"].eq(1).all()
    more = both[both["seed"] == 2]
    assert more[["claim", "verdict", "network"]].values.tolist() == [["A3", HOLDS, "vgg16_quarter"]]
    assert len(both) == len(alone) + 1
    every = combination.every_claim(settings.PAPERS)
    assert combination.combined(both, every).set_index("claim").loc["A3", "verdict"] == MIXED

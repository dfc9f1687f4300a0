"""Holm over the claims of a study: p-values on paper, and a twin by statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from camdrift.papers import family
from camdrift.papers.findings import HOLDS, NO_EFFECT, NOT, NOT_RUN, PARTLY, UNDECIDED


def judged(p):
    """Verdicts of claims with these p-values: decided where p is below the level."""
    return lambda confidence: {
        name: HOLDS if value <= 1 - confidence else UNDECIDED for name, value in p.items()
    }


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_statsmodels(seed):
    values = np.random.default_rng(seed).random(8) ** 4 / 4
    p = {f"A{i}": value for i, value in enumerate(values)}
    decided = {name: value for name, value in p.items() if value <= 0.05}
    corrected = family.after_holm(judged(p), confidence=0.95)
    rejected = multipletests(list(decided.values()), 0.05, method="holm")[0] if decided else []
    expected = dict.fromkeys(p, UNDECIDED) | {
        name: HOLDS if reject else UNDECIDED for name, reject in zip(decided, rejected, strict=True)
    }
    assert corrected == expected


def test_claims_that_are_open_are_no_part_of_the_family():
    verdicts = {"A1": HOLDS, "A2": UNDECIDED, "A3": NOT_RUN}
    assert family.after_holm(lambda confidence: verdicts, confidence=0.95) == verdicts


def test_a_verdict_becomes_what_is_left_of_it():
    def verdicts(confidence):
        return {"A1": HOLDS if confidence < 0.97 else PARTLY, "A2": NOT}

    # A2 stands at any level, so A1 is asked at the whole level, at which it holds.
    assert family.after_holm(verdicts, confidence=0.95) == {"A1": HOLDS, "A2": NOT}

    def with_margin(confidence):
        return {"A1": PARTLY if confidence < 0.97 else HOLDS,
                "A2": NO_EFFECT if confidence < 0.97 else HOLDS}  # fmt: skip

    # Wider intervals leave a margin: "in part" stands, and "no effect" does not.
    assert family.after_holm(with_margin, confidence=0.95) == {"A1": PARTLY, "A2": NO_EFFECT}

    def both(confidence):
        return {"A1": HOLDS if confidence < 0.97 else PARTLY,
                "A2": NOT if confidence < 0.96 else UNDECIDED}  # fmt: skip

    assert family.after_holm(both, confidence=0.95) == {"A1": PARTLY, "A2": UNDECIDED}

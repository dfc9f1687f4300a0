"""Other readings of the claims: on some images, with maps of another class, by another rule."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from camdrift.analysis.evidence import Evidence
from camdrift.papers.findings import NOT_RUN, Finding, nothing
from camdrift.papers.renkhoff2022.verdicts import CURVES, same_curves
from camdrift.storage import OWN, SEED

# Claims that rest on the similarity of maps; A1s and F1 are comparisons of readings themselves.
CLAIMS = (
    "A1", "A1f", "A1n", "A1p", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "A10", "A11", "A12",
    "A16", "A18",
)  # fmt: skip
# Of claims that curves are alike: a rule from after the results, for the same images and maps.
BY_TESTS = "two one-sided tests (seen)"
COLUMNS = ("reading", "claim", "value", "low", "high", "verdict", "images", "detail")


def readings(evidence: Evidence) -> dict[str, Evidence]:
    """Returns the other readings of a cell's evidence, by name.

    correct: images that the model classifies correctly when clean.
    survives 8 bit: of the images that the attack flips, those that it also flips when the attacked
    image is rounded to 8 bit, as a file would store it; and all that it does not flip.
    own class, clean class: every map for its image's own class, or for the clean image's, over the
    layers with few empty maps under both.
    """
    images = evidence.images
    correct = (images["clean"] == images["label"]).to_numpy()
    survives = (images["success_8bit"] | ~images["success"]).to_numpy()
    by_class = {
        name: replace(evidence, protocol=evidence.protocol.model_copy(update={"target": target}))
        for name, target in (("own class", OWN), ("clean class", SEED))
    }
    rung = evidence.rung(1.0)
    common = np.logical_and.reduce(
        [other.decided((other.noise - other.attack)[:, rung]) for other in by_class.values()]
    )
    return {
        "correct": replace(evidence, of=correct),
        "survives 8 bit": replace(evidence, of=survives),
        **{name: replace(other, common=common) for name, other in by_class.items()},
    }


def table(evidence: Evidence, judges: Mapping[str, Callable[[Evidence], Finding]]) -> pd.DataFrame:
    """Returns the finding of each reading on each claim: `COLUMNS`.

    Args:
        evidence: of a cell, under its first protocol.
        judges: by the id of their claim.
    """
    rows = []
    others = readings(evidence) if evidence.images["success"].any() else {}
    for name, other in others.items():
        flipped = other.images["success"]
        for claim in CLAIMS:
            number = int((~flipped if claim == "A1f" else flipped).sum())
            finding = judges[claim](other) if number else nothing("no such images")
            if finding.verdict != NOT_RUN:
                rows.append((name, claim, finding.value, finding.low, finding.high,
                             finding.verdict, number, finding.detail))  # fmt: skip
    if evidence.images["success"].any():
        for claim, curves in CURVES.items():
            finding = same_curves(evidence, **curves, by_tests=True)
            if finding.verdict != NOT_RUN:
                rows.append((BY_TESTS, claim, finding.value, finding.low, finding.high,
                             finding.verdict, int(evidence.images["success"].sum()),
                             finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))

"""Comparison with the published results: claims whose differences follow on paper."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from camdrift import storage
from camdrift.ops import compare
from camdrift.papers.findings import HOLDS, NOT, NOT_RUN, UNDECIDED
from camdrift.storage import files
from conftest import ROOT, inside


def claims(*rows):
    columns = ["id", "value", "low", "high", "verdict"]
    return pd.DataFrame(list(rows), columns=columns)


BEFORE = claims(
    ("A1", 0.5, 0.4, 0.6, HOLDS), ("A2", 0.2, 0.1, 0.3, HOLDS), ("A3", 0.0, np.nan, np.nan, NOT),
    ("A4", np.nan, np.nan, np.nan, NOT_RUN), ("A5", 0.1, 0.0, 0.2, UNDECIDED),
)  # fmt: skip
NOW = claims(
    ("A1", 0.5, 0.4, 0.6, HOLDS), ("A2", 0.05, -0.1, 0.2, UNDECIDED),
    ("A3", 0.0, np.nan, np.nan, NOT), ("A4", np.nan, np.nan, np.nan, NOT_RUN),
    ("A5", 0.1, 0.0, 0.2, UNDECIDED), ("A6", 0.3, 0.2, 0.4, HOLDS),
)  # fmt: skip


def test_a_study_that_is_the_same_differs_in_nothing():
    row, lines = compare.compared("x", BEFORE, BEFORE)
    assert [row[name] for name in compare.COLUMNS[1:]] == [4, 4, 4, 4, 0.0]
    assert not lines


def test_differences_are_counted_in_units_of_the_published_interval():
    row, lines = compare.compared("x", BEFORE, NOW)
    # A2 moves by .15 where half of the published interval is .1; A6 is new; A4 is asked in neither.
    assert [row[name] for name in compare.COLUMNS[1:5]] == [5, 3, 4, 3]
    assert row["largest difference"] == pytest.approx(1.5)
    assert lines == [
        "x A2: holds 0.200 [0.100, 0.300]; here not decided 0.050 [-0.100, 0.200]",
        "x A6: no such claim; here holds 0.300 [0.200, 0.400]",
    ]


def write(claims, at):
    files.write_csv(at(storage.results("x", "tables")) / "claims.csv", claims.assign(detail="d"))


def test_this_machines_results_are_compared_with_the_published(tmp_path):
    with inside(tmp_path):
        write(BEFORE, storage.published)
        write(BEFORE, Path)
        assert compare.report(["x"]) == (
            "This machine reproduces 4 of 4 published verdicts and 4 of 4 values. The largest "
            "difference is 0.00 of half an interval."
        )
        write(NOW, Path)
        text = compare.report(["x", "y"])
    assert "reproduces 3 of 5 published verdicts and 3 of 4 values" in text
    assert "largest difference is 1.50 of half" in text
    assert "Verdicts that differ: 2\nx A2: holds" in text
    assert text.endswith("Not compared, as no results are published: y")


def test_a_study_that_is_not_built_is_refused(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for words in ([], ["layers"]):
        monkeypatch.setattr("sys.argv", ["compare", *words])
        with inside(tmp_path), pytest.raises(FileNotFoundError, match="no results of 'layers'"):
            compare.main()

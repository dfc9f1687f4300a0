"""Comparison with the published results: claims whose differences follow on paper."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from camdrift import storage
from camdrift.ops import compare
from camdrift.papers.findings import HOLDS, NOT, NOT_RUN, UNDECIDED
from camdrift.storage import files
from conftest import inside


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


@pytest.fixture
def repository(tmp_path):
    """A repository whose commit has the results of one study, 'x'."""

    def git(*words):
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    with inside(tmp_path):
        files.write_csv(storage.results("x", "tables") / "claims.csv", BEFORE.assign(detail="d"))
        git("init")
        git("add", ".")
        git("commit", "-m", "results")
        yield git


def test_the_current_commit_is_compared_with_the_work_tree(repository):
    assert compare.report(["x"]) == (
        "This machine reproduces 4 of 4 published verdicts and 4 of 4 values (those of the current "
        "commit). The largest difference is 0.00 of half an interval."
    )
    files.write_csv(storage.results("x", "tables") / "claims.csv", NOW.assign(detail="d"))
    text = compare.report(["x", "y"])
    assert "reproduces 3 of 5 published verdicts and 3 of 4 values" in text
    assert "largest difference is 1.50 of half" in text
    assert "Verdicts that differ: 2\nx A2: holds" in text
    assert text.endswith("Not compared, as the current commit has no results: y")


def test_without_a_commit_nothing_is_compared(tmp_path):
    with inside(tmp_path):
        files.write_csv(storage.results("x", "tables") / "claims.csv", BEFORE.assign(detail="d"))
        assert compare.report(["x"]).startswith("Not compared")

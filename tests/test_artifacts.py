from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from camdrift import artifacts


@dataclass(frozen=True)
class Sample:
    values: np.ndarray
    rows: pd.DataFrame
    facts: dict


def sample() -> Sample:
    rows = pd.DataFrame({"image": [0, 1], "name": ["a", "b"]})
    return Sample(np.arange(6, dtype=np.float16).reshape(2, 3), rows, {"classes": 2})


def test_reads_back_what_was_written(tmp_path):
    artifacts.write(tmp_path, sample())
    found = artifacts.read(Sample, tmp_path)
    np.testing.assert_array_equal(found.values, sample().values)
    pd.testing.assert_frame_equal(found.rows, sample().rows)
    assert found.facts == {"classes": 2}


def test_same_content_same_bytes(tmp_path):
    for name in ("one", "two"):
        artifacts.write(tmp_path / name, sample())
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "facts.json"
    artifacts.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), artifacts.whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_a_missing_artefact_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        artifacts.read(Sample, tmp_path)


def test_an_array_of_objects_is_refused(tmp_path):
    objects = Sample(np.array([{}], dtype=object), sample().rows, {})
    with pytest.raises(ValueError, match="allow_pickle"):
        artifacts.write(tmp_path, objects)

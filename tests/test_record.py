"""Records: small, exact to four digits, and all that a report reads of a cell."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from camdrift import settings, storage
from camdrift.analysis import results, tables
from camdrift.ops import publication
from camdrift.storage import Attacked, Covered, Maps, Noise, Record, Scores
from camdrift.storage.record import covered, rounded
from conftest import inside

CELL = "tiny_dlfuzz"


@pytest.fixture(scope="module")
def record(tiny) -> Record:
    with inside(tiny.folder):
        return storage.read(Record, storage.cell_folder("tiny", CELL, "record"))


@pytest.fixture(scope="module")
def written(tiny) -> dict:
    kinds = {"attack": Attacked, "noise": Noise, "cam": Maps, "coverage": Covered, "score": Scores}
    with inside(tiny.folder):
        return {
            stage: storage.read(kind, storage.cell_folder("tiny", CELL, stage))
            for stage, kind in kinds.items()
        }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 0.0), (0.123449, 0.1234), (-0.98766, -0.9877), (60.12347, 60.1235), (1.0, 1.0),
     (0.994321, 0.99432), (0.9995432, 0.999543), (0.9999996, 1.0), (1.00002, 1.00002),
     (np.nan, np.nan), (np.inf, np.inf)],
)  # fmt: skip
def test_rounding_on_paper(value, expected):
    assert rounded(np.array([value]))[0] == np.float32(expected) or np.isnan(value)


def test_what_is_rounded_stays():
    once = rounded(1 - np.geomspace(1e-7, 2, 10_000))
    assert (rounded(once) == once).all()


def test_neurons_are_those_of_each_image():
    """Rows in another order than the images, a number of images that fills no byte."""
    rng = np.random.default_rng(0)
    images = pd.Series([7, 3, 11])
    rows = pd.DataFrame(
        [(image, *arm) for arm in (("clean", 0.0), ("noise", 0.5)) for image in (3, 7, 11)],
        columns=["image", "variant", "strength"],
    )
    bits = rng.random((6, 5)) < 0.5
    table = covered(bits, rows, images)
    blank = pd.DataFrame()
    frame = pd.DataFrame({"image": images})
    known = Record(frame, blank, blank, blank, blank, table, blank, {}).bits()
    assert set(known) == {("clean", 0.0), ("noise", 0.5)}
    for (variant, strength), own in known.items():
        for k, image in enumerate(images):
            (row,) = rows.index[(rows["image"] == image) & (rows["variant"] == variant)]
            assert rows.loc[row, "strength"] == strength
            assert own[k].tolist() == bits[row].tolist()


def test_a_record_has_every_score_of_its_cell(record, written):
    keys = [name for name in written["score"].values if name != "value"]
    texts = dict.fromkeys(("reading", "variant", "target", "method", "layer", "score"), str)
    whole = written["score"].values.astype(texts).set_index(keys)["value"].sort_index()
    mine = record.scores.astype(texts).set_index(keys)["value"].sort_index()
    assert mine.index.equals(whole.index)
    np.testing.assert_allclose(mine, whole, atol=5.1e-5)
    near = (whole > 0.9995).to_numpy()
    assert near.sum() > 100
    np.testing.assert_allclose(mine[near], whole[near], atol=6e-7)
    assert whole.isna().any()
    assert list(record.scores["layer"].cat.categories) == list(record.layers["label"])


def test_a_record_has_what_the_stages_wrote(record, written):
    images, noise = record.images, written["noise"]
    pd.testing.assert_frame_equal(images[list(written["attack"].images)], written["attack"].images)
    assert (images["raised_size"] == noise.raised["size"]).all()
    assert (images["boundary_flipped"] == noise.boundary["flipped"]).all()
    assert record.facts["values"] == written["attack"].perturbation[0].size
    assert record.facts["methods"] == written["cam"].methods
    order = ["recipe", "strength", "draw", "image"]
    sizes = noise.scales.sort_values(order)
    np.testing.assert_allclose(record.sizes["noise_l2"], sizes["noise_l2"], rtol=1e-6)
    rows = written["cam"].select().query("target == 'own_top1'").set_index(["variant", "image"])
    own = record.variants.set_index(["variant", "image"])
    assert len(own) == len(rows)
    assert (own.loc["negated", "prediction"] == rows.loc["negated", "prediction"]).all()


def test_a_record_has_no_pixels_and_no_maps(tiny, record):
    """Its largest column has one number for each score."""
    with inside(tiny.folder):
        folder = storage.cell_folder("tiny", CELL, "record")
        files = {file.name: file.stat().st_size for file in folder.iterdir()}
        scores = storage.cell_folder("tiny", CELL, "score") / "values.parquet"
        assert files["scores.parquet"] < 0.6 * scores.stat().st_size
        assert not [name for name in files if name.endswith(".npy")]
        known = pq.ParquetFile(folder / "scores.parquet").metadata
    assert known.num_row_groups == 1
    assert known.num_rows == len(record.scores)


def test_a_compact_table_is_the_same_again(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "image": np.arange(3000), "kind": pd.Categorical(["a", "b", "c"] * 1000),
        "single": rng.random(3000).astype(np.float32), "double": rng.random(3000),
        "units": rng.integers(0, 9999, 3000).astype(np.int32), "few": [1.5, np.nan, 2.5] * 1000,
        "right": rng.random(3000) < 0.5, "bytes": [b"ab"] * 3000,
    })  # fmt: skip
    for name, part in {"whole": table, "empty": table.iloc[:0]}.items():
        paths = [tmp_path / f"{name}_{i}.parquet" for i in range(2)]
        for path in paths:
            storage.files.write_compact(path, part)
        back = pd.read_parquet(paths[0])
        pd.testing.assert_frame_equal(back, part, check_categorical=len(part) > 0)
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_another_score_gives_another_table(tiny, record, tmp_path):
    plan, name = tiny.settings, CELL
    known = settings.protocols(plan.protocols)
    rows = record.scores
    mine = rows.query(
        "method == 'GradCAM' and variant == 'adversarial' and strength == 1 and value > 0.9"
    )
    mine = mine[mine["reading"] == next(iter(known.values())).reading]
    changed = rows.assign(value=rows["value"].where(rows.index != mine.index[0], 0.1))
    curves = []
    for scores in (rows, changed):
        with inside(tmp_path):
            own = dataclasses.replace(record, scores=scores)
            storage.write(storage.results("tiny", f"records/{name}"), own)
            read = results.read("tiny", name, plan.cells[name], known, plan.statistics, seed=1)
            curves.append(tables.similarity(read).round(3))
    assert not curves[0].equals(curves[1])
    assert curves[0].shape == curves[1].shape


def test_without_records_nothing_is_analysed_again(tiny, tmp_path):
    published = tmp_path / "data" / "results" / "tiny"
    published.mkdir(parents=True)
    shutil.copy(tiny.folder / "data" / "reports" / "tiny" / "settings.json", published)
    with inside(tmp_path), pytest.raises(FileNotFoundError, match="make repro STUDY=tiny"):
        publication.reanalyse("tiny")

import errno
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from camdrift import storage
from camdrift.storage import files


@dataclass(frozen=True)
class Sample:
    values: np.ndarray
    rows: pd.DataFrame
    facts: dict


def sample() -> Sample:
    rows = pd.DataFrame({"image": [0, 1], "name": ["a", "b"]})
    return Sample(np.arange(6, dtype=np.float16).reshape(2, 3), rows, {"classes": 2})


def test_reads_back_what_was_written(tmp_path):
    storage.write(tmp_path, sample())
    artefact = storage.read(Sample, tmp_path)
    np.testing.assert_array_equal(artefact.values, sample().values)
    pd.testing.assert_frame_equal(artefact.rows, sample().rows)
    assert artefact.facts == {"classes": 2}


def test_same_content_same_bytes(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        storage.write(Path("sample"), sample())
    for file in (tmp_path / "one/sample").iterdir():
        assert file.read_bytes() == (tmp_path / "two/sample" / file.name).read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "facts.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), files.whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_a_missing_artefact_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        storage.read(Sample, tmp_path)


def test_an_array_of_objects_is_refused(tmp_path):
    objects = Sample(np.array([{}], dtype=object), sample().rows, {})
    with pytest.raises(ValueError, match="allow_pickle"):
        storage.write(tmp_path, objects)


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """Two cells' artefacts, below the folder that the study's paths start from."""
    monkeypatch.chdir(tmp_path)
    folders = [storage.cell_folder("layers", name, "cam") for name in ("fgsm", "pgd")]
    for folder in folders:
        storage.write(folder, sample())
    return folders


AGAIN = "dvc repro --force --no-run-cache --single-item cam@fgsm"


def test_a_truncated_file_is_named_with_what_builds_it_anew(cells):
    path = cells[0] / "values.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(files.DamagedError, match=f"values.npy has .* bytes, wanted .*{AGAIN}"):
        storage.read(Sample, cells[0])


def test_a_flipped_bit_is_found(cells):
    path = cells[0] / "values.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(files.DamagedError, match=f"values.npy has sha256 .*{AGAIN}"):
        storage.read(Sample, cells[0])


def test_a_file_that_is_checked_once_and_then_damaged_is_found(cells):
    storage.read(Sample, cells[0])
    path = cells[0] / "facts.json"
    path.write_text(path.read_text().replace("2", "3"))
    with pytest.raises(files.DamagedError, match="facts.json has sha256"):
        storage.read(Sample, cells[0])


def test_another_cells_artefact_is_found(cells):
    shutil.rmtree(cells[0])
    shutil.copytree(cells[1], cells[0])
    with pytest.raises(files.DamagedError, match=f"fgsm/cam holds the files of .*pgd/cam.*{AGAIN}"):
        storage.read(Sample, cells[0])


def test_a_damaged_manifest_is_named(cells):
    (cells[0] / files.MANIFEST).write_text("{")
    with pytest.raises(files.DamagedError, match="manifest.json cannot be read"):
        storage.read(Sample, cells[0])


@pytest.mark.parametrize(
    ("folder", "stage"),
    [
        (storage.set_folder("photos"), "fetch@photos"),
        (storage.model_folder("inspecting_pgd"), "retrain@inspecting"),
        (storage.model_folder("vgg16"), "train@vgg16"),
        (storage.cell_folder("layers", "fgsm", "score"), "score@fgsm"),
        (storage.cell_folder("layers", "fgsm", "coverage"), "noise@fgsm"),
        (storage.cell_folder("detectors", "fgsm", "similarity"), "score@fgsm"),
        (storage.cell_folder("signs_of", "inspecting", "retrain"), "retrain@inspecting"),
        (storage.end_folder("all", "signs", "vgg16"), "gradient_sign@vgg16"),
        (storage.end_folder("all", "transferred", "vgg16"), "transfer@vgg16"),
    ],
)
def test_the_stage_that_writes_a_folder(folder, stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_json(storage.model_card("vgg16"), {})
    assert storage.writer(folder) == stage


def test_parts_are_joined_end_to_end(tmp_path):
    first, second = sample(), sample()
    more = Sample(second.values + 1, second.rows.assign(name=["c", "d"]), {"classes": 2})
    nothing = Sample(first.values[:0], first.rows[:0], {"classes": 2})
    storage.join(tmp_path / "joined", iter([first, nothing, more]), extra=first.rows)
    artefact = storage.read(Sample, tmp_path / "joined")
    np.testing.assert_array_equal(artefact.values, np.concatenate([first.values, more.values]))
    assert list(artefact.rows["name"]) == ["a", "b", "c", "d"]
    some = storage.read(Sample, tmp_path / "joined", only={"rows": {"name": ["b", "c"]}})
    assert list(some.rows["name"]) == ["b", "c"]
    assert len(storage.rows(Sample, tmp_path / "joined", "rows", name="d")) == 1


def test_parts_of_different_kinds_are_refused(tmp_path):
    other = Sample(sample().values.astype(np.float32), sample().rows, {})
    with pytest.raises(ValueError, match="wanted parts of float16"):
        storage.join(tmp_path, [sample(), other])


def test_many_parts_are_joined_as_numpy_would_write_them(tmp_path):
    """The header is written before the number of rows is known."""
    values = np.arange(3 * 4000, dtype=np.float64).reshape(4000, 3)
    with files.arrays(tmp_path / "parts.npy") as add:
        for part in np.array_split(values, 7):
            add(part)
    np.save(tmp_path / "whole.npy", values)
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_full_disk_is_said_and_leaves_what_is_no_artefact(cells, suffix):
    """RLIMIT_FSIZE makes a write fail as on a full disk, after so many bytes."""
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np, pandas as pd\n"
        "from test_artifacts import Sample; from camdrift import storage\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "numbers = np.random.default_rng(0).random(20_000)\n"
        "array, table = np.zeros(3), pd.DataFrame({'a': [1]})\n"
        f"if {suffix!r} == '.npy': array = numbers\n"
        "else: table = pd.DataFrame({'a': numbers})\n"
        "from camdrift.storage import files\n"
        "try: storage.write(Path(sys.argv[1]), Sample(array, table, {}))\n"
        "except files.UnwrittenError as fault: sys.exit(str(fault))\n"
    )
    paths = [str(Path(storage.__file__).parents[2]), str(Path(__file__).parent)]
    answer = subprocess.run(
        [sys.executable, "-c", code, str(cells[0])], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert answer.returncode == 1
    assert re.search(r"could not write .*fgsm/cam.*make room", answer.stderr)
    assert "Traceback" not in answer.stderr
    assert not list(cells[0].glob("*.tmp"))
    with pytest.raises(
        FileNotFoundError, match="manifest.json, which is not there; run `dvc repro`"
    ):
        storage.read(Sample, cells[0])
    storage.write(cells[0], sample())
    assert storage.read(Sample, cells[0]).facts == sample().facts


def test_a_read_only_place_is_named(tmp_path, monkeypatch):
    """The disk's own word: the superuser, who runs some tests, may write where nobody may."""
    path = tmp_path / "results/tables/claims.csv"

    def replace(temporary: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(files.UnwrittenError, match=f"could not write {path}: Read-only.*writable"):
        files.write_csv(path, pd.DataFrame({"a": [1]}))
    assert not list(path.parent.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    with pytest.raises(files.UnwrittenError, match="could not write .*taken"):
        storage.write(tmp_path / "taken", sample())

"""Files in a user's folder that are broken, huge or not where they seem to be."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from camdrift.datasets import folders, images, pictures
from camdrift.settings import SettingsError

FOLDER = {
    "seed": 1, "size": 16, "resize": 20, "shares": {"train": 0.5, "validation": 0.0, "test": 0.5},
    "limits": {"train": 1000, "validation": 1000, "test": 1000}, "labels": None,
    "unreadable_share": 0.5, "licence": "own", "fold": 0, "preprocessing": None,
}  # fmt: skip


def photograph(seed: int = 0, size=(60, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encoded(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    photograph().save(buffer, kind, **options)
    return buffer.getvalue()


def declared(width: int, height: int, rows: int = 1) -> bytes:
    """A PNG of some bytes that declares any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * (3 * width + 1) * rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


@pytest.fixture
def root(tmp_path):
    """Two classes of six images each."""
    folder = tmp_path / "set"
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            photograph(i).save(folder / name / f"{i}.png")
    return folder


def read(root, **changed):
    return images.folder(path=str(root), **FOLDER | changed)


def rubbish(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + np.random.default_rng(0).bytes(half)


BROKEN = {
    "cut.jpg": encoded("JPEG")[:-200],
    "cut.png": encoded("PNG")[: len(encoded("PNG")) // 2],
    "cut.tif": encoded("TIFF")[:-200],
    "cut.gif": encoded("GIF")[:-200],
    "cut.webp": encoded("WEBP")[:-200],
    "rubbish.jpg": rubbish(encoded("JPEG")),
    "rubbish.png": rubbish(encoded("PNG")),
    "rubbish.gif": rubbish(encoded("GIF")),
    "header.png": declared(400, 400, rows=0)[:33],
    "zero.jpg": b"",
    "text.png": b"<html>404</html>",
    "large.png": declared(40_000, 40_000),
    "warned.png": declared(10_000, 10_000),  # Pillow alone would warn and go on
    "strip.png": declared(1, 300_000, rows=300_000),  # resized to 20 px: 120 million
    "program.jpg": encoded("EPS"),  # Ghostscript would run it
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_left_out_named_and_counted(root, name, capsys):
    (root / "ants" / name).write_bytes(BROKEN[name])
    whole = read(root)
    assert images.datasheet(whole)["unreadable_files"] == 1
    assert f"unreadable, left out: ants/{name}: " in capsys.readouterr().out
    assert len(whole.pixels) == 12
    assert not whole.index["id"].str.contains(name).any()
    with pytest.raises(images.UnreadableError, match=rf"1 of 13 files .*ants/{name}: \w+"):
        read(root, unreadable_share=0.05)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("large.png", "more than 89,478,485 pixels"),
        ("warned.png", "more than 89,478,485 pixels"),
        ("strip.png", "20 x 6000000 px when its shorter side of 1 px is 20 px"),
    ],
)
def test_the_limit_on_pixels_is_said(root, name, message, capsys):
    (root / "ants" / name).write_bytes(BROKEN[name])
    read(root)
    assert message in capsys.readouterr().out


def test_the_limit_holds_where_pillows_was_turned_off(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (root / "large.png").write_bytes(BROKEN["large.png"])
    with pytest.raises(ValueError, match="40000 x 40000 px"):
        pictures.decode(root / "large.png")


def test_pillows_warning_is_an_error(root, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 10**10)
    (root / "warned.png").write_bytes(BROKEN["warned.png"])
    with pytest.raises(ValueError, match="Image size .100000000 pixels. exceeds"):
        pictures.decode(root / "warned.png")


def test_a_program_is_not_run(root):
    (root / "program.png").write_bytes(BROKEN["program.jpg"])
    with pytest.raises(OSError, match="none of the formats that are read, which are PNG, JPEG"):
        pictures.decode(root / "program.png")


def test_a_set_of_bombs_takes_no_memory(root, tmp_path):
    for name in ("large.png", "warned.png", "strip.png"):
        (root / "ants" / name).write_bytes(BROKEN[name])
    code = f"""
import resource
from camdrift.datasets import images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images.folder(path={str(root)!r}, **{FOLDER!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    unit = 2**20 if sys.platform == "darwin" else 2**10
    assert int(answer.stdout.split()[-1]) / unit < 100  # MB; the least of the three would take 300


def test_a_picture_that_is_whole_is_read_as_ever(tmp_path):
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        path = tmp_path / "p.png"  # by content, whatever it is called
        path.write_bytes(encoded(kind))
        np.testing.assert_array_equal(pictures.decode(path), np.asarray(photograph()))


def linked(root, target, name="ants/link.png"):
    (root / name).symlink_to(target)


def test_a_link_to_a_file_outside_is_not_read(root, tmp_path, capsys):
    secret = tmp_path / "secret.png"
    photograph(99).save(secret)
    linked(root, secret)
    image_set = read(root)
    assert "ants/link.png: a symbolic link that leads out of the set's folder" in (
        capsys.readouterr().out
    )
    assert images.datasheet(image_set)["unreadable_files"] == 1
    assert "ants/link.png" not in set(image_set.index["id"])
    with pytest.raises(images.UnreadableError, match=r"1 of 13 files"):
        read(root, unreadable_share=0.0)


def test_a_relative_link_that_climbs_out_is_not_read(root, tmp_path, capsys):
    photograph(99).save(tmp_path / "secret.png")
    linked(root, "../../secret.png")
    read(root)
    assert "leads out of the set's folder" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["gone.png", "link.png"])
def test_a_link_that_leads_nowhere_is_named_and_counted(root, target, capsys):
    linked(root, target)
    assert images.datasheet(read(root))["unreadable_files"] == 1
    assert "ants/link.png: a symbolic link that leads nowhere" in capsys.readouterr().out


def test_a_link_to_a_file_of_the_same_folder_is_read(root):
    linked(root, root / "ants" / "0.png")
    image_set = read(root)
    assert "ants/link.png" in set(image_set.index["id"])
    assert images.datasheet(image_set)["unreadable_files"] == 0


def test_the_folder_itself_may_be_a_link(root, tmp_path):
    (tmp_path / "store").symlink_to(root)
    there = read(tmp_path / "store")
    np.testing.assert_array_equal(there.pixels, read(root).pixels)


@pytest.mark.parametrize("target", [".", "ants", "/"])
def test_the_folder_of_a_class_is_no_link(root, target):
    linked(root, target, "loop")
    with pytest.raises(SettingsError, match="loop, the folder of a class or of a split, is a"):
        read(root)


def test_a_loop_of_folders_ends_and_is_named(root, capsys):
    (root / "ants" / "again").symlink_to(root)
    assert len(read(root).pixels) == 12
    assert (
        "a link to a folder, not followed, see the setting `links`: 'ants/again'"
        in capsys.readouterr().out
    )


def test_a_table_of_labels_is_no_link_to_elsewhere(root, tmp_path):
    pd.DataFrame({"password": ["x"]}).to_csv(tmp_path / "secret.csv", index=False)
    linked(root, tmp_path / "secret.csv", "labels.csv")
    table = {"csv": "labels.csv", "image": "file", "label": "truth", "offset": 0}
    with pytest.raises(SettingsError, match="leads out of the set's folder") as raised:
        read(root, labels=table)
    assert "password" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "labels.csv cannot be read as a table of labels: no such file; wanted its path"),
        (b"", "it is empty; wanted a first line with the names of the columns"),
        (b"\xff\xfe\x00", "it is not UTF-8 .byte 0.; save it as UTF-8"),
        (b'file,truth\n"0', "cannot be read as a table"),
        (b"file,truth\n" + b"".join(b"%d,1e30\n" % i for i in range(6)), "to 99,999, got 1e.30"),
        (b"file,truth\n" + b"".join(b"%d,17e8\n" % i for i in range(6)), "to 99,999, got 1.7e.09"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_a_message(root, content, message):
    for file in (root / "bees").iterdir():
        file.unlink()
    if content is not None:
        (root / "labels.csv").write_bytes(content)
    table = {"csv": "labels.csv", "image": "file", "label": "truth", "offset": 0}
    with pytest.raises(SettingsError, match=message):
        read(root, labels=table)


def test_a_folder_that_is_not_there_is_a_message(tmp_path):
    with pytest.raises(SettingsError, match="no folder .*nowhere"):
        read(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_name_that_is_not_utf8_is_a_message(root):
    path = os.fsencode(root / "ants") + b"/caf\xe9.png"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(encoded("PNG"))
    with pytest.raises(SettingsError, match=r"'ants/caf\\udce9.png'.* is not UTF-8"):
        read(root)


def test_a_name_does_not_command_the_terminal(root, capsys):
    (root / "ants" / "\x1b[2J.png").touch()
    read(root)
    printed = capsys.readouterr().out
    assert r"ants/\x1b[2J.png" in printed
    assert "\x1b[2J" not in printed


def nothing(picture):
    return None


def floats(picture):
    return picture / 255


def flat(picture):
    return picture[..., 0]


def transparent(picture):
    return np.concatenate([picture, picture[..., :1]], axis=2)


def empty(picture):
    return picture[30:10]


def endless(picture):
    return np.broadcast_to(picture[:1, :1], (100_000, 1_000, 3))


def silent(picture):
    raise AssertionError


NUMBER = 5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", r"got object \(\)"),
        ("floats", r"got float64 \(40, 60, 3\)"),
        ("flat", r"got uint8 \(40, 60\)"),
        ("transparent", r"got uint8 \(40, 60, 4\)"),
        ("empty", r"got uint8 \(0, 60, 3\)"),
    ],
)
def test_an_align_function_that_returns_no_picture_stops_at_the_first(root, function, message):
    plan = {"align": f"{__name__}:{function}", "crop": 1.0}
    with pytest.raises(SettingsError, match=rf"^ants/0.png: .*{message}"):
        read(root, preprocessing=plan)


@pytest.mark.parametrize(
    ("function", "message"),
    [("endless", "more than 89,478,485 pixels"), ("silent", "ants/0.png: AssertionError")],
)
def test_an_align_function_that_fails_leaves_the_picture_out(root, function, message):
    with pytest.raises(images.UnreadableError, match=message):
        read(root, preprocessing={"align": f"{__name__}:{function}", "crop": 1.0})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:align", "no module 'nowhere'; modules of your own belong in lib/own"),
        (f"{__name__}:missing", "AttributeError: .*missing"),
        (f"{__name__}:NUMBER", "wanted a function, got '.*NUMBER', which is a int"),
        ("my_broken:align", r"SyntaxError: .*my_broken.py"),
        ("my_raising:align", r"ZeroDivisionError: .* \(line 2 of .*my_raising.py\)"),
    ],
)
def test_an_align_function_that_cannot_be_had_is_a_message(
    root, tmp_path, monkeypatch, path, message
):
    (tmp_path / "my_broken.py").write_text("def align(:\n")
    (tmp_path / "my_raising.py").write_text("one = 1\none / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=message):
        read(root, preprocessing={"align": path, "crop": 1.0})


TORCHVISION = {key: FOLDER[key] for key in FOLDER if key not in ("labels", "unreadable_share")}


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        ("Nothing", {}, "no dataset 'Nothing'"),
        ("utils", {}, "no dataset 'utils'"),
        ("LSUN", {}, "no dataset 'LSUN'.* unpickles"),
        ("FakeData", {"colour": 1}, "TypeError: .*colour"),
        ("CIFAR10", {"root": "nowhere", "download": False}, "RuntimeError: Dataset not found"),
        ("FakeData", {"size": 3, "num_classes": 0}, "item 0 of torchvision.datasets.FakeData"),
    ],
)
def test_a_torchvision_dataset_that_cannot_be_had_is_a_message(dataset, arguments, message):
    with pytest.raises(SettingsError, match=message):
        images.torchvision_set(dataset=dataset, arguments=arguments, **TORCHVISION)


def test_a_torchvision_dataset_does_not_open_what_it_does_not_take(root):
    """One image of each class is wanted: the others, one of them a bomb, are not opened."""
    plan = TORCHVISION | {
        "shares": {"train": 0.0, "validation": 0.0, "test": 1.0},
        "limits": {"train": 0, "validation": 0, "test": 1},
    }
    source = {"dataset": "ImageFolder", "arguments": {"root": str(root)}}
    taken = images.torchvision_set(**source, **plan).index["id"].tolist()
    places = {f"imagefolder_{i:06d}": i for i in range(12)}
    place = next(i for name, i in places.items() if name not in taken)
    spoilt = root / ("ants" if place < 6 else "bees") / f"{place % 6}.png"
    spoilt.write_bytes(BROKEN["warned.png"])
    assert images.torchvision_set(**source, **plan).index["id"].tolist() == taken
    with pytest.raises(SettingsError, match=f"item {place} of .*DecompressionBomb"):
        images.torchvision_set(**source, **plan | {"limits": FOLDER["limits"]})


HIDDEN = [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "System Volume Information"]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_and_system_folders_are_no_classes_and_are_named(root, name, capsys):
    before = read(root).index
    shutil.copytree(root / "ants", root / name)
    shutil.copytree(root / "ants", root / "bees" / name)
    image_set = read(root)
    assert sorted(image_set.index["class_name"].unique()) == ["ants", "bees"]
    assert sorted(image_set.index["label"].unique()) == [0, 1]
    assert image_set.facts["class_folders"] == ["ants", "bees"]
    assert list(image_set.index["split"]) == list(before["split"])
    said = capsys.readouterr().out
    assert f"left out: '{name}' in '{root.name}'" in said
    assert f"left out: '{name}' in 'bees'" in said


def test_a_dataset_of_torchvision_that_takes_a_hidden_folder_for_a_class_is_refused(root):
    def read_by_torchvision():
        return images.torchvision_set(
            dataset="ImageFolder", arguments={"root": str(root)},
            **{k: v for k, v in FOLDER.items() if k not in ("labels", "unreadable_share")},
        )  # fmt: skip

    assert len(read_by_torchvision().index) == 12
    shutil.copytree(root / "ants", root / ".ipynb_checkpoints")
    with pytest.raises(SettingsError, match="takes '.ipynb_checkpoints', a hidden or system"):
        read_by_torchvision()


def test_copies_in_a_hidden_folder_do_not_leak_over_splits(root):
    before = set(read(root).index["id"])
    shutil.copytree(root / "ants", root / "ants" / ".ipynb_checkpoints")
    assert set(read(root).index["id"]) == before


def test_hidden_files_are_no_images_and_are_named(root, capsys):
    (root / "ants" / "._0.png").write_bytes(b"what macOS writes beside a file")
    shutil.copy(next((root / "ants").iterdir()), root / "ants" / ".hidden.png")
    assert len(folders.entries(root, None)) == 12
    said = capsys.readouterr().out
    assert "left out: '._0.png' in 'ants'" in said
    assert "left out: '.hidden.png' in 'ants'" in said


def test_a_set_below_a_hidden_folder_is_read(root, tmp_path):
    shutil.copytree(root, tmp_path / ".cache" / "set")
    assert len(folders.entries(tmp_path / ".cache" / "set", None)) == 12


def test_a_class_without_images_is_named(root, capsys):
    (root / "aphids").mkdir()
    assert {entry.label for entry in folders.entries(root, None)} == {0, 2}
    assert "no image in 'aphids', which counts as class 1" in capsys.readouterr().out


def in_splits(root, folder, *names):
    """The images of `root` below each of these names."""
    for name in names:
        shutil.copytree(root, folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "test"), {"train": 6, "validation": 6, "test": 12}),
        (("train", "val", "test"), {"train": 12, "validation": 12, "test": 12}),
        (("Training_Set", "Test_Set"), {"train": 6, "validation": 6, "test": 12}),
        (("train", "val"), {"train": 6, "validation": 6, "test": 12}),
        (("test",), {"train": 0, "validation": 0, "test": 12}),
    ],
)
def test_given_splits_are_kept_and_said(root, tmp_path, names, expected, capsys):
    folder = in_splits(root, tmp_path / "split", *names)
    shares = {"train": 0.25, "validation": 0.25, "test": 0.5}
    image_set = read(folder, shares=shares)
    assert sorted(image_set.index["class_name"].unique()) == ["ants", "bees"]
    counts = image_set.index["split"].value_counts()
    assert {split: counts.get(split, 0) for split in expected} == expected
    tested = image_set.index.query("split == 'test'")["id"].str.split("/").str[0]
    assert set(tested) == {names[-1]}
    assert image_set.facts["split_by"] == images.datasheet(image_set)["split_by"] == "folders"
    assert "the folders are splits, which images keep: " in capsys.readouterr().out
    limited = read(folder, shares=shares, limits={"train": 1, "validation": 1, "test": 2})
    assert (limited.index.query("split == 'test'")["label"].value_counts() == 2).all()


def test_splits_that_are_not_understood_are_refused(root, tmp_path):
    alone = in_splits(root, tmp_path / "alone", "train")
    with pytest.raises(SettingsError, match="the training split alone; .*path: .*alone/train"):
        read(alone)
    beside = in_splits(root, tmp_path / "beside", "train", "test", "extra")
    with pytest.raises(SettingsError, match=r"like splits \(test, train\) beside others \(extra"):
        read(beside)
    twice = in_splits(root, tmp_path / "twice", "train", "training", "test")
    with pytest.raises(SettingsError, match="two folders of one split"):
        read(twice)
    flat = tmp_path / "flat"
    for name in ("train", "test"):
        shutil.copytree(root / "ants", flat / name)
    with pytest.raises(SettingsError, match="named like splits and hold no folders of classes"):
        read(flat)
    other = in_splits(root, tmp_path / "other", "train", "test")
    (other / "test" / "bees").rename(other / "test" / "wasps")
    with pytest.raises(SettingsError, match="class 'wasps' and 0 more have images to test"):
        read(other)
    with pytest.raises(SettingsError, match="no folds; wanted fold: 0, got 1"):
        read(in_splits(root, tmp_path / "folds", "train", "test"), fold=1,
             shares={"train": 0.4, "validation": 0.3, "test": 0.3})  # fmt: skip


def test_a_folder_of_a_split_that_is_a_link_is_not_followed(root, tmp_path):
    folder = in_splits(root, tmp_path / "linked", "train")
    (folder / "test").symlink_to(root)
    with pytest.raises(SettingsError, match="linked/test, the folder of a class or of a split"):
        read(folder)


def test_what_is_hidden_beside_splits_is_named(root, tmp_path, capsys):
    folder = in_splits(root, tmp_path / "split", "train", "test")
    for place in (folder, folder / "train", folder / "test" / "ants"):
        shutil.copytree(root / "ants", place / ".cache")
    assert len(read(folder).index) == 24
    said = capsys.readouterr().out
    assert [f"'.cache' in '{name}'" in said for name in ("split", "train", "ants")] == [True] * 3


def test_a_class_may_be_called_train(root):
    (root / "ants").rename(root / "train")
    image_set = read(root)
    assert sorted(image_set.index["class_name"].unique()) == ["bees", "train"]
    assert image_set.facts["split_by"] == "shares"


def test_splits_of_a_table_of_labels_are_kept(root, tmp_path):
    folder = tmp_path / "split"
    rows = ["name,class"]
    for split in ("train", "test"):
        shutil.copytree(root / "ants", folder / split)
        rows += [
            f"{file.relative_to(folder)},{len(rows) % 2}" for file in (folder / split).iterdir()
        ]
    (folder / "labels.csv").write_text("\n".join(rows))
    labels = {"csv": "labels.csv", "image": "name", "label": "class", "offset": 0}
    image_set = read(folder, labels=labels, shares={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert (image_set.index["id"].str.split("/").str[0] == image_set.index["split"]).all()
    shutil.copy(next((root / "ants").iterdir()), folder / "loose.png")
    with (folder / "labels.csv").open("a") as table:
        table.write("\nloose.png,0")
    with pytest.raises(
        SettingsError, match="loose.png and 0 more lie beside the folders of splits"
    ):
        read(folder, labels=labels)


def test_entries_are_files_alone(root):
    (root / "ants" / "folder.png").mkdir()
    os.mkfifo(root / "ants" / "pipe.png")  # a read would wait for ever
    assert len(folders.entries(root, None)) == 12

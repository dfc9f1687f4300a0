"""Links in a folder of images, as DVC, git-annex and the Hugging Face cache make them."""

import numpy as np
import pytest
from PIL import Image

from camdrift.datasets import folders, images
from camdrift.ops import needs
from camdrift.settings import SettingsError, params
from camdrift.settings.sets import Folder
from test_images import EVEN, FOLDER, make_folder, picture
from test_settings import changed


@pytest.fixture
def stored(tmp_path):
    """A set whose images are links into a cache beside it, and the same set without links."""
    plain = tmp_path / "plain"
    plain.mkdir()
    make_folder(plain)
    (tmp_path / "cache").mkdir()
    for file in sorted(plain.rglob("*.png")):
        target = tmp_path / "cache" / f"{file.parent.name}{file.stem}"  # no suffix, as blobs have
        target.write_bytes(file.read_bytes())
        link = tmp_path / "linked" / file.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../cache/{target.name}")  # relative, as git-annex and the hub have it
    return tmp_path


def read(root, **more):
    return images.folder(**FOLDER | {"path": str(root)} | more)


def test_linked_images_are_those_that_the_links_lead_to(stored):
    linked = read(stored / "linked", links=str(stored / "cache"))
    plain = read(stored / "plain")
    np.testing.assert_array_equal(linked.pixels, plain.pixels)
    assert linked.index.equals(plain.index)


def test_without_the_setting_the_message_names_it_and_the_target(stored):
    with pytest.raises(images.UnreadableError) as fault:
        read(stored / "linked")
    said = str(fault.value)
    assert "12 of 12 files" in said
    assert f"leads out of the set's folder, to {stored}/cache/ants" in said
    assert "the setting `links`, which names a folder that links may lead to" in said


def test_many_unreadable_files_are_counted_after_the_first_fifty(tmp_path, capsys):
    make_folder(tmp_path, count=30)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"none")
    with pytest.raises(images.UnreadableError, match="60 of 60 files"):
        read(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 51
    assert lines[-1] == "unreadable, left out: 10 more"


def test_a_link_to_elsewhere_is_refused_and_others_are_read(stored, capsys):
    picture().save(stored / "secret.png")
    (stored / "linked" / "ants" / "stray.png").symlink_to(stored / "secret.png")
    (stored / "linked" / "ants" / "gone.png").symlink_to(stored / "cache" / "nothing")
    (stored / "linked" / "ants" / "loop.png").symlink_to("loop.png")
    images = read(stored / "linked", links=str(stored / "cache"), unreadable_share=0.5)
    assert len(images.index) == 12
    said = capsys.readouterr().out
    assert (
        f"ants/stray.png: a symbolic link that leads to {stored}/secret.png; wanted a place in "
        f"{stored}/cache, as the setting `links` has it, or in the set's folder"
    ) in said
    assert f"ants/gone.png: a symbolic link that leads nowhere: {stored}/cache/nothing is" in said
    assert "ants/loop.png: a symbolic link that leads nowhere, but round in a circle" in said


@pytest.mark.parametrize("layout", ["classes", "splits", "inner"])
def test_linked_folders_follow_the_same_rule(tmp_path, layout):
    store = make_folder(tmp_path / "store") if (tmp_path / "store").mkdir() is None else None
    root = tmp_path / "set"
    root.mkdir()
    if layout == "classes":
        for name in ("ants", "bees"):
            (root / name).symlink_to(store / name)
    elif layout == "splits":
        for name in ("train", "test"):
            (root / name).symlink_to(store)
    else:
        for name in ("ants", "bees"):
            (root / name).mkdir()
            (root / name / "more").symlink_to(store / name)
    images = folders.entries(root, None, str(tmp_path / "store"))
    assert len(images) == (24 if layout == "splits" else 12)
    assert [entry.label for entry in images if entry.class_name == "bees"][0] == 1
    assert folders.classes(root, str(tmp_path / "store")) == ["ants", "bees"]
    (tmp_path / "other").mkdir()
    for links in (None, str(tmp_path / "other")):
        if layout == "inner" and links is None:
            with pytest.raises(SettingsError, match="no image in the subfolders"):
                folders.entries(root, None, links)
            continue
        with pytest.raises(SettingsError, match=r"symbolic link .*/store.*setting `links`"):
            folders.entries(root, None, links)


@pytest.mark.parametrize("place", ["circle", "ants/circle"])
@pytest.mark.parametrize("target", ["set", "."])
def test_a_circle_ends_with_a_message(tmp_path, place, target):
    root = tmp_path / "set"
    root.mkdir()
    make_folder(root)
    (root / place).symlink_to(tmp_path / target)
    with pytest.raises(SettingsError, match="symbolic link that leads round in a circle, to /"):
        folders.entries(root, None, str(tmp_path))


def test_a_table_of_labels_may_be_a_link(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    picture().save(root / "a.png")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "key").write_text("file,truth\na,3\n")
    (root / "labels.csv").symlink_to("../cache/key")
    table = {"csv": "labels.csv", "image": "file", "label": "truth", "offset": 0}
    assert folders.entries(root, table, str(tmp_path / "cache"))[0].label == 3
    with pytest.raises(SettingsError, match=r"labels\.csv cannot be read .*the setting `links`"):
        folders.entries(root, table)


def test_links_to_no_folder_are_a_message(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(SettingsError, match=r"links: wanted one that links lead to, got no folder"):
        read(tmp_path, links=str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="links: wanted one that links lead to, got a file"):
        read(tmp_path, links=str(tmp_path / "ants" / "0.png"))
    content = changed("sets.mine", {"kind": "folder", "path": "p", "links": "/data/cache"})
    assert params.parse(content).sets["mine"].links == "/data/cache"


def test_the_check_before_a_build_reads_by_the_same_rule(stored):
    plan = {"kind": "folder", "path": str(stored / "linked"), "size": 16, "shares": EVEN}
    with pytest.raises(SettingsError, match=r"sets\.mine.*leads out of the set's folder, to /"):
        needs.counted("mine", Folder.model_validate(plan), seed=1, need=None)
    plan["links"] = str(stored / "cache")
    result = needs.counted("mine", Folder.model_validate(plan), seed=1, need=None)
    assert (result.splits["test"], result.classes, len(result.sample)) == (6, 2, needs.HANDFUL)
    assert result.notes == ()


def report(root, capsys, labels=None) -> str:
    capsys.readouterr()
    folders.entries(root, labels)
    return capsys.readouterr().out


def test_files_that_are_no_images_are_counted_and_named(tmp_path, capsys):
    make_folder(tmp_path)
    assert report(tmp_path, capsys) == ""
    for i in range(5):
        (tmp_path / "ants" / f"{i}.HEIC").touch()
    for name in ("ants/b.txt", "readme.md", "bees/none", "bees/deep/a.svg", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    picture().save(tmp_path / "loose.png")
    assert report(tmp_path, capsys).splitlines() == [
        "1 image in no folder of a class, left out: loose.png",
        "9 files without the suffix of an image that is read, left out: 5 .heic (ants/0.HEIC, "
        "ants/1.HEIC, ants/2.HEIC and 2 more); 1 without a suffix (bees/none); 1 .md (readme.md); "
        "2 of other suffixes",
    ]


def test_the_table_of_labels_is_not_among_the_files_left_out(tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,truth\na,3\n")
    table = {"csv": "labels.csv", "image": "file", "label": "truth", "offset": 0}
    assert report(tmp_path, capsys, table) == ""
    (tmp_path / "other.csv").touch()
    said = "1 file without the suffix of an image that is read, left out: 1 .csv (other.csv)\n"
    assert report(tmp_path, capsys, table) == said


def test_names_of_files_left_out_do_not_command_the_terminal(tmp_path, capsys):
    make_folder(tmp_path)
    (tmp_path / "ants" / "\x1b[2J.txt").touch()
    (tmp_path / "ants" / "a.\x1b[2J").touch()
    said = report(tmp_path, capsys)
    assert r"'ants/\x1b[2J.txt'" in said
    assert r"1 '.\x1b[2j' (" in said
    assert "\x1b" not in said


SUFFIXES = [
    "avif", "jp2", "j2k", "jfif", "jpe", "pnm", "ppm", "pgm", "dib", "bmp", "tif", "tiff", "webp",
    "gif", "png", "JPG",
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_of_every_suffix_are_read(tmp_path, suffix, capsys):
    (tmp_path / "a").mkdir()
    options = {"lossless": True} if suffix == "webp" else {"quality": 100}
    mode = "L" if suffix == "pgm" else "RGB"
    Image.new("RGB", (32, 32), (200, 100, 50)).convert(mode).save(
        tmp_path / "a" / f"1.{suffix}", **options
    )
    expected = (124, 124, 124) if suffix == "pgm" else (200, 100, 50)
    whole = read(tmp_path, shares={"train": 0.0, "validation": 0.0, "test": 1.0})
    assert abs(whole.pixels[0, 8, 8].astype(int) - expected).max() <= 3
    assert "left out" not in capsys.readouterr().out

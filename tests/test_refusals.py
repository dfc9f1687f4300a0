"""Folders and settings of sets as people first write them: each is read, or refused in words that
say what was wanted, what came and what to do."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from camdrift.datasets import images
from camdrift.ops import needs
from camdrift.settings import SettingsError, params
from camdrift.settings.sets import Folder
from conftest import ROOT
from test_images import make_folder, picture
from test_settings import changed

# Words of pydantic, pandas, Pillow and the operating system.
FOREIGN = re.compile(
    r"input should|valid (dictionary|integer|string)|tokeniz|C error|codec|Errno|cannot identify"
)
ONE_TO_TWO = "wanted a side in px, a whole number from 8 to 2048, or [height, width], got"


def refusal(settings: dict) -> str:
    """Returns the message of the settings, the check and the build, which is the same in each."""
    with pytest.raises(SettingsError) as fault:
        params.parse(changed("sets.mine", {"kind": "folder"} | settings))
        plan = Folder.model_validate({"kind": "folder"} | settings)
        with pytest.raises(SettingsError) as early:
            needs.counted("mine", plan, seed=1, need=None)
        try:
            images.folder(seed=1, **plan.model_dump(exclude={"kind"}))
        except SettingsError as late:
            assert str(early.value) == f"sets.mine: {late}"
            raise
    assert not FOREIGN.search(str(fault.value)), fault.value
    return str(fault.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "[24, 96]"}, f"mine.size: {ONE_TO_TWO} '[24, 96]'"),
        ({"size": "24x96"}, f"mine.size: {ONE_TO_TWO} '24x96'"),
        ({"size": 0}, f"mine.size: {ONE_TO_TWO} 0"),
        ({"size": 64, "resize": 32}, "mine: wanted resize >= the shorter side of size (64 px)"),
        ({"resize": "256"}, "mine.resize: wanted a whole number, got '256'"),
        ({"shares": {"train": 0.5, "test": 0.2}}, "shares: wanted shares that add up to 1, got 0."),
        ({"shares": {"train": 60, "test": 40}}, "shares.train: wanted a number of at most 1, got"),
        ({"shares": {"train": "60%"}}, "shares.train: wanted a number, got '60%'"),
        ({"shares": {"val": 1.0}}, "shares: no key 'val'; there are: test, train, validation"),
        ({"shares": [0.6, 0.4]}, "shares: wanted a map of these keys: test, train, validation; go"),
        ({"limits": 0}, "limits: wanted a map of these keys: test, train, validation; got 0"),
        ({"limits": None}, "limits: wanted a map of these keys: test, train, validation; got None"),
        ({"limits": {"test": -1}}, "limits.test: wanted a number of at least 0, got -1"),
        ({"channels": "RGB"}, "channels: wanted a whole number, got 'RGB'"),
        ({"preprocessing": {"crop": 75}}, "preprocessing.crop: wanted a number of at most 1, got"),
        ({"preprocessing": {"align": "up"}}, "align: wanted a function as `module:function`,"),
        ({"labels": "labels.csv"}, "labels: wanted a map of these keys: csv, image, label, offset"),
        ({"labels": {"csv": "a.csv"}}, "mine.labels.image: wanted, but not there"),
        ({"fold": 5}, "not among those of another, from 0 to 2 with shares.test 0.3, got 5"),
        ({"licence": None}, "licence: wanted text (in quotes if it looks like a nu"),
        ({"links": ""}, "links: wanted text that is not empty, got ''"),
        ({"kind": "folders"}, "sets.mine: wanted `kind:` one of 'photos', 'digits', 'fo"),
        ({"path": 5}, "path: wanted text (in quotes if it looks like a number), got 5"),
        ({"folder": "x"}, "sets.mine: no key 'folder' (perhaps 'fold'); there are: ch"),
    ],
)  # fmt: skip
def test_settings_are_refused_in_one_line(settings, message):
    said = refusal({"path": "p"} | settings)
    assert message in said
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ([], {}, "no image in the subfolders of {root}; wanted {root}/<class>/<image>, or set `la"),
        (["1.png"], {}, "no image in the subfolders of {root} (images beside them: 1); wanted"),
        (["a/1.png"], {}, "no test image: shares.test is 0.3 and limits.test 200, and no class has "
         "more than 1 of the 1 images; raise shares.test or limits.test, or add images"),
        (["a/1.png"], {"limits": {"test": 0}}, "shares.test is 0.3 and limits.test 0, and no clas"),
        (["a/1.png"], {"path": "~/no"}, f"path: wanted the folder of the images, got no folder "
         f"'~/no'; write {Path.home()} for ~"),
        (["a/1.png"], {"path": "{root}/a/1.png"}, "path: wanted the folder of the images, got a f"),
        (["a/1.png"], {"preprocessing": {"align": "nowhere:f"}, "shares": {"test": 1}},
         "preprocessing.align: cannot import 'nowhere:f'"),
    ],
)  # fmt: skip
def test_folders_are_refused_in_one_sentence(tmp_path, files, settings, message):
    root = tmp_path / "set"
    root.mkdir()
    for name in files:
        (root / name).parent.mkdir(exist_ok=True)
        picture().save(root / name)
    own = {"path": str(root)} | settings
    own["path"] = own["path"].format(root=root)
    assert message.format(root=root) in refusal(own)


LABELS = {"csv": "l.csv", "image": "file", "label": "truth"}


def table_settings(root: Path, content: bytes, **more) -> dict:
    for name in ("a b", "c", "d"):
        picture().save(root / f"{name}.png")
    (root / "l.csv").write_bytes(content)
    return {"path": str(root), "shares": {"test": 1.0}, "labels": LABELS | more}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbffile,truth\na b,0\nc,1\nd,0\n", [0, 1, 0]),  # a byte-order mark, as Excel's
        (b"file,truth\r\na b.png,0\r\nc.png,1\r\nd.png,0\r\n", [0, 1, 0]),
        (b'"file","truth"\n"a b","cat, small"\n"c","dog"\n"d","ape"\n', [1, 2, 0]),
        (b"more,truth,file\nx,2,d\nx,1,c\nx,0,a b\n", [0, 1, 2]),
    ],
)
def test_tables_of_labels_are_read(tmp_path, content, expected):
    plan = Folder.model_validate({"kind": "folder"} | table_settings(tmp_path, content))
    index = images.folder(seed=1, **plan.model_dump(exclude={"kind"})).index.set_index("id")
    assert index.loc[["a b.png", "c.png", "d.png"], "label"].tolist() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file;truth\na b;0\n", "no column 'file' in {file}; it has 'file;truth'; wanted commas"),
        (b"file, truth\na b, 0\n", "no column 'truth' in {file}; it has 'file', ' truth'"),
        (b"File,Truth\na b,0\n", "no column 'file' in {file}; it has 'File', 'Truth'"),
        (b"file,truth\na b,\xe9\n", "it is not UTF-8 (byte 0); save it as UTF-8"),
        ("file,truth\na b,1\n".encode("utf-16"), "it is not UTF-8 (byte 0); save it as UTF-8"),
        (b"", "it is empty; wanted a first line with the names of the columns"),
        (b"file,truth\n", "a b.png has no row in l.csv, column 'file'; there are rows of no image"),
        (b"file,truth\na b,0\nc,1\n", "d.png has no row in l.csv, column 'file'; there are rows o"),
        (b"file,truth\na b,0\nc,1\nd,0\nc,1\n", "does not name each image once: see 'c', for two"),
        (b"file,truth\na b,0\nc,1,5\nd,0\n", "line 3 has 3 fields; wanted 2, as in the first line"),
        (b"file,truth\na b,0,\nc,1,\nd,0,\n", "its rows have more fields than its first line"),
        (b'file,truth\n"a b,0\nc,1\n', "the quotation mark that line 2 opens is not closed"),
        (b"file,truth\na b,NA\nc,1\nd,0\n", "1 images have no 'truth' in l.csv, 'a b' the first;"),
        (b"file,truth\na b,0.5\nc,1\nd,0\n", "numbers from 0 to 99,999, got 0.5 of 'a b'"),
        (b"file,truth\na b,0\nc,-1\nd,0\n", "numbers from 0 to 99,999, got -1 of 'c'"),
    ],
)  # fmt: skip
def test_tables_of_labels_are_refused_in_one_sentence(tmp_path, content, message):
    said = refusal(table_settings(tmp_path, content))
    assert message.format(file=tmp_path / "l.csv") in said


def test_names_of_classes_that_are_numbers_are_said(tmp_path, capsys):
    settings = table_settings(tmp_path, b"file,truth\na b,10\nc,9\nd,x\n")
    plan = Folder.model_validate({"kind": "folder"} | settings)
    assert needs.counted("mine", plan, seed=1, need=None).classes == 3
    assert "are names of classes, in the order of text: 10, 9, x" in capsys.readouterr().out


def blocks() -> list[dict]:
    """The settings of sets in lib/README.md; what may stand beside a set is added to it."""
    text = (ROOT / "lib/README.md").read_text().partition("**Formats.**")[0]
    first, keys, tested = re.findall(r"```yaml\n(.*?)```", text, re.S)
    return [YAML(typ="safe").load(part)["mine"] for part in (first, first + keys, tested)]


def test_the_readmes_keys_are_those_of_a_folder_with_their_defaults():
    short, whole, tested = blocks()
    assert set(whole) == set(Folder.model_fields)
    plans = [params.parse(changed("sets.mine", block)).sets["mine"] for block in blocks()]
    assert plans[0] == plans[1]
    assert len(short) == 2
    assert plans[2].shares.model_dump() == {"train": 0.0, "validation": 0.0, "test": 1.0}
    assert (plans[2].limits.test, plans[2].labels.offset) == (500, 0)


def test_a_set_as_the_readme_has_it_is_built(tmp_path):
    _, whole, tested = blocks()
    make_folder(tmp_path)
    (tmp_path / "images.csv").write_text(
        "ImageId,TrueLabel\n" + "".join(f"{name}/{i},{i % 3}\n" for name in ("ants", "bees")
                                        for i in range(6))
    )  # fmt: skip
    for block, count in ((whole, {"train": 8, "test": 4}), (tested, {"test": 12})):
        plan = Folder.model_validate(block | {"path": str(tmp_path), "size": 16, "resize": 20})
        built = images.folder(seed=1, **plan.model_dump(exclude={"kind"}))
        assert built.index["split"].value_counts().to_dict() == count
        counted = needs.counted("mine", plan, seed=1, need=None)
        assert {split: n for split, n in counted.splits.items() if n} == count

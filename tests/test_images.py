import numpy as np
import pandas as pd
import pytest
from PIL import Image

from camdrift.datasets import folders, images, pictures
from camdrift.settings import SettingsError

EVEN = {"train": 0.5, "validation": 0.0, "test": 0.5}
MANY = {"train": 1000, "validation": 1000, "test": 1000}
FOLDER = {
    "seed": 1, "size": 16, "resize": 20, "shares": EVEN, "limits": MANY, "labels": None,
    "unreadable_share": 0.0, "licence": "own", "fold": 0, "preprocessing": None,
}  # fmt: skip
PHOTOS = {
    "seed": 1, "size": 64, "shares": {"train": 0.55, "validation": 0.15, "test": 0.3},
    "limits": {"train": 60, "validation": 20, "test": 20}, "preprocessing": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos():
    return images.photos(**PHOTOS)


def test_photos_share_no_pixel_between_splits(photos):
    for name, rows in photos.index.groupby("class_name"):
        corners = rows["id"].str.extract(r"_(\d+)_(\d+)$").astype(int).to_numpy()
        masks = {}
        for split, part in zip(rows["split"], corners, strict=True):
            mask = masks.setdefault(split, np.zeros((1500, 1500), dtype=bool))
            mask[part[0] : part[0] + 64, part[1] : part[1] + 64] = True
        total = sum(mask.astype(int) for mask in masks.values())
        assert total.max() == 1, name


def test_photos_have_18_classes_and_300_test_tiles(photos):
    sheet = images.datasheet(photos)
    assert len(sheet["classes"]) == 18
    assert sheet["splits"]["test"] >= 300
    assert photos.pixels.shape[1:] == (64, 64, 3)
    assert photos.index["id"].is_unique
    assert sum(len(names) for names in sheet["licences"].values()) == 18


def test_same_seed_same_tiles_other_seed_others(photos):
    again = images.photos(**PHOTOS)
    np.testing.assert_array_equal(photos.pixels, again.pixels)
    other = images.photos(**PHOTOS | {"seed": 2})
    assert set(other.index["id"]) != set(photos.index["id"])


def test_digits_are_grey_and_split():
    image_set = images.digits(
        seed=1, size=32, shares=EVEN, limits=MANY | {"test": 3}, preprocessing=None
    )
    assert image_set.pixels.shape[1:] == (32, 32, 3)
    assert (image_set.pixels[..., 0] == image_set.pixels[..., 2]).all()
    assert (image_set.index.query("split == 'test'")["label"].value_counts() == 3).all()


def picture(mode: str = "RGB", size=(30, 20), colour=(200, 100, 50)) -> Image.Image:
    return Image.new("RGB", size, colour).convert(mode)


def test_decodes_every_kind_of_file_to_upright_rgb(tmp_path):
    picture("L").save(tmp_path / "grey.png")
    picture("CMYK").save(tmp_path / "cmyk.jpg")
    Image.new("RGBA", (30, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    picture("P").save(tmp_path / "palette.gif")
    Image.fromarray(np.full((20, 30), 65535, dtype=np.uint16)).save(tmp_path / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    picture().save(tmp_path / "rotated.jpg", exif=exif)
    by_name = {file.stem: pictures.decode(file) for file in tmp_path.iterdir()}
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in by_name.values())
    assert by_name["rotated"].shape == (30, 20, 3)
    assert by_name["grey"].shape == (20, 30, 3)
    assert (by_name["clear"] == 255).all()  # transparent shows the white below
    assert (by_name["sixteen"] == 255).all()
    assert abs(by_name["cmyk"].astype(int).mean((0, 1)) - [200, 100, 50]).max() < 6


def make_folder(root, classes=("bees", "ants"), count=6):
    for name in classes:
        (root / name).mkdir()
        for i in range(count):
            picture(colour=(i, 0, 0)).save(root / name / f"{i}.png")
    return root


def test_folder_in_image_folder_layout(tmp_path):
    image_set = images.folder(path=str(make_folder(tmp_path)), **FOLDER)
    assert image_set.pixels.shape == (12, 16, 16, 3)
    assert dict(zip(image_set.index["class_name"], image_set.index["label"], strict=True)) == {
        "ants": 0, "bees": 1
    }  # fmt: skip
    assert (image_set.index.groupby(["class_name", "split"]).size() == 3).all()


def test_a_new_image_moves_no_other_to_another_place_in_the_order(tmp_path):
    shares = {"train": 0.0, "validation": 0.0, "test": 1.0}
    limits = MANY | {"test": 3}
    make_folder(tmp_path)
    settings = FOLDER | {"shares": shares, "limits": limits}
    before = set(images.folder(path=str(tmp_path), **settings).index["id"])
    picture().save(tmp_path / "ants" / "new.png")
    after = set(images.folder(path=str(tmp_path), **settings).index["id"])
    assert len(before - after) <= 1


def test_folder_with_a_table_of_labels(tmp_path):
    for name in ("a", "b", "c"):
        picture().save(tmp_path / f"{name}.png")
    pd.DataFrame({"file": ["a", "b", "c", "d"], "truth": [1, 2, 1, 3]}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    table = {"csv": "labels.csv", "image": "file", "label": "truth", "offset": 1}
    shares = {"train": 0.0, "validation": 0.0, "test": 1.0}
    settings = FOLDER | {"labels": table, "shares": shares}
    image_set = images.folder(path=str(tmp_path), **settings)
    assert image_set.index.set_index("id")["label"].to_dict() == {
        "a.png": 0,
        "b.png": 1,
        "c.png": 0,
    }
    with pytest.raises(SettingsError, match="no column 'class'"):
        images.folder(path=str(tmp_path), **settings | {"labels": table | {"label": "class"}})
    picture().save(tmp_path / "z.png")
    with pytest.raises(SettingsError, match=r"z\.png has no row in labels\.csv"):
        images.folder(path=str(tmp_path), **settings)


@pytest.mark.parametrize(
    ("rows", "offset", "expected"),
    [
        ({"file": ["a", "b", None], "truth": [1, 10, None]}, 1, [0, 9]),  # floats, once read
        ({"file": ["x/a.png", "b.png", "c"], "truth": ["cat", "dog", "ape"]}, 0, [1, 2]),
        ({"file": ["a", "b"], "truth": [1, None]}, 1, "1 images have no 'truth'"),
        (
            {"file": ["a", "b"], "truth": [0, 1]},
            1,
            "wanted whole numbers from 0 to 99,999, got -1 of 'a'",
        ),
        ({"file": ["a", "a", "b"], "truth": [0, 1, 2]}, 0, "does not name each image once"),
    ],
)
def test_labels_of_a_table_are_read_or_refused(tmp_path, rows, offset, expected):
    (tmp_path / "x").mkdir()
    picture().save(tmp_path / "x" / "a.png")
    picture().save(tmp_path / "b.png")
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    table = {"csv": "labels.csv", "image": "file", "label": "truth", "offset": offset}
    shares = {"train": 0.0, "validation": 0.0, "test": 1.0}
    changed = FOLDER | {"labels": table, "shares": shares}
    if isinstance(expected, str):
        with pytest.raises(SettingsError, match=expected):
            images.folder(path=str(tmp_path), **changed)
    else:
        index = images.folder(path=str(tmp_path), **changed).index
        assert index.set_index("id")["label"].loc[["x/a.png", "b.png"]].tolist() == expected


def test_every_suffix_of_a_format_that_is_read_counts(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("1.PNG", "2.jfif", "3.tif", "4.jp2", "5.webp", "6.ppm"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "a" / name)
    for name in ("7.txt", "8.eps", "9.psd", "png"):
        (tmp_path / "a" / name).write_text("no picture that is read")
    assert [entry.file.name for entry in folders.entries(tmp_path, None)] == [
        "1.PNG", "2.jfif", "3.tif", "4.jp2", "5.webp", "6.ppm"
    ]  # fmt: skip


def test_unreadable_files_are_named_counted_and_bounded(tmp_path, capsys):
    make_folder(tmp_path)
    (tmp_path / "ants" / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "ants" / "empty.jpg").touch()
    with pytest.raises(images.UnreadableError, match="2 of 14 files"):
        images.folder(path=str(tmp_path), **FOLDER)
    image_set = images.folder(path=str(tmp_path), **FOLDER | {"unreadable_share": 0.2})
    assert images.datasheet(image_set)["unreadable_files"] == 2
    assert "ants/broken.png" in capsys.readouterr().out
    assert len(image_set.pixels) == 12


def test_an_empty_folder_says_what_layout_was_wanted(tmp_path):
    with pytest.raises(SettingsError, match="<class>/<image>"):
        images.folder(path=str(tmp_path), **FOLDER)


def test_a_torchvision_dataset_by_name(tmp_path):
    shared = {key: FOLDER[key] for key in FOLDER if key not in ("labels", "unreadable_share")}
    image_set = images.torchvision_set(
        dataset="FakeData",
        arguments={"size": 8, "image_size": [3, 24, 24], "num_classes": 2},
        **shared,
    )
    assert image_set.pixels.shape[1:] == (16, 16, 3)
    assert set(image_set.index["label"]) <= {0, 1}


def test_preprocessed_tiles_are_the_same_tiles_cropped(photos):
    cropped = images.photos(**PHOTOS | {"preprocessing": {"align": None, "crop": 0.75}})
    pd.testing.assert_frame_equal(
        cropped.index.drop(columns="sha256"), photos.index.drop(columns="sha256")
    )
    centre = Image.fromarray(photos.pixels[5][8:56, 8:56]).resize((64, 64), Image.BILINEAR)
    np.testing.assert_array_equal(cropped.pixels[5], np.asarray(centre))


def upside_down(picture):
    return picture[::-1]


def grey(picture):
    return picture[..., 0]


def faceless(picture):
    raise ValueError("no face")


def test_a_function_of_the_user_aligns_pictures_before_they_are_cropped(tmp_path):
    (tmp_path / "a").mkdir()
    top = np.zeros((40, 40, 3), dtype=np.uint8)
    top[:20] = 255
    Image.fromarray(top).save(tmp_path / "a" / "one.png")
    options = FOLDER | {"path": str(tmp_path), "shares": EVEN | {"train": 0.0, "test": 1.0}}
    plan = {"align": f"{__name__}:upside_down", "crop": 1.0}
    image_set = images.folder(**options | {"preprocessing": plan})
    assert image_set.pixels[0, :7].max() == 0
    assert image_set.pixels[0, -7:].min() == 255
    with pytest.raises(SettingsError, match="wanted a picture.*got uint8 \\(40, 40\\)"):
        images.folder(**options | {"preprocessing": plan | {"align": f"{__name__}:grey"}})
    with pytest.raises(images.UnreadableError, match="no face"):
        images.folder(**options | {"preprocessing": plan | {"align": f"{__name__}:faceless"}})
    with pytest.raises(SettingsError, match="cannot import 'nowhere:align'"):
        images.folder(**options | {"preprocessing": plan | {"align": "nowhere:align"}})


def test_folds_test_every_image_once(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(10):
            picture().save(tmp_path / name / f"{i}.png")
    shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
    tested = []
    for fold in range(5):
        image_set = images.folder(
            **FOLDER | {"path": str(tmp_path), "shares": shares, "fold": fold}
        )
        assert image_set.index["split"].value_counts().to_dict() == {
            "train": 14, "validation": 2, "test": 4
        }  # fmt: skip
        tested += image_set.index.query("split == 'test'")["id"].to_list()
    assert sorted(tested) == sorted(image_set.index["id"])


def test_folds_that_would_test_an_image_twice_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(8):
        picture().save(tmp_path / "a" / f"{i}.png")
    shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
    options = FOLDER | {"path": str(tmp_path), "shares": shares}
    with pytest.raises(SettingsError, match="a class has 8 images and a fold tests 2"):
        images.folder(**options | {"fold": 4})

"""Settings of sizes and channels: what is read, and what is refused and how."""

import pytest

from camdrift.ops import checks
from camdrift.settings import SettingsError, params
from camdrift.settings.section import in_words, sides, size_of
from conftest import ROOT
from test_settings import changed


def test_a_size_is_a_number_or_height_and_width():
    assert [sides(64), sides([24, 40])] == [(64, 64), (24, 40)]
    assert [size_of(64, 64), size_of(24, 40)] == [64, [24, 40]]
    assert [in_words(64), in_words([24, 40])] == ["64 px", "24 x 40 px"]


SIZE = "a side in px, a whole number from 8 to 2048, or [height, width], got "


@pytest.mark.parametrize(
    ("size", "read"),
    [(64, 64), ([64, 64], 64), ([48, 80], [48, 80])],
)
def test_sizes_of_sets_are_read(size, read):
    content = changed("sets.photos.size", size, changed("sets.photos_cropped.size", size))
    assert params.parse(content).sets["photos"].size == read


@pytest.mark.parametrize(
    "size", [0, -8, 7, 2049, 64.0, True, "64", [64], [8, 8, 8], [64, 0], [64.0, 64], [64, -64], []]
)
def test_other_sizes_are_refused(size):
    for path in ("sets.photos_cropped.size", "models.vit.size"):
        with pytest.raises(SettingsError) as fault:
            params.parse(changed(path, size))
        assert f"{path}: wanted {SIZE}{size!r}" in str(fault.value)


FOLDER = {"kind": "folder", "path": "mine"}


@pytest.mark.parametrize(
    ("of", "resize"),
    [
        ({}, 256),
        ({"size": 64}, 73),
        ({"size": [40, 24]}, 27),
        ({"size": [24, 40], "resize": 30}, 30),
    ],
)
def test_the_shorter_side_decides_what_resize_is(of, resize):
    assert params.parse(changed("sets.mine", FOLDER | of)).sets["mine"].resize == resize
    with pytest.raises(SettingsError, match="wanted resize >= the shorter side of size"):
        params.parse(changed("sets.mine", FOLDER | of | {"resize": 23}))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sets.photos_cropped.channels", 2, "wanted 3, for colours, or 1, for grey, got 2"),
        ("sets.photos_cropped.channels", 1.0, "channels: wanted a whole number, got 1.0"),
        ("models.vit.mean", [0.5], "models.vit.mean: wanted a number for each channel of "
         "sets.photos, 3, got [0.5]; write mean: [0.5, 0.5, 0.5] and std: [0.25, 0.25, 0.25]"),
        ("models.vgg16_quarter.mean", [0.5], "wanted as many numbers in mean as in std, 3 or, for "
         "a set with `channels: 1`, 1, got 1 and 3"),
        ("models.vgg16_quarter.std", [0.5] * 2, "got 3 and 2"),
        ("sets.photos_cropped.channels", 1, "models.vgg16_cropped.mean: wanted a number for each "
         "channel of sets.photos_cropped, 1, got [0.5, 0.5, 0.5]; write mean: [0.5] and std: [0.2"),
        ("cells.pgd.source", "grey", "cells.pgd.source: wanted a model of a set with `channels: 3`,"
         " as sets.photos, got one of sets.grey with 1"),
        ("cells.pgd.model", "grey", "cells.pgd.model: wanted a model of a set with `channels: 3`"),
        ("cells.pgd.set", "grey", "cells.pgd.model: wanted a model of a set with `channels: 1`, as "
         "sets.grey, got one of sets.photos with 3"),
        ("retrainings.inspecting.set", "grey", "retrainings.inspecting.model: wanted a model of"),
    ],
)  # fmt: skip
def test_mixed_up_channels_are_refused(path, value, message):
    content = changed("sets.grey", {"kind": "photos", "path": "p", "size": 64, "channels": 1})
    model = {"set": "grey", "architecture": "resnet18", "mean": [0.5], "training": {}}
    content = changed("models.grey", model, content)
    assert params.parse(content).models["grey"].std == [0.25]
    with pytest.raises(SettingsError) as fault:
        params.parse(changed(path, value, content))
    assert message in str(fault.value)


def test_three_channels_are_no_key_of_what_is_written():
    plan = params.load(ROOT / "params.yaml").sets["photos"]
    assert plan.channels == 3
    assert "channels" not in plan.model_dump()


def test_a_size_below_what_a_network_needs_is_refused():
    plan = params.parse(changed("models.vgg16_cropped.size", [24, 64]))
    with pytest.raises(SettingsError) as fault:
        checks.everything(plan)
    (line,) = str(fault.value).splitlines()[1:]
    assert line.startswith("  models.vgg16_cropped: vgg16_bn does not run at width 0.25 and 24 x 6")

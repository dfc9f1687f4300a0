"""The layout of params.yaml: DVC writes it as it stands, and changes only what `-S` names."""

import difflib
import shutil

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml, modify_yaml

from camdrift.settings import params
from conftest import ROOT

FILE = ROOT / "params.yaml"


@pytest.fixture
def copy(tmp_path):
    return shutil.copy(FILE, tmp_path / "params.yaml")


def flat(tree, place=()):
    """The values of nested maps by their paths."""
    if not isinstance(tree, dict):
        return {place: tree}
    return {k: v for key, part in tree.items() for k, v in flat(part, (*place, key)).items()}


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


def test_dvc_reads_and_writes_the_same_bytes(copy):
    with modify_yaml(copy):
        pass
    assert copy.read_bytes() == FILE.read_bytes()
    apply_overrides(copy, ["seed=1"])  # replaces every list, the same values or not
    assert copy.read_bytes() == FILE.read_bytes()
    assert len(FILE.read_bytes()) <= 26_000


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ("seed=2", ["seed: 1"], ["seed: 2"]),
        ("attacks.fgsm.eps=0.004", ["    eps: 0.00784"], ["    eps: 0.004"]),
        ("attacks.fgsm.target=3", ["    target:"], ["    target: 3"]),
        ("models.vit.training.epochs=2", ["    training: {epochs: 24, learning_rate: 0.002}"],
         ["    training: {epochs: 2, learning_rate: 0.002}"]),
        ("cells.dlfuzz.protocols=[corrected]", [
            f"    - {name}" for name in
            ("as_published", "only_strengths", "only_quantise", "only_noise", "only_similarity",
             "only_score", "only_target", "only_threshold")
        ], []),
        ("scores.beside=[ssim,nissim]", [], ["  - nissim"]),
        ("+attacks.fgsm.mine=1", [], ["    mine: 1"]),
    ],
)  # fmt: skip
def test_a_sweep_changes_the_lines_of_its_value(copy, change, before, after):
    apply_overrides(copy, [change])
    old, new = FILE.read_text().splitlines(), copy.read_text().splitlines()
    lines = list(difflib.unified_diff(old, new, n=0))[2:]
    assert [line[1:] for line in lines if line[0] == "-"] == before
    assert [line[1:] for line in lines if line[0] == "+"] == after


@pytest.mark.parametrize(
    "path",
    [
        "sets.photos.limits.test",
        "sets.photos_cropped.limits.test",
        "cells.pgd.adaptive",
        "models.resnet50.training.epochs",
    ],
)
def test_a_value_is_that_of_one_part_alone(copy, path):
    """A part that stood for another by an anchor would change with it, or not at all."""
    apply_overrides(copy, [f"{path}=7"])
    old, new = flat(load_yaml(FILE)), flat(load_yaml(copy))
    assert {".".join(k): v for k, v in new.items() if old[k] != v} == {path: 7}


def test_comments_stay_whatever_is_changed(copy):
    lists = [place for place, value in flat(load_yaml(FILE)).items() if isinstance(value, list)]
    assert len(lists) > 20
    for place in lists:
        apply_overrides(copy, [f"{'.'.join(map(str, place))}=[1,2]"])
    assert comments(copy.read_text()) == comments(FILE.read_text())
    assert params.read(copy)["seeds"] == [1, 2]

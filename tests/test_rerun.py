"""What DVC would run again after a change, on the tiny study."""

import json
import shutil
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

STUDIES = ("tiny", "tiny_detectors", "tiny_inspecting", "tiny_generalising", "tiny_maps")
REPORTS = [f"report@{name}" for name in STUDIES]


@pytest.fixture(scope="module")
def recorded(tiny, tmp_path_factory):
    """A copy of the built study whose results DVC has on record."""
    folder = tmp_path_factory.mktemp("recorded") / "study"
    shutil.copytree(tiny.folder, folder, symlinks=True)
    dvc(folder, "commit", "--force", "--quiet")
    return folder


def dvc(folder, *words: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def changed_stages(folder) -> set[str]:
    return set(json.loads(dvc(folder, "status", "--json")))


@pytest.fixture
def params(recorded):
    path = recorded / "params.yaml"
    before = path.read_text()
    yaml = YAML()
    content = yaml.load(before)
    yield content, lambda: yaml.dump(content, path)
    path.write_text(before)


def test_nothing_is_to_do(recorded):
    assert changed_stages(recorded) == set()


def test_a_setting_of_an_attack_touches_its_cells_only(recorded, params):
    content, save = params
    content["attacks"]["pgd"]["steps"] = 7
    save()
    # A retraining attacks its models by PGD, too.
    attacks = {"attack@tiny_pgd", "attack@tiny_maps_pgd"}
    assert changed_stages(recorded) == {"check", *attacks, "retrain@tiny_inspecting"}


def test_a_setting_of_a_cell_touches_that_cell_and_the_report(recorded, params):
    content, save = params
    content["cells"]["tiny_fgsm"]["strengths"] = [0.5, 1.0]
    save()
    stages = {f"{name}@tiny_fgsm" for name in ("attack", "noise", "cam", "score", "detect")}
    # Every report declares the cells, and reads those of its own study.
    assert changed_stages(recorded) == stages | {"check", *REPORTS}


def test_a_new_cell_is_all_that_is_built(recorded, params):
    content, save = params
    content["cells"]["tiny_new"] = content["cells"]["tiny_fgsm"]
    save()
    stages = changed_stages(recorded) - {"check", *REPORTS}
    assert stages == {f"{name}@tiny_new" for name in ("attack", "noise", "cam", "score", "detect")}


def test_an_attacks_file_touches_its_cells_only(recorded):
    file = recorded / "lib/camdrift/attacks/pgd.py"
    before = file.read_text()
    file.write_text(before + "# a comment\n")
    changed = changed_stages(recorded)
    file.write_text(before)
    # `check` asks each attack for its settings; nothing follows from it.
    attacks = {"attack@tiny_pgd", "attack@tiny_maps_pgd"}
    assert changed == {"check", *attacks, "retrain@tiny_inspecting"}


def test_a_setting_that_nothing_uses_touches_nothing(recorded, params):
    content, save = params
    content["seeds"] = [1, 2, 3, 4]
    save()
    assert changed_stages(recorded) == {"check"}


def test_what_was_pushed_is_pulled_by_a_clone(recorded, tmp_path):
    """A clone has what git has: neither the cache nor what stages wrote."""
    source = shutil.copytree(recorded, tmp_path / "source", symlinks=True)
    dvc(source, "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    dvc(source, "push")
    clone = tmp_path / "clone"
    shutil.copytree(source, clone, symlinks=True, ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.rmtree(clone / "data")
    dvc(clone, "pull")
    assert json.loads(dvc(clone, "status", "--json")) == {}
    for part in ("studies", "models", "sets", "reports"):
        for file in (source / "data" / part).rglob("*.*"):
            assert (clone / file.relative_to(source)).read_bytes() == file.read_bytes()


def test_without_a_remote_or_artefacts_it_is_said_what_to_run(recorded, tmp_path):
    leave = shutil.ignore_patterns("cache", "tmp", "studies", "reports")
    clone = shutil.copytree(recorded, tmp_path / "clone", symlinks=True, ignore=leave)
    answer = subprocess.run(
        [sys.executable, "-m", "camdrift.ops.summary", "show"],
        cwd=clone,
        capture_output=True,
        text=True,
    )
    assert "make repro" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr

"""The cost of a study: a pinch of it that runs, the forecast from that, and the refusals."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from camdrift import storage
from camdrift.models import weights as sources
from camdrift.ops import alike, amounts, build, estimate, forecast, needs, pinch, trial
from camdrift.ops.forecast import Estimate, Study
from camdrift.ops.trial import Base, Trial
from camdrift.settings import SettingsError, params, presets
from conftest import ORDER, ROOT, TINY, inside

GROUPS = [group for group in ORDER if group != "check"]


@pytest.fixture(scope="module")
def plan():
    with inside(ROOT):
        return estimate.resolve(TINY, [], [])[0]


@pytest.fixture(scope="module")
def counts(plan):
    return {n: needs.counted(n, c, seed=plan.seed, need=None) for n, c in plan.sets.items()}


def study_of(plan, counts):
    return Study(plan.model_dump(mode="json"), {n: c.splits for n, c in counts.items()})


def pinched(folder, plan, counts, size):
    with inside(ROOT):
        pinch.write(folder, plan, counts, size)
    return folder


def test_images_are_counted_as_they_are_split(counts):
    digits = counts["digits"]
    assert digits.splits == {"train": 400, "validation": 100, "test": 50}
    assert (digits.classes, digits.read, len(digits.sample)) == (10, 550, needs.HANDFUL)
    assert len(digits.labels) == needs.HANDFUL


def test_amounts_are_those_of_the_settings(plan, counts):
    def amount(stage, study):
        return amounts.GROUPS[stage.partition("@")[0]].amount(study.stage(stage))

    with inside(ROOT):
        study = study_of(plan, counts)
        # 4 epochs of 400 images and, at a third of a step, of 100; then 50 test images.
        assert amount("train@vgg11_eighth", study) == pytest.approx(1600 + 400 / 3 + 50 / 3)
        assert amount("attack@tiny_pgd", study) == amount("transfer@tiny_vgg11", study) == 50
        # Clean, and attacked and noisy at two strengths.
        assert amount("detect@tiny_pgd", study) == 5 * 50
        assert amount("retrain@tiny_inspecting", study) == 20


def test_amounts_are_those_of_the_tiny_study(tiny, plan, counts):
    with inside(tiny.folder):
        study = study_of(plan, counts)
        for name, cell in plan.cells.items():
            folder = storage.cell_folder(cell.study, name, "attack")
            images = storage.read(storage.Attacked, folder).images
            assert len(images) == amounts.GROUPS["attack"].amount(study.stage(f"attack@{name}"))
            detection = storage.read(
                storage.Detected, storage.cell_folder(cell.evaluation, name, "detect")
            )
            if cell.detect and not cell.adaptive:
                counted = amounts.GROUPS["detect"].amount(study.stage(f"detect@{name}"))
                assert len(detection.features) == counted


def test_every_group_of_stages_is_in_the_order_of_the_pipeline(tiny):
    with inside(tiny.folder):
        upstream = alike.upstream()
        order = list(upstream)
        listed = [stage for stage in tiny.stages if "@" in stage]
        assert sorted(order) == sorted(listed) == sorted(params.stages())
        for stage in order:
            before = order[: order.index(stage)]
            assert upstream[stage] <= {*before}
            paths = [path for each in before for path in params.outputs(each)]
            checked = {storage.CHECKED, *storage.MODULES.glob("*/*")}
            for path in params.dependencies(stage):
                if path.is_relative_to(storage.DATA) and path not in checked:
                    assert any(o.is_relative_to(path) or path.is_relative_to(o) for o in paths)


def test_stages_of_all_threads_are_tried_alone():
    def fits(name, *running):
        return forecast._fits(name, running, 2)

    assert fits("train@a") and fits("attack@a") and fits("report@a")
    assert fits("cam@a", "attack@b") and fits("report@a", "cam@b")
    assert not fits("cam@a", "attack@b", "score@c")  # two at once
    assert not fits("train@a", "attack@b") and not fits("attack@b", "train@a")
    assert not forecast._fits("cam@a", ["attack@b"], 1)


def test_what_takes_long_without_images_is_tried_once(tiny):
    """A renamed group of stages needs an edit of one table, and would else pass for a report."""
    with inside(tiny.folder):
        groups = {stage.partition("@")[0] for stage in params.stages()}
    reports = groups - amounts.GROUPS.keys() - {forecast.FETCH}
    assert reports == {"report"}
    assert amounts.GROUPS.keys() <= groups


def test_folds_of_a_network_are_alike_and_networks_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("CAMDRIFT_DATA", str(tmp_path))
    with inside(ROOT):
        orl = presets.read("orl").settings
    folds = {name: needs.Counted({"train": 280, "validation": 40, "test": 80}, 40,
                                 np.zeros((0, 112, 112, 3), np.uint8), np.zeros(0, int), 0, 0, 1)
             for name in orl.sets}  # fmt: skip
    folder = pinched(tmp_path, orl, folds, pinch.sizes(orl)[0])
    with inside(folder):
        groups = alike.groups(list(alike.upstream()), dict.fromkeys(orl.sets, (112, 40)))
        other = alike.groups(list(alike.upstream()), {name: (112, name) for name in orl.sets})
    stages = ("train@", "gradient_sign@", "transfer@")
    networks = [group for group in groups if group[0].startswith(stages)]
    assert len(networks) == 3 * 5
    for group in networks:
        assert len(group) == 5
        assert len({stage.rpartition("_")[0] for stage in group}) == 1
    assert len(other) == len(orl.sets) + 3 * 25 + 1  # each on images of its own


def test_cells_are_alike_by_their_settings_alone(plan, counts, tmp_path):
    cells = dict(plan.cells)
    cells["again"] = cells["tiny_fgsm"]
    cells["stronger"] = cells["tiny_fgsm"].model_copy(update={"override": {"eps": 0.2}})
    more = plan.model_copy(update={"cells": cells})
    folder = pinched(tmp_path, more, counts, pinch.sizes(more)[0])
    with inside(folder):
        groups = alike.groups(params.stages(), dict.fromkeys(plan.sets, (32, 10)))
    by_stage = {stage: group for group in groups for stage in group}
    assert by_stage["attack@again"] == ["attack@tiny_fgsm", "attack@again"]
    assert by_stage["attack@stronger"] == ["attack@stronger"]
    assert {"noise@tiny_fgsm", "noise@again"} < {*by_stage["noise@stronger"]}


def test_a_pinch_has_few_images_all_classes_and_valid_settings(plan, counts, tmp_path):
    _, large = pinch.sizes(plan)
    folder = pinched(tmp_path, plan, counts, large)
    with inside(folder):
        small = params.load()
        images = storage.read(storage.ImageSet, storage.set_folder("digits"))
        other = storage.read(storage.ImageSet, storage.set_folder("digits_cropped"))
    assert small.micro_batch == large.micro_batch
    assert {model.training.epochs for model in small.models.values()} == {1}
    assert small.attacks == plan.attacks
    assert small.cells["tiny_dlfuzz"].detect == [1.0]
    assert small.cells["tiny_dlfuzz"].override == plan.cells["tiny_dlfuzz"].override
    retraining, whole = small.retrainings["tiny_inspecting"], plan.retrainings["tiny_inspecting"]
    assert retraining.attacked.test == pinch.FEWEST
    assert retraining.attacked.train == pinch.FEWEST * whole.attacked.train / whole.attacked.test
    assert images.index["label"].max() == counts["digits"].classes - 1
    assert (images.index["split"] == "test").sum() == large.images
    assert images.index["sha256"].tolist() == [""] * len(images.index)
    assert images.index["id"].equals(other.index["id"])  # as of paired sets


def test_weights_that_would_be_downloaded_are_replaced(plan, counts, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    model = plan.models["resnet18_eighth"].model_copy(
        update={"weights": "IMAGENET1K_V1", "width": 1.0, "head": "torchvision", "classes": 1000,
                "training": None}
    )  # fmt: skip
    altered = plan.model_copy(update={"models": plan.models | {"resnet18_eighth": model}})
    (line, *_) = needs.weights("resnet18_eighth", model)
    assert "45 MB would be downloaded" in line
    folder = tmp_path / "pinch"
    folder.mkdir()
    pinched(folder, altered, counts, pinch.sizes(altered)[0])
    with inside(folder):
        replacement = params.load().models["resnet18_eighth"]
    state = load_file(replacement.weights)
    assert state["fc.weight"].shape == (1000, 512)
    assert all(value.isfinite().all() for value in state.values())


def test_weights_of_a_url_are_those_that_training_downloads(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    update = {"weights": "https://example.org/own.pt", "sha256": "ab" * 32}
    model = plan.models["vgg11_eighth"].model_copy(update=update)
    line, where, _ = needs.weights("own", model)
    assert "would be downloaded" in line
    assert "https://example.org/own.pt" in where
    assert sources.file(model).name == f"camdrift-{'ab' * 32}.pt"


def test_estimates_follow_from_a_trial(plan, counts):
    """Numbers by hand: 2 images took 1 s at first, 2 more another 2 s; there are 50."""
    with inside(ROOT):
        whole = study_of(plan, counts)
        small, large = (
            Study(whole.content | {"micro_batch": n}, {"digits": {"test": n}}) for n in (2, 4)
        )
        trial = Trial((1.0, 2.0), (30.0, 8.0), (5.0, 4.0), in_shards=True)
        result = forecast._estimate(
            "attack@tiny_fgsm", trial, Base(3.0, 100.0), (small, large, whole)
        )
        times = (50 - 2) / 2
        assert result.seconds == pytest.approx(3 + 1 + times * 2)
        assert result.disk == pytest.approx(5 + times * 4)
        # Memory grows by the mean of micro-batch and images: sqrt(32 x 50), 4, 2.
        batch = plan.micro_batch
        growth = ((batch * 50) ** 0.5 - 2) / (4 - 2)
        assert result.peak == pytest.approx(100 + 30 + growth * 8)
        report = forecast._estimate(
            "report@tiny", trial, Base(3.0, 100.0), (small, large, whole), fault="KeyError: 1"
        )
    assert (report.seconds, report.peak, report.disk) == (4.0, 130.0, 5.0)
    assert report.fault == "KeyError: 1"


SHORT = [
    Estimate("train@one", 3, 500, 20),
    Estimate("train@two", 5, 400, 30),
    Estimate("fetch@set", 1, 100, 10),
    Estimate("report@all", 2, 300, 1, "KeyError: 1"),
]


@pytest.fixture
def table():
    with inside(ROOT):
        return estimate.table(SHORT)


def test_estimates_add_up_by_group(table):
    assert table["stage"].tolist() == ["fetch", "train", "report", "in all"]
    assert table["seconds"].tolist() == [1, 8, 2, 11]
    assert table["disk"].tolist() == [10, 50, 1, 61]
    assert table["peak"].tolist() == [100, 500, 300, 500]
    assert table["runs"].tolist() == [1, 2, 1, 4]
    lines = estimate.printed(table)
    assert len(lines) == 5
    assert all(len(line) < 80 for line in lines)


def test_what_is_scarce_or_failed_is_said(table):
    assert estimate.scarce(table) == []
    table[["peak", "disk"]] = 1e12
    memory, disk = estimate.scarce(table)
    assert "micro_batch" in memory
    assert "DVC's cache" in disk
    (line,) = estimate.faults(SHORT)
    assert line.startswith("report@all cannot run on so few images")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (1500, "25 min"), (12_600, "3.5 h"), (90_000, "25 h"), (1e6, "12 days")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert estimate.duration(seconds) == text


def test_a_plan_is_narrowed_to_what_a_study_rests_on(plan):
    rest = estimate.narrowed(plan, ["tiny_generalising"])
    assert not rest.cells and not rest.retrainings
    assert set(rest.models) == {"vgg11_eighth", "resnet18_eighth", "resnet18_cropped"}
    rest = estimate.narrowed(plan, ["tiny"])
    assert list(rest.sets) == ["digits"]
    assert list(rest.models) == ["vgg11_eighth"]
    with pytest.raises(SettingsError, match="no study 'other'; there are: tiny, "):
        estimate.narrowed(plan, ["other"])


def printed(monkeypatch, capsys, *words):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["plan", *words])
    estimate.main()
    return capsys.readouterr().out


def own_variables():
    return {name: value for name, value in os.environ.items() if name.startswith("CAMDRIFT_")}


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_check_runs_the_stages_and_leaves_nothing_behind(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CAMDRIFT_SHARDS", str(tmp_path / "shards"))
    file = tmp_path / "own.yaml"
    file.write_text(
        "sets: {digits: {kind: digits, size: 32, limits: {train: 40, validation: 10, test: 5}}}\n"
        "models: {small: {architecture: vgg11_bn, width: 0.125, head: pooled,\n"
        "    training: {epochs: 100}}}\n"
        "cells: {own: {attack: fgsm, strengths: [1.0]}}\n"
    )
    before, variables = state(ROOT / "data"), own_variables()
    text = printed(monkeypatch, capsys, str(file))
    assert text.startswith("settings: valid\nset digits: 400 train, 100 validation, 50 test; 10 cl")
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    there = [group for group in GROUPS if group in rows]
    assert there == ["fetch", "train", "attack", "noise", "cam", "score", "detect", "report"]
    assert "cannot run on so few images" not in text
    assert all(int(rows[group][2]) >= 1 for group in there)  # seconds
    assert all(int(rows[group][4].replace(",", "")) > 100 for group in there)  # MB
    assert state(ROOT / "data") == before
    assert own_variables() == variables
    # Python removes its own folder, for processes that fork, when this one ends.
    assert [path for path in tmp_path.iterdir() if not path.name.startswith("pymp-")] == [file]


def test_a_check_that_is_stopped_leaves_nothing_behind(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "camdrift.ops.estimate", TINY, "tiny"], cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # A job in the background of a shell ignores the signal, and so would the check.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with contextlib.suppress(subprocess.TimeoutExpired):
        while not list(tmp_path.glob("camdrift-*")) and process.poll() is None:
            time.sleep(0.2)
        process.wait(1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "stopped; nothing was written" in output
    assert list(tmp_path.glob("camdrift-*")) == []


REFUSED = {
    "no preset 'imagenet': wanted a .yaml file or one of cats_dogs, cifar10": ["imagenet"],
    "no study 'nothing'; there are: tiny": [TINY, "nothing"],
    "params.yaml, so changed, is not valid:": [TINY, "-S", "micro_batch=0"],
    "SET: ": [TINY, "-S", "nothing=0"],
    "no architecture 'nothing' in torchvision": [
        TINY, "tiny_generalising", "-S", "models.resnet18_eighth.architecture=nothing",
    ],
    "cannot import 'my_networks:small'": [
        TINY, "tiny_generalising", "-S", "models.resnet18_eighth.architecture='my_networks:small'",
    ],
    "(IMAGENET1K_V1); got no file '/nowhere.pt'": [
        TINY, "tiny", "-S", "models.vgg11_eighth.weights=/nowhere.pt",
        "-S", f"models.vgg11_eighth.sha256='{'0' * 64}'",
    ],
}  # fmt: skip


@pytest.mark.parametrize("said", list(REFUSED))
def test_what_is_refused_is_said_and_not_traced_back(monkeypatch, capsys, said):
    monkeypatch.setattr(trial, "base", lambda modules: Base(1.0, 100.0))
    with pytest.raises(SettingsError) as fault:
        printed(monkeypatch, capsys, *REFUSED[said])
    assert said in str(fault.value)


def test_a_folder_that_is_not_there_is_refused(monkeypatch, capsys, tmp_path):
    for variable in build.FOLDERS.values():
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SettingsError) as fault:
        printed(monkeypatch, capsys, "cats_dogs")
    assert len(str(fault.value).splitlines()) == 3
    monkeypatch.setenv("CAMDRIFT_DATA", str(tmp_path))
    with pytest.raises(SettingsError, match="no image in the subfolders"):
        printed(monkeypatch, capsys, "cats_dogs")


def test_data_that_would_be_downloaded_is_said_in_three_lines(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMDRIFT_DATA", str(tmp_path))
    monkeypatch.chdir(ROOT)
    pets, lacks = estimate.resolve("oxford_pets", [], [])
    counted = needs.counted("oxford_pets", pets.sets["oxford_pets"], seed=1, need=lacks["DATA"])
    assert counted.splits == {"train": 2576, "validation": 368, "test": 736}
    assert len(counted.notes) == 3
    assert counted.notes[0].startswith("811 MB of images would be downloaded to ")
    images = pinch.image_set(counted, {"train": 3, "test": 2}, (224, 224, 3), seed=1)
    assert images.pixels.shape == (6, 224, 224, 3)
    assert images.pixels.std() > 50  # noise: a blank image would have maps without values
    with pytest.raises(SettingsError, match="cannot be counted before it is downloaded"):
        needs.counted("oxford_pets", pets.sets["oxford_pets"], seed=1, need=None)
    assert list(tmp_path.iterdir()) == []

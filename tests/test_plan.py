"""What a study would take: work that is counted, a pace that is measured, and what is refused."""

import sys

import numpy as np
import pytest
import torch

from camdrift import attacks, storage
from camdrift.ops import build, estimate, looks, needs, timing, work
from camdrift.perturbations import variants
from camdrift.settings import SettingsError, params, protocols
from conftest import ROOT, TINY, inside

CHOSEN = params.load(ROOT / "params.yaml")
GROUPS = ["fetch", "train", "retrain", "signatures", "sign", "carry",
          "attack", "noise", "cam", "coverage", "score", "detect", "report"]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    with inside(ROOT):
        return estimate.asked(TINY, [], [])[0]


@pytest.fixture(scope="module")
def counts(made):
    return {n: needs.counted(n, c, seed=made.seed, need=None) for n, c in made.sets.items()}


@pytest.fixture
def tasks(made, counts, monkeypatch):
    """Of the tiny study, each unit of which takes a millisecond."""
    monkeypatch.setattr(timing, "seconds", lambda _: 1e-3)
    return {task.stage: task for task in work.tasks(made, counts)}


@pytest.fixture
def built(tiny):
    """The tiny study: folder and settings."""
    return tiny.folder, tiny.settings


def test_an_attack_of_which_nothing_is_known_is_timed_as_it_is(made, counts, monkeypatch):
    calls = []
    monkeypatch.setattr(timing, "attack", lambda at, **given: calls.append(given) or 4)
    monkeypatch.setattr(attacks, "resolved", lambda name, common, override: {"steps": 4})
    cell = made.cells["tiny_fgsm"].model_copy(update={"attack": "momentum"})
    plan = made.model_copy(update={"cells": {"mine": cell}, "retrainings": {}, "studies": {}})
    (task,) = [task for task in work.tasks(plan, counts) if task.stage == "attack@mine"]
    (own,) = [done for done in task.passes if done.kind == "attack momentum"]
    assert own.units >= 50
    own.seconds()
    assert calls[0] == {"name": "momentum", "settings": {"steps": 4}}


def test_images_are_counted_as_they_are_split(counts):
    found = counts["digits"]
    assert found.splits == {"train": 400, "validation": 100, "test": 50}
    assert (found.classes, found.read, len(found.sample)) == (10, 550, needs.HANDFUL)


def test_variants_are_those_that_the_study_makes(built):
    def facts(made):
        keys = ["strength", "draw", "recipe"]
        return [(v.name, *v.table[keys].iloc[0], v.targets, v.central) for v in made]

    folder, chosen = built
    known = protocols(chosen.protocols)
    with inside(folder):
        for name, cell in chosen.cells.items():
            attacked, made = variants.read(cell, name, [known[p] for p in cell.protocols])
            counted = looks.of_cell(cell, chosen)
            raised = [v for v in counted.made if v.name == storage.RAISED]
            there = made[-1].name == storage.RAISED
            assert facts(made[: len(made) - there]) == facts(counted.made[: -len(raised) or None])
            # Pictures of an image that differ, where noise flips it: as many as were counted, or
            # fewer where the attack or the raising of noise changed nothing.
            flips = made[-1].table["image"] if there else attacked.images["image"]
            differing = []
            for image in flips:
                digests = set()
                for variant in made:
                    row = variant.table["image"].tolist().index(image)
                    pixels = variant.pixels()[row].numpy().tobytes()
                    digests.add((variant.name == storage.SOFTMAX, pixels))
                differing.append(len(digests))
            assert max(differing) == sum(counted.plain) + sum(counted.central), name


def test_maps_of_the_tiny_study_are_near_those_that_were_counted(built):
    folder, chosen = built
    with inside(folder):
        for name, cell in chosen.cells.items():
            counted = looks.of_cell(cell, chosen)
            found = storage.read(storage.Maps, storage.cell_folder(cell.study, name, "cam"))
            images = found.rows["image"].nunique()
            assert 0.5 < len(found.values) / (images * counted.maps) < 2, name


def test_work_is_counted_from_the_settings(made, tasks):
    full = made.micro_batch * np.ceil(50 / made.micro_batch)
    cell = made.cells["tiny_pgd"]
    steps = work.EARLY * cell.override["steps"]
    assert tasks["attack@tiny_none"].units() == {"forward": 5 * full, "gradient": full}
    found = tasks["attack@tiny_pgd"].units()
    assert found == {"forward": 5 * full, "gradient": pytest.approx((1 + steps) * full)}
    assert tasks["attack@tiny_fgsm"].units() == {"forward": 4 * full, "gradient": 2 * full}
    assert 3 * full < tasks["attack@tiny_dlfuzz"].units()["fuzz"] <= 31 * full
    training = made.models["vgg11_eighth"].training
    found = tasks["train@vgg11_eighth"].units()
    assert found == {"train": training.epochs * 400, "forward": training.epochs * 100 + 50}
    assert tasks["coverage@tiny_pgd"].units() == {"cover": 7 * full}
    assert tasks["detect@tiny_none"].units() == {}
    # Clean, attacked and noisy at each strength that detectors see; each copy, and the two before.
    seen = tasks["detect@tiny_dlfuzz"].units()
    copies = made.detection.detectors["behaviour"]["copies"]
    assert seen["look of behaviour"] == 7 * 50 * (copies + 2)
    others = [name for name in made.detection.detectors if name != "behaviour"]
    assert seen[" ".join(["look of", *others])] == 7 * full
    retraining = made.retrainings["tiny_inspecting"]
    search = attacks.resolved("one_pixel", made.attacks, retraining.one_pixel)
    tried = 30 + 5 * 20
    queries = tried * search["population"] * (1 + search["generations"])
    assert tasks["retrain@tiny_inspecting"].units()["query"] == queries
    eps = len(made.studies["tiny_generalising"].eps)
    explained = tasks["carry@tiny_vgg11"].units()["explain 1 for 2"]
    assert explained == full * (1 + 3 * eps) - full


def test_files_are_as_large_as_those_of_the_tiny_study(built, tasks):
    folder, chosen = built
    with inside(folder):
        for name, cell in chosen.cells.items():
            for stage in ("attack", "noise", "cam"):
                files = storage.cell_folder(cell.study, name, stage).glob("*.npy")
                size = sum(file.stat().st_size for file in files)
                assert 0.5 < tasks[f"{stage}@{name}"].written / size < 2, (stage, name)


def test_estimates_are_positive_and_add_up(tasks):
    bases = {task.base: timing.Base(2.0, 100.0) for task in tasks.values()}
    found = [estimate.estimate(task, bases) for task in tasks.values()]
    assert all(e.seconds >= 2 and e.peak >= 100 and e.disk >= 0 for e in found)
    table = estimate.table(found)
    assert table["stage"].tolist() == [*GROUPS, "in all"]
    total = table.iloc[-1]
    assert total["runs"] == len(found) == len(tasks)
    assert total["seconds"] == pytest.approx(sum(e.seconds for e in found))
    assert total["disk"] == pytest.approx(sum(e.disk for e in found))
    assert total["peak"] == max(e.peak for e in found)
    units = sum(sum(task.units().values()) for task in tasks.values())
    reading = sum(p.units * p.seconds() for t in tasks.values() for p in t.passes if not p.network)
    counted = sum(p.units for t in tasks.values() for p in t.passes if not p.network)
    spent = total["seconds"] - 2 * len(found) - reading
    assert spent == pytest.approx((units - counted) * 1e-3)
    lines = estimate.printed(table)
    assert len(lines) == 2 + len(GROUPS)
    assert all(len(line) < 80 for line in lines)


def test_what_is_scarce_is_said(tasks, monkeypatch):
    bases = {task.base: timing.Base(2.0, 100.0) for task in tasks.values()}
    table = estimate.table([estimate.estimate(task, bases) for task in tasks.values()])
    assert estimate.scarce(table) == []
    table[["peak", "disk"]] = 1e12
    memory, disk = estimate.scarce(table)
    assert "micro_batch" in memory
    assert "DVC's cache" in disk


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (1500, "25 min"), (12_600, "3.5 h"), (90_000, "25 h"), (1e6, "12 days")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert estimate.duration(seconds) == text


def test_a_plan_is_narrowed_to_what_a_study_rests_on(made):
    found = estimate.narrowed(made, ["tiny_generalising"])
    assert not found.cells and not found.retrainings
    assert set(found.models) == {"vgg11_eighth", "resnet18_eighth", "resnet18_cropped"}
    found = estimate.narrowed(made, ["tiny"])
    assert list(found.sets) == ["digits"]
    assert list(found.models) == ["vgg11_eighth"]
    assert not any(cell.detect or cell.adaptive for cell in found.cells.values())
    found = estimate.narrowed(made, ["tiny_detectors"])
    assert found.cells == made.cells
    with pytest.raises(SettingsError, match="no study 'other'; there are: tiny, "):
        estimate.narrowed(made, ["other"])


def test_the_pace_is_the_fastest_of_some_rounds():
    calls = []
    assert timing.seconds(lambda: calls.append(1) or 1e9) < 1e-6
    assert len(calls) == timing.ROUNDS


def test_a_bench_bears_every_kind_of_network(made):
    model = made.models["resnet18_eighth"].model_copy(update={"width": 1.0})
    at = timing.bench("resnet18", model, classes=10, side=32, plan=made)
    with torch.no_grad():
        assert at.model(at.pixels[:2]).isfinite().all()
    assert all(value > 0 for value in (*at.held, at.weights, at.of("forward", timing.forward)))


def printed(monkeypatch, capsys, *words):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["plan", *words])
    estimate.main()
    return capsys.readouterr().out


def test_the_check_prints_a_plain_table(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, TINY, "tiny_generalising")
    assert text.startswith("settings: valid\nset digits: 400 train, 100 validation, 50 test; 10 cl")
    assert "vgg11_eighth: forward " in text
    stages = [line.split()[0] for line in text.splitlines() if line]
    assert [s for s in stages if s in GROUPS] == ["fetch", "train", "sign", "carry", "report"]


REFUSED = {
    "no preset 'imagenet': wanted a .yaml file or one of cats_dogs, faces": ["imagenet"],
    "no study 'nothing'; there are: tiny": [TINY, "nothing"],
    "params.yaml, so changed, is not valid:": [TINY, "-S", "micro_batch=0"],
    "SET: ": [TINY, "-S", "nothing=0"],
    "no architecture 'nothing' in torchvision": [
        TINY, "tiny_generalising", "-S", "models.resnet18_eighth.architecture=nothing",
    ],
    "cannot import 'my_networks:small'": [
        TINY, "tiny_generalising", "-S", "models.resnet18_eighth.architecture='my_networks:small'",
    ],
    "wanted a file, got no /nowhere.pt": [
        TINY, "tiny", "-S", "models.vgg11_eighth.weights=/nowhere.pt",
        "-S", f"models.vgg11_eighth.sha256='{'0' * 64}'",
    ],
}  # fmt: skip


@pytest.mark.parametrize("said", list(REFUSED))
def test_what_is_refused_is_said_and_not_traced_back(monkeypatch, capsys, said):
    monkeypatch.setattr(timing, "seconds", lambda _: 1e-3)
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
    chosen, wanted = estimate.asked("oxford_pets", [], [])
    found = needs.counted("oxford_pets", chosen.sets["oxford_pets"], seed=1, need=wanted["DATA"])
    assert found.splits == {"train": 2576, "validation": 368, "test": 736}
    assert len(found.notes) == 3
    assert found.notes[0].startswith("811 MB of images would be downloaded to ")
    with pytest.raises(SettingsError, match="cannot be counted before it is downloaded"):
        needs.counted("oxford_pets", chosen.sets["oxford_pets"], seed=1, need=None)
    assert list(tmp_path.iterdir()) == []

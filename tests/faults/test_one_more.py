"""One more image in a set, or one more cell in the settings, changes no other image's result.

What an image is drawn is seeded by (seed, cell, image), whatever its place; what a network says of
it does not depend on its neighbours. The stages' own scripts are run, with and without one more.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from camdrift import attacks, storage
from camdrift.datasets import images
from camdrift.models import architectures, engine, hook_points
from camdrift.papers.klawikowska2020 import experiment
from camdrift.pipeline import randomness, run
from camdrift.storage import Attacked, ImageSet, Maps, Noise, Weights
from conftest import ROOT, TINY, as_model, copy_of_repository, inside, script, small_network

CELLS = ("tiny_pgd", "tiny_dlfuzz")
FEW = 5
DIGITS = {
    "size": 32, "shares": {"train": 0.6, "validation": 0.1, "test": 0.3}, "preprocessing": None,
    "limits": {"train": 1, "validation": 1, "test": 1},
}  # fmt: skip


def one_network() -> Weights:
    facts = {"architecture": "vgg11_bn", "width": 0.125, "head": "pooled", "classes": 10,
             "size": 32}  # fmt: skip
    torch.manual_seed(0)
    network = architectures.build(**facts, initialised=True)
    with torch.no_grad():  # so that images differ in their classes, which attacks are to change
        network.train()(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    network.eval()
    points = hook_points.conv_points(engine.watch(network, torch.ones(1, 3, 32, 32)).calls)
    named = [{"name": point.name, "label": point.label} for point in points]
    facts |= {"mean": [0.5] * 3, "std": [0.25] * 3, "layers": named}
    return Weights(network.state_dict(), facts, pd.DataFrame({"epoch": [1]}))


def some_digits(*, more: bool) -> ImageSet:
    """A few test images; `more`: another stands before them, and they stand in another order."""
    whole = images.digits(seed=1, **DIGITS)
    rows = np.flatnonzero(whole.index["split"] == "test")
    places = [rows[FEW], *rows[:FEW][::-1]] if more else rows[:FEW]
    index = whole.index.iloc[places].reset_index(drop=True)
    return replace(whole, pixels=whole.pixels[places], index=index)


def built(folder, *, more_images: bool = False, more_cells: bool = False):
    """The artefacts of the stages of two cells, one for each (cell, kind)."""
    copy_of_repository(folder, preset=TINY)
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    for cell in CELLS:
        content["cells"][cell]["protocols"] = ["corrected"]
        content["cells"][cell]["strengths"] = content["cells"][cell]["detect"] = [1.0]
    if more_cells:
        cells = content["cells"]
        other = {key: value for key, value in cells["tiny_pgd"].items()} | {"label": "given"}
        content["cells"] = {"a_first": dict(other), **cells, "z_last": dict(other)}
    yaml.dump(content, folder / "params.yaml")
    artefacts = {}
    with inside(folder):
        storage.write(storage.set_folder("digits"), some_digits(more=more_images))
        storage.write(storage.model_folder("vgg11_eighth"), one_network())
        for cell in CELLS:
            for stage, kind in (("attack", Attacked), ("noise", Noise), ("cam", Maps)):
                script(stage).main(run.Stage(f"{stage}@{cell}"))
                place = storage.cell_folder("tiny", cell, stage)
                artefacts[cell, kind] = storage.read(kind, place)
    return artefacts


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return built(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def with_an_image(tmp_path_factory):
    return built(tmp_path_factory.mktemp("image"), more_images=True)


@pytest.fixture(scope="module")
def with_a_cell(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cell"), more_cells=True)


def by_image(artefacts, cell, kind):
    """Arrays and tables of an artefact by the image's id, without its place among others."""
    attacked = artefacts[cell, Attacked]
    names = dict(zip(attacked.images["image"], attacked.images["id"], strict=True))
    if kind is Maps:
        maps = artefacts[cell, Maps]
        keys = ["method", "variant", "strength", "draw", "recipe", "target"]
        return {
            names[image]: [
                (*row[keys].astype(str), row["target_class"], row["prediction"],
                 row["probability"], maps.values[row["map"]].tobytes(),
                 maps.maxima[row["map"]].tobytes())
                for _, row in rows.sort_values(keys).iterrows()
            ]
            for image, rows in maps.rows.groupby("image")
        }  # fmt: skip
    artefact = artefacts[cell, kind]
    arrays = [artefact.perturbation] if kind is Attacked else [artefact.draws, artefact.controls]
    tables = [artefact.images] if kind is Attacked else [artefact.scales, artefact.raised]
    return {
        name: [array[row].tobytes() for array in arrays]
        + [table[table["image"] == image].drop(columns="image").to_csv(index=False)
           for table in tables]
        for row, (image, name) in enumerate(names.items())
    }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_the_cells_do_something_that_is_drawn(before, cell):
    assert np.abs(before[cell, Attacked].perturbation).max(axis=(1, 2, 3)).min() > 0
    assert len({draw.tobytes() for draw in before[cell, Noise].draws[:, 0]}) == FEW


@pytest.mark.parametrize("kind", [Attacked, Noise, Maps])
@pytest.mark.parametrize("cell", CELLS)
def test_one_more_image_changes_no_other(before, with_an_image, cell, kind):
    old, new = by_image(before, cell, kind), by_image(with_an_image, cell, kind)
    assert len(old) == FEW
    assert len(new) == FEW + 1
    assert {name: new[name] for name in old} == old


@pytest.mark.parametrize("kind", [Attacked, Noise, Maps])
@pytest.mark.parametrize("cell", CELLS)
def test_one_more_cell_changes_no_other(before, with_a_cell, cell, kind):
    assert by_image(with_a_cell, cell, kind) == by_image(before, cell, kind)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "one_pixel"])
def test_one_more_image_changes_no_other_of_a_retraining(name):
    model = as_model(small_network())
    settings = {
        "fgsm": {"eps": 0.1, "gains": 2},
        "pgd": {"eps": 0.1, "step": 0.03, "steps": 3, "random_start": True},
        "one_pixel": {"population": 6, "generations": 2},
    }
    known = YAML(typ="safe").load(ROOT / "params.yaml")["attacks"]
    options = attacks.resolved(name, known, settings[name])
    pixels = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(1))

    def attacked(rows):
        names = [f"image {i}" for i in rows]
        labels = model(pixels[rows]).argmax(1)
        index = pd.DataFrame({"id": names, "source": names, "label": labels.numpy()})
        shown = experiment.Images(pixels[rows], labels, index)
        changed, _ = experiment.attack(model, name, options, shown, seed=1, key="test")
        return dict(zip(names, (image.numpy().tobytes() for image in changed), strict=True))

    few, more = attacked([0, 1, 2, 3]), attacked([5, 3, 2, 1, 0])
    assert {name: more[name] for name in few} == few


def test_a_draw_depends_on_every_part_of_its_key_alone():
    keys = [(1, "attack", "cell", "a"), (2, "attack", "cell", "a"), (1, "noise", "cell", "a"),
            (1, "attack", "cells", "a"), (1, "attack", "cell", "b")]  # fmt: skip
    draws = [randomness.generator(*key).integers(2**62) for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [randomness.generator(*key).integers(2**62) for key in keys[::-1]][::-1]

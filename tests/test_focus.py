"""Whether maps move to where the perturbation is."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from camdrift import settings, storage
from camdrift.analysis import focus, results
from camdrift.papers.findings import HOLDS, NOT, UNDECIDED
from camdrift.papers.renkhoff2022 import controls, report
from camdrift.scores import movement
from camdrift.scores.record import packed
from camdrift.storage import OWN, SEED, Attacked, Maps, Noise
from conftest import inside
from test_changes import CORRECTED
from test_claims import ArrayEvidence

CELL = "tiny_dlfuzz"
SIDE = 8


@dataclass(frozen=True)
class Written:
    """The artefacts of a cell's stages."""

    attacked: Attacked
    noise: Noise
    maps: Maps


@pytest.fixture(scope="module")
def written(tiny) -> Written:
    kinds = {"attack": Attacked, "noise": Noise, "cam": Maps}
    with inside(tiny.folder):
        parts = (
            storage.read(kind, storage.cell_folder("tiny", CELL, stage))
            for stage, kind in kinds.items()
        )
        return Written(*parts)


@pytest.fixture(scope="module")
def cell(tiny) -> results.Results:
    plan = tiny.settings
    known = settings.protocols(plan.protocols)
    with inside(tiny.folder):
        return results.read("tiny", CELL, plan.cells[CELL], known, plan.statistics, seed=plan.seed)


def correlation(first, second) -> float:
    """Pearson's, in loops; NaN where one of the two does not vary."""
    n = len(first)
    a, b = sum(first) / n, sum(second) / n
    product = sum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    norms = [sum((x - m) ** 2 for x in v) for v, m in ((first, a), (second, b))]
    if norms[0] == 0 or norms[1] <= (1e-5) ** 2 * sum(y**2 for y in second):
        return np.nan
    return product / (norms[0] * norms[1]) ** 0.5


def averaged(energy, height, width) -> np.ndarray:
    """Energy by position, in loops over tenths of pixels."""
    large = np.repeat(np.repeat(energy, height, axis=0), width, axis=1)
    return large.reshape(height, len(energy), width, -1).mean(axis=(1, 3)).ravel()


@pytest.mark.parametrize("name", ["corrected", "as_published", "only_score", "only_target"])
def test_correlations_twin(cell, written, name):
    protocol = cell.protocols[name]
    by_kind = focus.correlations(cell, protocol)
    attack, matched = written.attacked, written.noise
    images = attack.images
    flipped = images.index[images["success"]]
    rows = written.maps.select().query("target == @protocol.target and draw == 0")
    rows = rows.set_index(["variant", "strength", "recipe", "image"])["map"]
    scales = matched.scales.query("recipe == @protocol.recipe and draw == 0 and strength == 1")
    scale = scales.set_index("image")["scale"]
    clean = "clean_softmax" if protocol.score == "softmax_for_originals" else "clean"
    # At strength 1 the public code applies -.25 of the last step, and -1.25 beside its noise.
    published = protocol.strengths == "accumulating"
    attacks, noises = [], []
    for i in flipped:
        whole = np.asarray(attack.perturbation[i], dtype=float)
        last = attack.last_step[i] if published and len(attack.last_step) else whole
        attacks.append(whole - 1.25 * last if published else whole)
        like = last.mean() + last.std() * matched.draws[i, 0]
        noise = scale[images.loc[i, "image"]] * like
        if protocol.noise == "with_negated_attack":
            noise = whole - last - 1.25 * last + noise
        noises.append(noise)
    attacks, noises = ([(change**2).sum(0) for change in arm] for arm in (attacks, noises))
    layers = list(written.maps.layers.itertuples())
    for column in (0, len(layers) // 2, len(layers) - 1):
        layer = layers[column]
        part = slice(layer.start, layer.start + layer.height * layer.width)
        energies = [
            [averaged(energy, layer.height, layer.width) for energy in arm]
            for arm in (attacks, noises)
        ]
        for k, i in enumerate(flipped):
            image = images.loc[i, "image"]
            before, attacked, noisy = (
                written.maps.values[rows[(*key, image)], part].astype(float)
                for key in [
                    (clean, 0.0, ""), ("adversarial", 1.0, protocol.recipe),
                    ("noise", 1.0, protocol.recipe),
                ]
            )  # fmt: skip
            if not min(before.sum(), attacked.sum(), noisy.sum()):
                continue
            for kind, magnitude in (("signed", lambda x: x), ("size", abs)):
                moves = [
                    magnitude(after / after.sum() - before / before.sum())
                    for after in (attacked, noisy)
                ]
                others = [
                    correlation(moves[0], energies[0][j])
                    for j, other in enumerate(flipped)
                    if images.loc[other, "source"] != images.loc[i, "source"]
                ]
                expected = [
                    correlation(moves[0], energies[0][k]), correlation(moves[1], energies[1][k]),
                    np.nanmean(others) if np.isfinite(others).any() else np.nan,
                ]  # fmt: skip
                own = by_kind[kind]
                assert [own.attack[k, column], own.noise[k, column], own.floor[k, column]] == (
                    pytest.approx(expected, abs=2e-3, nan_ok=True)
                )


@pytest.mark.parametrize("sides", [(8, 4), (12, 8), (224, 55), (7, 7), (4, 6)])
def test_areas_are_averaged(sides):
    large, small = sides
    matrix = movement.areas(large, small)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(matrix.sum(0), small / large, rtol=1e-5)
    values = np.random.default_rng(0).normal(size=(large, large)).astype(np.float32)
    expected = averaged(values, small, small).reshape(small, small)
    np.testing.assert_allclose(matrix @ values @ matrix.T, expected, atol=1e-5)
    if large % small == 0:
        pooled = adaptive_avg_pool2d(torch.from_numpy(values)[None], small)[0]
        np.testing.assert_allclose(matrix @ values @ matrix.T, pooled, atol=1e-5)


def moving(shift, *, energy="spots", images=30, noise_shift=0.0, flipped=True, sources=30):
    """Results of one layer whose maps gain `shift` of the place of the perturbation's energy.

    `energy`: 'spots', at other places in each image; 'middle', the same for all; 'flat', a sign.
    """
    rng = np.random.default_rng(0)
    spots = np.zeros((images, 1, SIDE, SIDE), np.float32)
    for i in range(images):
        row, column = rng.integers(0, SIDE - 1, 2) if energy == "spots" else (3, 3)
        spots[i, 0, row : row + 2, column : column + 2] = 1
    whole = np.ones_like(spots) if energy == "flat" else spots
    draws = np.zeros((images, 2, 1, SIDE, SIDE), np.float32)
    draws[:, 0] = rng.normal(size=spots.shape)
    clean = rng.uniform(1, 2, (images, SIDE * SIDE))
    flat = spots.reshape(images, -1)
    attacked = clean + shift * flat + 0.05 * rng.normal(size=clean.shape)
    noisy = clean + noise_shift * flat + 0.05 * rng.normal(size=clean.shape)
    names = [("clean", 0.0, ""), *((n, 1.0, CORRECTED.recipe) for n in ("adversarial", "noise"))]
    maps = pd.concat([
        pd.DataFrame({"image": range(images), "variant": name, "strength": strength, "draw": 0,
                      "recipe": recipe, "target": target,
                      "map": np.arange(images) + k * images})
        for k, (name, strength, recipe) in enumerate(names) for target in (OWN, SEED)
    ])  # fmt: skip
    layers = pd.DataFrame({"label": ["1-1"], "height": SIDE, "width": SIDE, "start": 0})
    facts = pd.DataFrame(
        {"image": range(images), "source": np.arange(images) % sources, "success": flipped}
    )
    scales = pd.DataFrame({"image": range(images), "recipe": CORRECTED.recipe, "draw": 0,
                           "strength": 1.0, "scale": 1.0})  # fmt: skip
    blank = pd.DataFrame()
    attack = Attacked(whole, whole[:0], facts, blank)
    noise = Noise(draws, whole[:0], {}, scales, blank, blank)
    values = np.concatenate([clean, attacked, noisy])
    every = Maps(values, values[:0], maps.assign(method="GradCAM"), layers, whole[:0], blank)
    moves = movement.correlations(attack, noise, every, [CORRECTED], strengths=[1.0])
    moves = packed(moves, list(movement.KEYS), list(movement.ARMS))
    return SimpleNamespace(name="moving", first=CORRECTED, layers=["1-1"], focus={}, images=facts,
                           moves=moves)  # fmt: skip


def judged(outputs):
    images = len(outputs.images)
    evidence = ArrayEvidence(np.zeros((images, 1, 1)), np.zeros((images, 1, 1)), strengths=[1.0])
    object.__setattr__(evidence, "results", outputs)
    return controls.focus_moves(evidence)


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, HOLDS), (-0.5, NOT), (0.0, NOT)])
def test_a_map_that_gains_where_the_attack_is_moves_there(shift, verdict):
    finding = judged(moving(shift))
    assert finding.verdict == verdict
    assert np.sign(finding.value) == np.sign(shift) or not shift
    if shift:
        assert abs(finding.value) > 0.8
        assert f"be '{verdict}'" in finding.detail  # beyond other images, whose spots are elsewhere
    assert finding.images == 30


def test_a_middle_that_all_images_share_is_in_the_floor():
    """Maps that gain in the middle, attacks that are there: no movement to this perturbation."""
    finding = judged(moving(0.5, energy="middle"))
    assert finding.verdict == HOLDS  # by the rule, which knows noise alone
    assert finding.value > 0.8
    assert finding.detail.replace("-0.000", "0.000").count(
        "beyond them 0.000 [0.000, 0.000]: would be 'does not hold'"
    )


def test_the_energy_of_a_sign_does_not_vary():
    outputs = moving(0.5, energy="flat")
    finding = judged(outputs)
    assert finding.verdict == UNDECIDED
    assert np.isnan(finding.value)
    assert "a sign's do not" in finding.detail


def test_images_that_the_attack_does_not_flip_are_left_out():
    flipped = np.arange(30) % 3 > 0
    outputs = moving(0.5, flipped=flipped)
    assert focus.correlations(outputs, CORRECTED)["signed"].attack.shape == (20, 1)


def test_one_source_has_no_floor():
    outputs = moving(0.5, sources=1)
    own = focus.correlations(outputs, CORRECTED)["signed"]
    assert np.isnan(own.floor).all()
    assert np.isfinite(own.attack).all()


def test_the_table_has_the_means_of_the_correlations(cell, tiny):
    table = focus.table(cell, tiny.settings.statistics, tiny.settings.flags, seed=1)
    assert list(table) == focus.COLUMNS
    count = int(cell.images["success"].sum())
    assert (table["images"] == count).all()
    assert set(table["layer"]) == {*cell.layers, "mean"}
    for target in (OWN, SEED):
        protocol = cell.first.model_copy(update={"target": target})
        own = focus.correlations(cell, protocol)["signed"]
        known = np.isfinite(own.attack) & np.isfinite(own.noise) & np.isfinite(own.floor)
        rows = table.query("target == @target and difference == 'signed'").set_index("layer")
        for i, layer in enumerate(cell.layers):
            row = rows.loc[layer]
            if not row["n"]:
                continue
            assert row["n"] == known[:, i].sum()
            arms = [arm[known[:, i], i].mean() for arm in (own.attack, own.noise, own.floor)]
            assert row[["r_attack", "r_noise", "r_floor"]].tolist() == pytest.approx(arms, abs=1e-5)
            assert row["over_noise"] == pytest.approx(arms[0] - arms[1], abs=1e-5)
            assert row["over_floor"] == pytest.approx(arms[0] - arms[2], abs=1e-5)
            assert row["low"] <= row["over_noise"] <= row["high"]
    none = replace(cell, images=cell.images.assign(success=False))
    empty = focus.table(none, tiny.settings.statistics, tiny.settings.flags, seed=1)
    assert list(empty) == focus.COLUMNS
    assert empty.empty


def test_the_report_has_the_mean_correlations(tiny):
    with inside(tiny.folder):
        outputs = results.load("tiny")
    texts = report.moves(outputs, CELL)
    rows = outputs["focus"].query("cell == @CELL and layer == 'mean' and n > 0")
    assert len(texts) == len(rows) > 0
    assert report.moves({}, CELL).empty

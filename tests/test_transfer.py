from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from camdrift import storage
from camdrift.explain import cam
from camdrift.models import gradients
from camdrift.papers.chakraborty2022 import experiment
from camdrift.papers.chakraborty2022.attacks import Attacks
from camdrift.scores import comparison
from camdrift.settings import RANGES, TransferStudy
from camdrift.storage import (
    GIVEN,
    NOISE,
    OWN,
    OWN_ATTACK,
    POLICIES,
    TRANSFERRED,
    TRANSFERRED_NOISE,
    controlled,
)
from conftest import as_model, small_network

PLAN = TransferStudy(
    paper="chakraborty2022", title="", transferred="A", label="given", eps=[0.1, 0.4],
    ranges=["unit", "signed"], explains="given", examples=2,
)  # fmt: skip
N = 6
CONTROLS = ["negated", "sign_shuffled"]


@pytest.fixture(scope="module")
def model():
    return as_model(small_network(), size=24)  # resizes pixels of 12 px inside


@pytest.fixture(scope="module")
def attacks(model):
    pixels = torch.rand(N, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(N) % 4
    own, _ = gradients.cross_entropy(model, pixels, labels)
    signs = {"B": own.sign(), "A": own.flip(0).sign(), "C": -own.sign()}
    names = [f"image {i}" for i in range(N)]
    return Attacks(pixels, signs, "B", PLAN, CONTROLS, (1, "digits"), names)


@pytest.fixture(scope="module")
def table():
    names = [f"image {i}" for i in range(N)]
    return pd.DataFrame({"image": np.arange(N) + 40, "id": names, "source": names,
                         "label": np.arange(N) % 4, "class_name": "x"})  # fmt: skip


@pytest.fixture(scope="module")
def partners(table):
    return comparison.unrelated_partners(table, count=3, seed=1)


@pytest.fixture(scope="module")
def transfer(model, table):
    """The stage: a part for each of some slices of the images, and their join."""

    def run(attacks, *slices, explained=True):
        shown = experiment.examples(table, PLAN, seed=1)
        parts = [
            experiment.transfer(
                model, attacks.some(places), table[places].reset_index(drop=True), PLAN,
                shown=shown, explained=explained,
            )
            for places in slices or [slice(0, N)]
        ]  # fmt: skip
        return experiment.joined(parts, attacks.signs, PLAN, unrelated=3, seed=1)

    return run


@pytest.fixture(scope="module")
def result(transfer, attacks):
    return transfer(attacks)


def test_parts_of_the_images_give_what_all_give_at_once(transfer, attacks, result):
    parts = transfer(attacks, slice(0, 2), slice(2, 5), slice(5, N))
    for field in fields(storage.Transferred):
        one, other = getattr(parts, field.name), getattr(result, field.name)
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, other)
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other


def test_examples_are_drawn_by_their_names_and_not_by_their_places(table, result):
    few = experiment.examples(table, PLAN, seed=1)
    assert len(set(few)) == PLAN.examples
    assert list(result.shown["image"]) == few
    assert experiment.examples(table[::-1], PLAN, seed=1) == few
    more = PLAN.model_copy(update={"examples": 9})
    assert experiment.examples(table, more, seed=1)[: len(few)] == few
    assert experiment.examples(table, more, seed=2) != experiment.examples(table, more, seed=1)


def test_attacks_are_the_stored_sign_scaled_and_noise_has_their_size(attacks):
    sign = attacks.signs["A"]
    expected = (attacks.pixels + 0.4 * sign).clamp(0, 1)
    assert torch.equal(attacks.at(TRANSFERRED, 0.4), expected)
    assert torch.equal(attacks.at("from A", 0.4), expected)
    assert torch.equal(attacks.at(OWN_ATTACK, 0.4, slice(2, 4)), attacks.at("from B", 0.4)[2:4])
    for eps in PLAN.eps:
        sizes = [
            (attacks.at(kind, eps) - attacks.pixels).flatten(1).norm(dim=1)
            for kind in (TRANSFERRED, TRANSFERRED_NOISE)
        ]
        torch.testing.assert_close(*sizes, rtol=1e-4, atol=1e-5)


def test_outcomes_are_the_models_classes_in_both_ranges(model, attacks, result):
    rows = result.outcomes.set_index(["attack", "range", "eps"])
    for (kind, of, eps), part in rows.groupby(level=[0, 1, 2]):
        pixels = attacks.at(kind, eps * RANGES[of]) if eps else attacks.pixels
        np.testing.assert_array_equal(part["prediction"], model(pixels).argmax(1))
        assert list(part["image"]) == list(range(40, 40 + N))
        assert part["psnr"].isna().all() == (eps == 0)
    kinds = set(rows.index)
    assert (OWN_ATTACK, "unit", 0.0) in kinds
    every = ("own", "transferred", "noise", "from C")
    assert {(kind, "unit", eps) for kind in every for eps in PLAN.eps} < kinds
    assert ("transferred", "signed", 0.4) in kinds
    assert not any(kind in ("from A", "from B") for kind, _, _ in kinds)


def test_attacks_are_tried_after_rounding_to_8_bit(model, attacks, result):
    rows = result.outcomes.set_index(["attack", "range", "eps"])
    rounded = set(rows.index[rows["prediction_8bit"].notna()])
    attacked = (OWN_ATTACK, TRANSFERRED)
    assert rounded == {(kind, "unit", eps) for kind in attacked for eps in PLAN.eps}
    for kind, of, eps in rounded:
        pixels = attacks.at(kind, eps).mul(255).round().div(255)
        top = model(pixels).argmax(1)
        np.testing.assert_array_equal(rows.loc[(kind, of, eps), "prediction_8bit"], top)


def test_each_attack_has_its_controls_at_the_largest_eps(attacks, result):
    kinds = {kind for kind in result.variants["attack"] if "," in kind}
    every = {controlled(a, c) for a in (OWN_ATTACK, TRANSFERRED) for c in CONTROLS}
    assert kinds == every | {controlled(OWN_ATTACK, NOISE)}
    assert kinds < set(result.outcomes["attack"])
    for kind in kinds:
        rows = result.variants[result.variants["attack"] == kind]
        assert list(rows["eps"]) == [PLAN.eps[-1]]
        change = attacks.at(kind, PLAN.eps[-1]) - attacks.pixels
        whole = attacks.at(kind.partition(",")[0], PLAN.eps[-1]) - attacks.pixels
        sizes = [part.flatten(1).norm(dim=1) for part in (change, whole)]
        torch.testing.assert_close(*sizes, rtol=1e-4, atol=1e-5)
        # Part of a batch is changed as the whole.
        rows = slice(2, 5)
        assert torch.equal(attacks.at(kind, 0.4, rows), attacks.at(kind, 0.4)[rows])


def test_unrelated_pairs_are_those_of_single_clean_maps(model, attacks, table, partners, result):
    labels = torch.tensor(table["label"].to_numpy())
    maps = [alone(model, attacks.pixels[i : i + 1], labels[i]) for i in range(N)]
    place = {image: i for i, image in enumerate(table["image"])}
    for k, policy in enumerate(POLICIES):
        last = [m[policy][-1] for m in maps]
        large = [F.interpolate(m[None, None], (24, 24), mode="bilinear")[0, 0] for m in last]
        for i, image in enumerate(table["image"]):
            others = [place[other] for other in partners.loc[image]]
            each = [shift(large[i], large[j]) for j in others]
            assert result.unrelated[i, k, 1] == pytest.approx(np.mean(each), abs=2e-5)
            known = [
                value for value, j in zip(each, others, strict=True)
                if large[i].max() > 0 and large[j].max() > 0
            ]  # fmt: skip
            expected = np.mean(known) if known else np.nan
            assert result.unrelated[i, k, 0] == pytest.approx(expected, abs=2e-5, nan_ok=True)


def test_images_without_a_gradient_are_counted(transfer, attacks):
    signs = {name: sign.clone() for name, sign in attacks.signs.items()}
    signs["A"][:2] = 0
    flat = replace(attacks, signs=signs)
    result = transfer(flat, explained=False)
    assert result.facts["zero_gradients"] == {"A": 2 / N, "B": 0, "C": 0}


def test_shifts_are_those_of_single_maps_in_loops(model, attacks, table, result):
    labels = torch.tensor(table["label"].to_numpy())
    order = result.variants.itertuples(index=False, name=None)
    for j, (kind, eps) in enumerate(order):
        changed = attacks.at(kind, eps)
        for i in range(N):
            pair = [alone(model, p[i : i + 1], labels[i]) for p in (attacks.pixels, changed)]
            for k, policy in enumerate(POLICIES):
                for layer, (a, b) in enumerate(zip(*(maps[policy] for maps in pair), strict=True)):
                    check(result.shifts[i, j, k, layer], a, b)
                a, b = (
                    F.interpolate(m[None, None], (24, 24), mode="bilinear")[0, 0]
                    for m in (maps[policy][-1] for maps in pair)
                )
                check(result.last[i, j, k, 0], a, b)
                check(result.last[i, j, k, 1], a, b, blank=True)


def alone(model, pixels, label):
    _, own, label_maps = cam.explain(model, *padded(model, pixels, label))
    maps = {GIVEN: (label_maps or own)["GradCAM"], OWN: own["GradCAM"]}
    return {
        policy: [m[0] / m[0].max() if m[0].max() > 0 else m[0] for m in layers]
        for policy, layers in maps.items()
    }


def padded(model, pixels, label):
    return pixels.expand(model.micro_batch, -1, -1, -1), label.expand(model.micro_batch)


def check(value, a, b, *, blank=False):
    empty = a.max() == 0 or b.max() == 0
    if empty and not blank:
        assert np.isnan(value)
        return
    assert value == pytest.approx(shift(a, b), abs=2e-5)


def shift(a, b):
    side = min(a.shape)
    window = min(7, side - 1 + side % 2)
    similar = structural_similarity(
        a.numpy().astype(float), b.numpy().astype(float), data_range=1.0, win_size=window
    )
    return (1 - similar) / 2


def test_kept_maps_are_those_of_the_shown_images(model, attacks, table, result):
    first, second = result.shown["image"] - table["image"][0]
    assert result.values.shape[:2] == (2, 1 + len(result.variants))
    own = slice(first, first + 1)
    maps = alone(model, attacks.pixels[own], torch.tensor(table["label"].iloc[first]))[OWN]
    flat = torch.cat([m.flatten() for m in maps]).numpy()
    np.testing.assert_allclose(result.values[0, 0, POLICIES.index(OWN)], flat, atol=1e-3)
    np.testing.assert_array_equal(
        result.pictures[1, 0], (attacks.pixels[second].permute(1, 2, 0) * 255).round()
    )


def test_the_network_that_the_attack_was_made_on_meets_its_own_under_both_names(transfer, attacks):
    same = replace(attacks, own="A")
    result = transfer(same)
    kinds = result.variants["attack"].to_numpy()
    own, transferred = kinds == OWN_ATTACK, kinds == TRANSFERRED
    assert own.sum() == transferred.sum() == len(PLAN.eps)
    np.testing.assert_array_equal(result.shifts[:, own], result.shifts[:, transferred])
    np.testing.assert_array_equal(
        result.values[:, 1:][:, own], result.values[:, 1:][:, transferred]
    )
    rows = result.outcomes.query("eps > 0 and range == 'unit'").groupby("attack")["prediction"]
    assert list(rows.get_group(OWN_ATTACK)) == list(rows.get_group(TRANSFERRED))


def test_without_maps_there_are_outcomes_alone(transfer, attacks, result):
    bare = transfer(attacks, slice(0, 2), slice(2, N), explained=False)
    pd.testing.assert_frame_equal(bare.outcomes, result.outcomes)
    assert len(bare.variants) == 0
    assert bare.shifts.size == 0
    assert np.isnan(bare.unrelated).all()
    assert len(bare.pictures) == 0


def test_facts_count_the_parameters_that_the_forward_reads(model):
    conv, other, head = 5 * (3 * 9 + 1), 7 * (5 * 9 + 1), 4 * (7 + 1)
    facts = experiment._facts(model)
    assert facts["parameters"] == conv + other + head  # the norm is part of the first conv
    assert (facts["convs"], facts["channels"]) == (2, 6.0)

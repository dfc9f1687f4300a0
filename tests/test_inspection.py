"""Numbers of relevance maps, on paper, and the stages of a retraining where little is there."""

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift.attacks import fgsm
from camdrift.explain import lrp
from camdrift.papers.findings import HOLDS, UNDECIDED
from camdrift.papers.klawikowska2020 import (
    controls,
    inspection,
    readings,
    report,
    tables,
    verdicts,
)
from camdrift.papers.klawikowska2020 import (
    figures as drawings,
)
from camdrift.papers.klawikowska2020.tables import Inspection
from camdrift.settings import params
from camdrift.storage import Retrained
from camdrift.storage.pixels import to_8bit
from conftest import ROOT, as_model, small_network, tiny_settings

SETTINGS = params.load(ROOT / "params.yaml")
TINY = tiny_settings()
NAN = float("nan")
CONTROLS = ["noise", "negated", "displaced"]


def maps(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), 1, -1)


def test_correlation_on_paper():
    first = maps([1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3], [5, 5, 5])
    second = maps([10, 20, 30], [3, 2, 1], [1, 0, 1], [7, 7, 7], [1, 2, 3])
    correlation = inspection.correlation(first, second)
    np.testing.assert_allclose(correlation, [1, -1, 0, NAN, NAN], atol=1e-12)


def test_the_changed_pixel_is_the_one_that_differs_most_over_all_channels():
    clean = torch.zeros(3, 3, 4, 5)
    changed = clean.clone()
    changed[0, :, 2, 3] = 0.2  # 0.6 in all, against 0.5 in one channel
    changed[0, 1, 0, 0] = -0.5
    changed[1, 2, 3, 4] = 1.0
    assert inspection.changed_pixel(clean, changed).tolist() == [[2, 3], [3, 4], [-1, -1]]


def test_the_windows_share_on_paper():
    """A map of ones, 6 x 6: a window of 3 x 3 inside, cut off at an edge and at a corner."""
    ones = torch.ones(4, 6, 6)
    ones[3] = 0
    places = torch.tensor([[2, 2], [0, 3], [5, 5], [2, 2]])
    shares = inspection.window_share(ones, places, size=3)
    np.testing.assert_allclose(shares, [9 / 36, 6 / 36, 4 / 36, NAN])
    # Signs do not matter, and without a place there is no share.
    signed = ones[:1] * torch.tensor([1.0, -1.0]).repeat(3)
    np.testing.assert_allclose(inspection.window_share(signed, places[:1], size=3), 9 / 36)
    nowhere = torch.tensor([[-1, -1]])
    assert inspection.window_share(ones[:1], nowhere, size=3).isnan().all()


def test_the_negative_share_on_paper():
    assert inspection.negative_share(maps([1, -1, 2, 0], [4, 0, 0, 0], [0, 0, 0, 0])) == 0.125


def retraining(success: dict[str, list[bool]], labels: list[int], pixels) -> Retrained:
    """Attacks on the baseline model alone, whose attacks change the images of `success`."""
    count = len(labels)
    names = [f"image {i}" for i in range(count)]
    base = pd.DataFrame({"image": range(count), "source": names, "label": labels})
    rows, predictions = [], []
    for attack in ("fgsm", "one_pixel", "pgd", "fgsm_larger"):
        won = np.array(success.get(attack, [False] * count))
        after = np.where(won, np.array(labels) + 1, labels)
        rows.append(base.assign(model="baseline", attack=attack, split="test", clean=labels,
                                adversarial=after, right=True, success=won, evaluations=1,
                                success_8bit=won, l2=0.1, gain=NAN))  # fmt: skip
    attacked = pd.concat(rows, ignore_index=True)
    retrained = [attacked.assign(model=kind) for kind in ("fgsm", "one_pixel", "pgd")]
    for model in ("baseline", "fgsm", "one_pixel", "pgd"):
        for on in ("clean", "fgsm", "one_pixel"):
            predictions.append(base.assign(model=model, on=on, prediction=labels))
    settings = {
        "fgsm": {"eps": 0.1, "gains": 1},
        "one_pixel": {"population": 5, "generations": 1},
        "pgd": {"eps": 0.1, "steps": 2},
        "fgsm_larger": {"eps": 0.2, "gains": 1},
    }
    controls = pd.concat([
        base.assign(model="baseline", attack=attack, control=kind, right=True, flipped=False)
        for attack in settings for kind in CONTROLS
    ])  # fmt: skip
    changed = np.stack([pixels.numpy(), pixels.numpy()])
    changed[1, :, :, 2, 3] = 1 - changed[1, :, :, 2, 3]
    return Retrained(
        pd.concat([attacked, *retrained], ignore_index=True),
        pd.concat(predictions, ignore_index=True),
        controls, base.assign(id=names, class_name=[f"class {label}" for label in labels]),
        changed, {"settings": settings, "added": {"fgsm": 0, "one_pixel": 0}},
    )  # fmt: skip


def rounded_to_levels(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels * 255).round() / 255


def inspected(pixels, labels, success, *, model=None, attacked=None) -> Inspection:
    """What a network shows of images; `attacked` are those that FGSM made of them."""
    model = as_model(small_network()) if model is None else model
    retrained = retraining(success, labels, pixels)
    if attacked is not None:
        retrained.changed[0] = attacked.numpy()
    result = inspection.inspect(
        lambda kind: model, to_8bit(pixels.numpy()), retrained, TINY.signatures,
        controls=dict.fromkeys(("fgsm", "one_pixel"), CONTROLS), name="test", seed=1,
    )  # fmt: skip
    return Inspection("test", retrained, result, SETTINGS.statistics, 1)


def drawn(one: Inspection) -> tuple[dict, str, pd.DataFrame]:
    """Tables, the report's HTML and the claims, as the last stage makes them."""
    outputs = tables.tables(one)
    plan = TINY.retrainings["tiny_inspecting"]
    outputs["readings"] = readings.readings(one)
    outputs["claims"] = verdicts.claims_table(one, plan, SETTINGS.flags)
    figures = drawings.study_figures(outputs)
    figures += drawings.panels(outputs, one.retrained, one.signatures)
    page = report.page("tiny_inspecting", TINY, outputs, figures)
    return outputs, page, outputs["claims"].set_index("id")


def test_signatures_are_of_all_clean_images_and_of_successes_alone(pixels):
    labels, won = [0, 1] * 5, [True] * 3 + [False] * 7
    one = inspected(pixels, labels, {"fgsm": won, "one_pixel": won[::-1]})
    points = one.signatures.points
    assert points["on"].value_counts().to_dict() == {"clean": 10, "fgsm": 3, "one_pixel": 3}
    after = points.set_index(["on", "image"])["after"]
    assert after.loc["fgsm"].to_dict() == {0: 1, 1: 2, 2: 1}
    assert after.loc["one_pixel"].to_dict() == {7: 2, 8: 1, 9: 2}
    assert points.query("on == 'clean'")["success_one_pixel"].to_list() == won[::-1]
    # Clean maps go with themselves; where one pixel was changed, its window is looked at.
    images = one.signatures.images.set_index(["model", "on"])
    assert np.allclose(images.loc[("baseline", "clean"), "correlation"], 1)
    assert images.loc[("baseline", "one_pixel"), "window"].between(0, 1).all()
    assert images.loc[("baseline", "fgsm"), "window"].isna().all()
    outputs, page, claims = drawn(one)
    assert "trustworthiness" in page
    # A pixel of the same colour elsewhere has a window of its own.
    assert images.loc[("baseline", "one_pixel, displaced"), "window"].between(0, 1).all()
    assert "displaced" in claims.loc["C4", "detail"]
    assert "noise" in claims.loc["C3", "detail"]
    assert set(outputs["relevance"].query("kind == 'tripled'")["on"]) == {
        "one_pixel", *(f"one_pixel, {kind}" for kind in CONTROLS)
    }  # fmt: skip


def test_maps_of_the_same_class_are_those_that_explain_the_clean_images_top_class(pixels):
    won = [True] * 10
    one = inspected(pixels, [0, 1] * 5, {"fgsm": won, "one_pixel": won})
    model, pixels = as_model(small_network()), rounded_to_levels(pixels)
    before = model(pixels).argmax(1)
    changed = torch.from_numpy(one.retrained.changed[1].copy())
    own, same = lrp.relevance(model, pixels), lrp.relevance(model, changed, before)
    images = one.signatures.images.set_index(["model", "on"]).sort_index()
    for kind in ("baseline", "one_pixel", "retrained"):  # they are one model here
        rows = images.loc[(kind, "one_pixel")]
        expected = inspection.correlation(own, same)
        np.testing.assert_allclose(rows["correlation_same_class"], expected, atol=1e-6)
    # The clean images' maps of the classes that the attack leads to, and their windows.
    after = model(changed).argmax(1)
    swapped = lrp.relevance(model, pixels, after)
    rows = images.loc[("baseline", "one_pixel")]
    expected = inspection.correlation(own, swapped)
    np.testing.assert_allclose(rows["correlation_swapped"], expected, atol=1e-6)
    assert (rows["correlation_swapped"][(after == before).numpy()] > 0.999).all()
    place = torch.tensor([[2, 3]] * len(pixels))  # `retraining` changes that pixel of every image
    for column, maps_of in (("window_swapped", swapped), ("window_same_class", same)):
        expected = inspection.window_share(maps_of, place, size=TINY.signatures.window)
        np.testing.assert_allclose(rows[column], expected, atol=1e-6)
    assert images.drop(index="baseline")["correlation_swapped"].isna().all()
    controlled = images[images.index.get_level_values("on").str.contains(", ")]
    assert controlled["correlation_same_class"].isna().all()


def test_opposite_logits_reverse_the_map_without_an_attack(pixels):
    """z0 = -z1 = -sum(a w): the shares a w / (z + 0.1 sign(z)) z of the classes are opposite, too.

    So whatever flips the class reverses the map: C3 holds, but not beyond the class swap.
    """
    network = small_network(classes=2)
    last = network[-1]
    last.weight.data[1], last.bias.data = -last.weight.data[0], torch.zeros(2)
    model, pixels = as_model(network), rounded_to_levels(torch.cat([pixels] * 4))
    last.weight.data -= last.weight.data.mean(1, keepdim=True)  # both classes occur
    before = model(pixels).argmax(1)
    change = fgsm.perturb(model, pixels, before, generators=[], eps=0.5, gains=50, target=None)
    attacked = (pixels + change.pixels).clamp(0, 1)
    won = (model(attacked).argmax(1) != before).tolist()
    assert sum(won) > 20
    one = inspected(pixels, before.tolist(), {"fgsm": won}, model=model, attacked=attacked)
    rows = one.signatures.images.query("model == 'baseline' and on == 'fgsm'")[won]
    np.testing.assert_allclose(rows["correlation_swapped"], -1, atol=1e-4)
    assert (rows["correlation_same_class"] > 0).all()
    _, _, claims = drawn(one)
    assert claims.loc["C3", "verdict"] == HOLDS
    assert "class swap -1.000 [-1.000, -1.000]" in claims.loc["C3", "detail"]
    assert "the class swap alone does as much" in claims.loc["C3", "flags"]


def test_signatures_of_the_last_layer_have_a_plane_of_their_own(pixels):
    labels, won = [0, 1] * 5, [True] * 3 + [False] * 7
    one = inspected(pixels, labels, {"fgsm": won, "one_pixel": won[::-1]})
    points = one.signatures.points
    assert points[["x_last", "y_last"]].notna().all(axis=None)
    assert not np.allclose(points["x_last"], points["x"])
    network = as_model(small_network())
    _, last = lrp.relevance_and_last_layer(network, rounded_to_levels(pixels))
    vectors = last.numpy() / np.abs(last.numpy()).max(1, keepdims=True)
    distances = points.query("on == 'clean'")["distance_last"]
    for i, distance in enumerate(distances):  # the nearest image of the other class, in loops
        others = [np.linalg.norm(vectors[i] - vectors[j]) for j in range(10) if (i + j) % 2]
        assert distance == pytest.approx(min(others), rel=1e-4)
    numbers = one.signatures.facts["numbers"]
    assert {"agreement", "agreement of the last layer", "agreement in the whole space",
            "agreement of the last layer in the whole space"} <= set(numbers)  # fmt: skip
    outputs, page, _ = drawn(one)
    assert "agreement of the last layer" in page
    assert set(outputs["numbers"]["images"]) == {10, 16}


def test_models_are_tried_on_rounded_images(pixels):
    """Each attacked image is rounded to whole grey levels first."""
    one = inspected(pixels, [0, 1] * 5, {"fgsm": [True] * 10, "one_pixel": [True] * 10})
    model = as_model(small_network())
    rounded = one.signatures.rounded.set_index(["model", "on"]).sort_index()
    assert len(rounded) == 5 * 2 * 10
    for i, on in enumerate(("fgsm", "one_pixel")):
        changed = torch.from_numpy(one.retrained.changed[i].copy())
        expected = model(rounded_to_levels(changed)).argmax(1).tolist()
        for kind in ("baseline", "pgd"):
            assert rounded.loc[(kind, on), "prediction"].to_list() == expected


def test_hardened_models_also_explain_the_displaced_pixel(pixels):
    one = inspected(pixels, [0, 1] * 5, {"fgsm": [True] * 10, "one_pixel": [True] * 10})
    shown = [tuple(pair) for pair in one.signatures.facts["shown"]]
    assert len(one.signatures.maps) == len(shown) == len(set(shown))
    outputs, _, claims = drawn(one)
    rows = outputs["relevance"].set_index(["model", "on", "kind"])
    # All models are one here: they have the baseline's share wherever the pixel is.
    for kind in ("shrinkage", "shrinkage, no flip"):
        values = rows.loc[[(m, "one_pixel, displaced", kind) for m in ("one_pixel", "retrained")]]
        assert (values["mean"].dropna() == 1).all()
    assert rows.loc[("one_pixel", "one_pixel, displaced", "halved"), "mean"] == 0
    assert "mean share of relevance: before" in claims.loc["C8", "detail"]
    beside = outputs["readings"].set_index(["claim", "reading"]).index
    assert {("C8", "displaced pixel"), ("C4", "displaced pixel, no flip")} <= set(beside)


def test_a_control_is_the_same_in_both_stages_and_has_the_attacks_size(pixels):
    attacked = (pixels + 0.1 * torch.randn(pixels.shape, generator=torch.manual_seed(0))).clamp(
        0, 1
    )
    ids = [f"image {i}" for i in range(len(pixels))]
    for kind in ("noise", "negated"):
        first, second = (
            controls.control(kind, pixels[part], attacked[part], ids[part], seed=1, key="a")
            for part in (slice(None), slice(3, 5))
        )
        assert torch.equal(first[3:5], second)
        sizes = [(p - pixels).flatten(1).norm(dim=1) for p in (first, attacked)]
        torch.testing.assert_close(*sizes, rtol=1e-4, atol=1e-5)
    other = controls.control("noise", pixels, attacked, ids, seed=1, key="b")
    assert not torch.equal(other, controls.control("noise", pixels, attacked, ids, seed=1, key="a"))


def test_a_set_of_one_class_comes_to_an_end_and_says_so(pixels):
    won = [True] * 5 + [False] * 5
    one = inspected(pixels, [0] * 10, {"fgsm": won, "one_pixel": won})
    _, _, claims = drawn(one)
    assert claims.loc["C6", "verdict"] == UNDECIDED
    assert "one class" in claims.loc["C6", "detail"]


@pytest.mark.parametrize("success", [True, False])
def test_too_few_images_for_a_plane_come_to_an_end_and_say_so(pixels, success):
    one = inspected(pixels[:2], [0, 1], {"fgsm": [success, False]})
    outputs, page, claims = drawn(one)
    assert "too few points" in page
    assert outputs["points"][["x", "y"]].isna().all(axis=None)
    assert claims.loc["C6", "verdict"] == UNDECIDED

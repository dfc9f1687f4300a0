from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift.explain import cam, methods, packing
from camdrift.explain.methods import grad_cam
from camdrift.perturbations.variants import Variant
from conftest import as_model, small_network


def slow_grad_cam(model, image, target, layer):
    """Selvaraju et al., equations 1 and 2, in loops."""
    logits, tensors = model.activations(image[None].requires_grad_())
    (gradient,) = torch.autograd.grad(logits[0, target], tensors[layer])
    activation, gradient = tensors[layer][0].detach(), gradient[0]
    channels, height, width = activation.shape
    heatmap = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                weight = sum(float(g) for g in gradient[k].flatten()) / (height * width)
                heatmap[i, j] += weight * activation[k, i, j]
    return heatmap.clamp_min(0)


def test_maps_twin_for_both_targets(pixels):
    model = as_model(small_network(), micro_batch=4)
    single = as_model(small_network(), micro_batch=1)
    seeds = torch.tensor([0, 1, 2, 3])
    logits, own, seed = cam.explain(model, pixels[:4], seeds)
    assert seed is not None
    for i in range(4):
        for layer in range(2):
            top = int(logits[i].argmax())
            expected = slow_grad_cam(single, pixels[i], top, layer)
            torch.testing.assert_close(own["GradCAM"][layer][i], expected)
            expected = slow_grad_cam(single, pixels[i], int(seeds[i]), layer)
            torch.testing.assert_close(seed["GradCAM"][layer][i], expected)


def test_the_second_backward_is_for_batches_in_which_classes_differ(model, pixels, monkeypatch):
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    own = model(pixels[:4]).argmax(1)
    assert cam.explain(model, pixels[:4], own)[2] is None
    assert len(calls) == 1
    other = own.clone()
    other[2] = (other[2] + 1) % 4
    assert cam.explain(model, pixels[:4], other)[2] is not None
    assert len(calls) == 3


def test_the_model_is_left_as_found_also_after_an_error(model, pixels):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cam.explain(model, pixels[:4], torch.zeros(4, dtype=torch.long))
    with pytest.raises(RuntimeError):
        cam.explain(model, pixels[:4], torch.tensor([0, 1, 2, 4]))  # one class too many
    modules = list(model.modules())
    hooks = [m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in modules]
    assert not any(hooks)
    assert not any(module.training for module in modules)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_packing_keeps_maps_to_half_precision_and_maxima_exactly():
    maps = (torch.rand(3, 4, 4) * 1e-6, torch.zeros(3, 2, 2))
    values, maxima = packing.pack(maps)
    assert values.dtype == np.float16
    np.testing.assert_array_equal(maxima[:, 0], maps[0].amax((1, 2)).numpy())
    np.testing.assert_array_equal(maxima[:, 1], 0)
    restored = values[:, :16] * maxima[:, :1]
    np.testing.assert_allclose(restored, maps[0].flatten(1).numpy(), atol=1e-3 * 1e-6)


def test_a_map_that_is_not_finite_is_refused(pixels):
    network = small_network()
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="a map of GradCAM is not finite"):
        cam.all_layers(network, pixels)


BOTH = ("own_top1", "seed_class")


def variant(name, pixels, strength=0.0, targets=BOTH) -> Variant:
    table = pd.DataFrame({"image": np.arange(len(pixels)) + 100, "variant": name})
    return Variant(table.assign(strength=strength, draw=0, recipe=""), targets, pixels.numpy)


def explained(model, variants, pixels, *, likely=False, methods_=("GradCAM",)):
    images = np.arange(len(pixels)) + 100
    seeds = model(pixels).argmax(1)
    seeds[3] = (seeds[3] + 1) % 4  # this one differs from its own top class
    guess = pd.Series(likely, index=images)
    seeds = pd.Series(seeds.numpy(), index=images)
    result = packing.explain(model, variants, seeds, guess, methods=methods_)
    return result.values, result.maxima, result.rows


def test_rows_point_to_their_maps_in_any_order(model, pixels):
    parts = []
    for likely in (False, [i % 2 == 0 for i in range(10)]):
        values, maxima, rows = explained(model, [variant("clean", pixels)], pixels, likely=likely)
        assert len(values) == len(maxima) == 11
        rows = rows.sort_values(["target", "image"])
        parts.append((values[rows["map"]], rows.drop(columns="map").reset_index(drop=True)))
        shared = rows.groupby("image")["map"].nunique()
        assert shared.to_dict() == {100 + i: 2 if i == 3 else 1 for i in range(10)}
    np.testing.assert_array_equal(parts[0][0], parts[1][0])
    pd.testing.assert_frame_equal(parts[0][1], parts[1][1])


def test_equal_pixels_are_explained_once(model, pixels, monkeypatch):
    calls = []
    explain = cam.explain
    monkeypatch.setattr(cam, "explain", lambda *a, **k: calls.append(1) or explain(*a, **k))
    other = pixels.clone()
    other[7] += 0.01
    variants = [variant("clean", pixels), variant("adversarial", other, 1.0)]
    values, _, rows = explained(model, variants, pixels)
    assert len(values) == 12
    assert len(calls) == 3  # ten images and the changed one, in micro-batches of four
    own = rows.query("target == 'own_top1'").pivot(index="image", columns="variant", values="map")
    assert (own["clean"] == own["adversarial"]).tolist() == [i != 7 for i in range(10)]


@pytest.mark.parametrize("target", BOTH)
def test_maps_for_one_target_are_those_for_both(model, pixels, target, monkeypatch):
    both, _, rows = explained(model, [variant("clean", pixels)], pixels)
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    alone, _, own = explained(model, [variant("clean", pixels, targets=(target,))], pixels)
    assert len(calls) == 3  # one backward a micro-batch
    assert set(own["target"]) == {target}
    expected = rows[rows["target"] == target]
    np.testing.assert_array_equal(
        alone[own.sort_values("image")["map"]], both[expected.sort_values("image")["map"]]
    )


def test_further_methods_are_of_central_variants_alone(model, pixels):
    names = ("GradCAM", "LayerCAM", "XGradCAM")
    other = (pixels + 0.01).clamp(0, 1)
    variants = [variant("clean", pixels), variant("noise", other, 1.0)]
    central = [replace(variants[0], central=True), variants[1]]
    values, maxima, rows = explained(model, central, pixels, methods_=names)
    alone, tops, first = explained(model, variants, pixels)
    # The method that decides has what it has alone, and stands first.
    decides = rows.query("method == 'GradCAM'")
    pd.testing.assert_frame_equal(decides.drop(columns="map"), first.drop(columns="map"))
    assert list(decides.index) == list(range(len(first)))
    np.testing.assert_array_equal(values[decides["map"]], alone[first["map"]])
    np.testing.assert_array_equal(maxima[decides["map"]], tops[first["map"]])
    assert set(rows["map"]) == set(range(len(values)))
    explanation = cam.all_layers(model, pixels, methods=names, micro_batch=4)
    for name in names[1:]:
        own = rows.query("method == @name and target == 'own_top1'").sort_values("image")
        assert set(own["variant"]) == {"clean"}
        expected = packing.pack(explanation.maps[name])
        np.testing.assert_array_equal(values[own["map"]], expected[0])
        np.testing.assert_array_equal(maxima[own["map"]], expected[1])


def test_softmax_maps_explain_the_probability(model, pixels):
    variants = [variant("clean", pixels), variant("clean_softmax", pixels)]
    values, maxima, rows = explained(model, variants, pixels)
    row = rows.query("variant == 'clean_softmax' and image == 102 and target == 'own_top1'")
    logits, activations = model.activations(pixels[:4].clone().requires_grad_())
    probability = logits.softmax(1)[2].max()
    gradients = torch.autograd.grad(probability, activations)
    expected = [
        grad_cam.maps(a.detach(), g)[2] for a, g in zip(activations, gradients, strict=True)
    ]
    np.testing.assert_allclose(
        maxima[row["map"].item()], [float(layer.max()) for layer in expected], rtol=1e-4
    )
    assert row["map"].item() != rows.query("variant == 'clean' and image == 102")["map"].iloc[0]


def test_layer_table_joins_to_the_packed_columns(model):
    table = packing.layer_table(model)
    assert table["height"].tolist() == [12, 6]
    assert table["start"].tolist() == [0, 144]


def test_maps_above_a_side_are_averaged_down(model, pixels):
    full = explained(model, [variant("clean", pixels)], pixels)
    seeds = pd.Series(model(pixels).argmax(1).numpy(), index=np.arange(10) + 100)
    clean = [variant("clean", pixels)]
    small = packing.explain(model, clean, seeds, seeds > 9, methods=["GradCAM"], max_side=6)
    before, layers = packing.layer_table(model), packing.layer_table(model, max_side=6)
    assert before["height"].max() == 12 and layers["height"].max() == 6
    assert small.values.shape[1] == (layers["height"] * layers["width"]).sum()
    row = small.rows.query("image == 104 and target == 'own_top1'")["map"].item()
    place = full[2].query("image == 104 and target == 'own_top1'")["map"].item()
    first = before.iloc[0]
    assert (first["height"], first["start"]) == (12, 0)
    whole = full[0][place][:144].astype(np.float32).reshape(12, 12) * full[1][place][0]
    # Means of 2 x 2 blocks, written out.
    twin = np.array([[whole[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(6)]
                     for i in range(6)])  # fmt: skip
    heatmap = small.values[row][:36].astype(np.float32).reshape(6, 6) * small.maxima[row][0]
    np.testing.assert_allclose(heatmap, twin, atol=2e-3 * twin.max())


@pytest.mark.parametrize("order", [("own_top1", "seed_class"), ("seed_class", "own_top1")])
def test_equal_pixels_of_variants_that_explain_different_classes(model, pixels, order):
    """As of two protocols: image 103 differs from its seed's class, so it has two maps."""
    both, _, of_both = explained(model, [variant("clean", pixels)], pixels)
    apart = [variant(f"as_{target}", pixels, targets=(target,)) for target in order]
    values, _, rows = explained(model, apart, pixels)
    assert (rows["map"] >= 0).all()
    for target in order:
        mine = rows[rows["variant"] == f"as_{target}"].sort_values("image")
        there = of_both[of_both["target"] == target].sort_values("image")
        np.testing.assert_array_equal(values[mine["map"]], both[there["map"]])
    assert len(values) == 11  # ten images, and one that is explained for two classes


def test_a_method_that_looks_at_no_class_is_made_once(model, pixels, monkeypatch):
    calls = []
    monkeypatch.setattr(
        cam, "by_name",
        lambda: {name: lambda a, g, of=of, name=name: calls.append(name) or of(a, g)
                 for name, of in methods.by_name().items()},
    )  # fmt: skip
    batch = pixels[:4]
    seeds = (model(batch).argmax(1) + 1) % 4
    _, own, other = cam.explain(model, batch, seeds, names=["GradCAM", "FEM"])
    assert list(other) == ["FEM", "GradCAM"]
    assert all(a is b for a, b in zip(own["FEM"], other["FEM"], strict=True))
    assert [calls.count(name) for name in ("GradCAM", "FEM")] == [2 * len(model.maps)] + [
        len(model.maps)
    ]
    _, own, other = cam.explain(model, batch, seeds, names=["FEM"])
    assert list(other) == list(own) == ["FEM"]

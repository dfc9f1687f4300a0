import numpy as np
import pandas as pd
import pytest
import torch

from camdrift import cams
from camdrift.variants import Variant
from conftest import as_model, small_network


def test_grad_cam_on_paper():
    activations = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [4.0, 0.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0], [0.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
    # Weights are the means 1 and -1; sums 0, 2, -4, 1; negative ones are cut off.
    expected = torch.tensor([[[0.0, 2.0], [0.0, 1.0]]])
    torch.testing.assert_close(cams.grad_cam(activations, gradients), expected)


def slow_grad_cam(model, image, target, layer):
    """Selvaraju et al., equations 1 and 2, in loops."""
    logits, tensors = model.activations(image[None].requires_grad_())
    (gradient,) = torch.autograd.grad(logits[0, target], tensors[layer])
    activation, gradient = tensors[layer][0].detach(), gradient[0]
    channels, height, width = activation.shape
    found = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                weight = sum(float(g) for g in gradient[k].flatten()) / (height * width)
                found[i, j] += weight * activation[k, i, j]
    return found.clamp_min(0)


def test_maps_twin_for_both_targets(pixels):
    model = as_model(small_network(), micro_batch=4)
    single = as_model(small_network(), micro_batch=1)
    seeds = torch.tensor([0, 1, 2, 3])
    logits, own, seed = cams.explain(model, pixels[:4], seeds)
    assert seed is not None
    for i in range(4):
        for layer in range(2):
            top = int(logits[i].argmax())
            torch.testing.assert_close(own[layer][i], slow_grad_cam(single, pixels[i], top, layer))
            expected = slow_grad_cam(single, pixels[i], int(seeds[i]), layer)
            torch.testing.assert_close(seed[layer][i], expected)


def test_the_second_backward_is_for_batches_in_which_classes_differ(model, pixels, monkeypatch):
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    own = model(pixels[:4]).argmax(1)
    assert cams.explain(model, pixels[:4], own)[2] is None
    assert len(calls) == 1
    other = own.clone()
    other[2] = (other[2] + 1) % 4
    assert cams.explain(model, pixels[:4], other)[2] is not None
    assert len(calls) == 3


def test_the_model_is_left_as_found_also_after_an_error(model, pixels):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cams.explain(model, pixels[:4], torch.zeros(4, dtype=torch.long))
    with pytest.raises(RuntimeError):
        cams.explain(model, pixels[:4], torch.tensor([0, 1]))
    modules = list(model.modules())
    hooks = [m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in modules]
    assert not any(hooks)
    assert not any(module.training for module in modules)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_packing_keeps_maps_to_half_precision_and_maxima_exactly():
    maps = (torch.rand(3, 4, 4) * 1e-6, torch.zeros(3, 2, 2))
    values, maxima = cams.pack(maps)
    assert values.dtype == np.float16
    np.testing.assert_array_equal(maxima[:, 0], maps[0].amax((1, 2)).numpy())
    np.testing.assert_array_equal(maxima[:, 1], 0)
    restored = values[:, :16] * maxima[:, :1]
    np.testing.assert_allclose(restored, maps[0].flatten(1).numpy(), atol=1e-3 * 1e-6)
    with pytest.raises(FloatingPointError, match="not finite"):
        cams.pack((torch.full((1, 2, 2), float("nan")),))


def slow_noise_cam_of_code(a, g, score):
    """The public code of tan2023, in loops."""
    channels, height, width = a.shape
    e = np.exp(score)
    places = [(i, j) for i in range(height) for j in range(width)]
    found = np.zeros((height, width))
    for k in range(channels):
        alpha = {}
        for i, j in places:
            second, third = e * g[k, i, j] ** 2, e * g[k, i, j] ** 3
            alpha[i, j] = second / (2 * second + a[k].sum() * third) if second else 0.0
        total = sum(alpha.values())
        if total:
            alpha = {place: value / total for place, value in alpha.items()}
            assert sum(alpha.values()) == pytest.approx(1)
        weight = sum(alpha[p] * max(e * g[k][p], 0) for p in places)
        for p in places:
            found[p] += a[k][p] * (weight - max(g[k][p], 0))
    return np.maximum(found, 0)


def test_noise_cam_of_the_code_twin():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    g = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) - 0.3
    g[0, 1] = 0
    scores = torch.tensor([0.0, 0.9], dtype=torch.float64)
    found = cams.noise_cam_of_code(a, g, scores)
    for i in range(2):
        expected = slow_noise_cam_of_code(a[i].numpy(), g[i].numpy(), float(scores[i]))
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)
    assert found.max() > 0


def test_noise_cam_of_the_code_of_a_constant_gradient_is_blank():
    a = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    g = torch.tensor([0.5, 2.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert cams.noise_cam_of_code(a, g, torch.zeros(2)).max() < 1e-5
    assert (
        cams.noise_cam_of_code(a, g, torch.ones(2)).max() > 0.1
    )  # the exponential alone lights it


def slow_noise_cam(a, g):
    """tan2023, equations 9-16, in loops."""
    channels, height, width = a.shape
    found = np.zeros((height, width))
    for k in range(channels):
        weight = 0.0
        for i in range(height):
            for j in range(width):
                second, third = g[k, i, j] ** 2, g[k, i, j] ** 3
                alpha = second / (2 * second + a[k].sum() * third) if second else 0.0
                weight += alpha * max(g[k, i, j], 0)
        for i in range(height):
            for j in range(width):
                found[i, j] += a[k, i, j] * (weight - max(g[k, i, j], 0))
    return np.maximum(found, 0)


def test_noise_cam_as_printed_is_grad_cam_plus_plus_beyond_layer_cam():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    g = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) - 0.4
    g[0, 1] = 0
    found = cams.noise_cam(a, g)
    for i in range(2):
        np.testing.assert_allclose(found[i], slow_noise_cam(a[i].numpy(), g[i].numpy()), atol=1e-12)
    plain = cams.grad_cam_plus_plus(a, g), cams.layer_cam(a, g)
    torch.testing.assert_close(found, (plain[0] - plain[1]).relu())
    assert found.max() > 0


BOTH = ("own_top1", "seed_class")


def variant(name, pixels, strength=0.0, targets=BOTH) -> Variant:
    table = pd.DataFrame({"image": np.arange(len(pixels)) + 100, "variant": name})
    return Variant(table.assign(strength=strength, draw=0, recipe=""), targets, lambda: pixels)


def of_variants(model, variants, pixels, *, likely=False):
    images = np.arange(len(pixels)) + 100
    seeds = model(pixels).argmax(1)
    seeds[3] = (seeds[3] + 1) % 4  # this one differs from its own top class
    guess = pd.Series(likely, index=images)
    return cams.of_variants(model, variants, pd.Series(seeds.numpy(), index=images), guess)


def test_rows_point_to_their_maps_in_any_order(model, pixels):
    found = []
    for likely in (False, [i % 2 == 0 for i in range(10)]):
        values, maxima, rows = of_variants(model, [variant("clean", pixels)], pixels, likely=likely)
        assert len(values) == len(maxima) == 11
        rows = rows.sort_values(["target", "image"])
        found.append((values[rows["map"]], rows.drop(columns="map").reset_index(drop=True)))
        shared = rows.groupby("image")["map"].nunique()
        assert shared.to_dict() == {100 + i: 2 if i == 3 else 1 for i in range(10)}
    np.testing.assert_array_equal(found[0][0], found[1][0])
    pd.testing.assert_frame_equal(found[0][1], found[1][1])


def test_equal_pixels_are_explained_once(model, pixels, monkeypatch):
    calls = []
    explain = cams.explain
    monkeypatch.setattr(cams, "explain", lambda *a, **k: calls.append(1) or explain(*a, **k))
    other = pixels.clone()
    other[7] += 0.01
    variants = [variant("clean", pixels), variant("adversarial", other, 1.0)]
    values, _, rows = of_variants(model, variants, pixels)
    assert len(values) == 12
    assert len(calls) == 3 + 1  # ten images in micro-batches of four, then the changed one
    own = rows.query("target == 'own_top1'").pivot(index="image", columns="variant", values="map")
    assert (own["clean"] == own["adversarial"]).tolist() == [i != 7 for i in range(10)]


@pytest.mark.parametrize("target", BOTH)
def test_maps_for_one_target_are_those_for_both(model, pixels, target, monkeypatch):
    both, _, rows = of_variants(model, [variant("clean", pixels)], pixels)
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    alone, _, own = of_variants(model, [variant("clean", pixels, targets=(target,))], pixels)
    assert len(calls) == 3  # one backward a micro-batch
    assert set(own["target"]) == {target}
    expected = rows[rows["target"] == target]
    np.testing.assert_array_equal(
        alone[own.sort_values("image")["map"]], both[expected.sort_values("image")["map"]]
    )


def test_softmax_maps_explain_the_probability(model, pixels):
    variants = [variant("clean", pixels), variant("clean_softmax", pixels)]
    values, maxima, rows = of_variants(model, variants, pixels)
    row = rows.query("variant == 'clean_softmax' and image == 102 and target == 'own_top1'")
    logits, activations = model.activations(pixels[:4].clone().requires_grad_())
    probability = logits.softmax(1)[2].max()
    gradients = torch.autograd.grad(probability, activations)
    expected = [
        cams.grad_cam(a.detach(), g)[2] for a, g in zip(activations, gradients, strict=True)
    ]
    np.testing.assert_allclose(
        maxima[row["map"].item()], [float(layer.max()) for layer in expected], rtol=1e-4
    )
    assert row["map"].item() != rows.query("variant == 'clean' and image == 102")["map"].iloc[0]


def test_layer_table_joins_to_the_packed_columns(model):
    table = cams.layer_table(model)
    assert table["height"].tolist() == [12, 6]
    assert table["start"].tolist() == [0, 144]

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift import cams
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


def test_rows_point_to_their_maps_in_any_order(model, pixels):
    seeds = model(pixels).argmax(1)
    seeds[3] = (seeds[3] + 1) % 4  # this one differs from its own top class
    table = pd.DataFrame(
        {"image": np.arange(10) + 100, "variant": "clean", "strength": 0.0, "draw": 0}
    )
    found = []
    for order in (torch.arange(10), torch.arange(10).flip(0)):
        values, maxima, rows = cams.of_variants(model, [(table, pixels)], seeds, order)
        assert len(values) == len(maxima) == 11
        rows = rows.sort_values(["target", "image"])
        found.append((values[rows["map"]], rows.drop(columns="map").reset_index(drop=True)))
        shared = rows.groupby("image")["map"].nunique()
        assert shared.to_dict() == {100 + i: 2 if i == 3 else 1 for i in range(10)}
    np.testing.assert_array_equal(found[0][0], found[1][0])
    pd.testing.assert_frame_equal(found[0][1], found[1][1])


def test_layer_table_joins_to_the_packed_columns(model):
    table = cams.layer_table(model)
    assert table["height"].tolist() == [12, 6]
    assert table["start"].tolist() == [0, 144]

"""CAM methods against their papers' equations in loops, and on paper."""

import numpy as np
import pytest
import torch

from camdrift.explain import methods
from camdrift.explain.methods import grad_cam, grad_cam_plus_plus, layer_cam, noise_cam


@pytest.fixture
def pair():
    """Rectified activations and gradients (2, 3, 4, 5) in double, with a channel at rest."""
    generator = torch.Generator().manual_seed(0)
    a = (torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) - 0.3).relu()
    g = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) - 0.45
    a[0, 2] = 0
    g[1, 1] = 0
    return a, g


def slow_weight(name, a, g):
    """The weight of a channel, or of each of its places, from the papers' equations in loops."""
    places = list(np.ndindex(a.shape))
    if name == "GradCAM":  # Selvaraju et al., equation 1
        return {p: sum(g[q] for q in places) / len(places) for p in places}
    if name == "GradCAMPlusPlus":  # Chattopadhay et al., equations 10 and 19, exp(score) left out
        weight = 0.0
        for p in places:
            if g[p]:
                alpha = g[p] ** 2 / (2 * g[p] ** 2 + sum(a[q] for q in places) * g[p] ** 3)
                weight += alpha * max(g[p], 0)
        return dict.fromkeys(places, weight)
    if name == "XGradCAM":  # Fu et al., equation 8
        total = sum(a[q] for q in places)
        weight = sum(a[q] * g[q] for q in places) / total if total else 0.0
        return dict.fromkeys(places, weight)
    if name == "FEM":  # Fuad et al., the k-sigma rule, k = 2
        mean = sum(a[q] for q in places) / len(places)
        spread = (sum((a[q] - mean) ** 2 for q in places) / len(places)) ** 0.5
        return dict.fromkeys(places, sum(a[q] > mean + 2 * spread for q in places) / len(places))
    # Jiang et al., equation 5; Draelos and Carin, equation 5. Each product rectified on its own is
    # LayerCAM's where activations are.
    rectified = name in ("LayerCAM", "GradCAMElementWise")
    return {p: max(g[p], 0) if rectified else g[p] for p in places}


@pytest.mark.parametrize("name", sorted(methods.by_name().keys() - {"NoiseCAM"}))  # see below
def test_methods_twin(pair, name):
    maps = methods.by_name()[name](*pair)
    for i in range(2):
        expected = np.zeros((4, 5))
        for a, g in zip(pair[0][i].numpy(), pair[1][i].numpy(), strict=True):
            weight = slow_weight(name, a, g)
            for p in np.ndindex(a.shape):
                expected[p] += weight[p] * a[p]
        near = {"rtol": 1e-12, "atol": 1e-15} if maps.dtype == torch.float64 else {"rtol": 1e-5}
        np.testing.assert_allclose(maps[i], np.maximum(expected, 0), **near)
    assert maps.max() > 0


@pytest.mark.parametrize("name", methods.by_name())
def test_methods_keep_their_contract(pair, name):
    a, g = pair
    maps = methods.by_name()[name](a, g)
    assert maps.shape == (2, 4, 5)
    assert maps.min() >= 0
    before = a.clone(), g.clone()
    methods.by_name()[name](a, g)
    assert torch.equal(a, before[0])
    assert torch.equal(g, before[1])
    # pytorch-grad-cam computes in float32.
    near = {"rtol": 1e-12, "atol": 1e-15} if maps.dtype == torch.float64 else {}
    alone = torch.cat([methods.by_name()[name](a[i : i + 1], g[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(alone, maps, **near)
    assert not methods.by_name()[name](torch.zeros_like(a), g).any()
    if name != "FEM":  # which looks at no gradient
        assert not methods.by_name()[name](a, torch.zeros_like(g)).any()
    laid = [value.to(memory_format=torch.channels_last) for value in (a, g)]
    torch.testing.assert_close(methods.by_name()[name](*laid), maps, **near)


def test_names_without_a_file_are_told_with_those_that_have_one():
    (fault,) = methods.check(["GradCAM", "EigenCAM"])
    assert fault.startswith("wanted a method, got 'EigenCAM'; there are: FEM, GradCAM, ")


def test_grad_cam_on_paper():
    activations = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [4.0, 0.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0], [0.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
    # Weights are the means 1 and -1; sums 0, 2, -4, 1; negative ones are cut off.
    expected = torch.tensor([[[0.0, 2.0], [0.0, 1.0]]])
    torch.testing.assert_close(grad_cam.maps(activations, gradients), expected)


def slow_noise_cam_of_code(a, g, score):
    """The public code of tan2023, in loops."""
    channels, height, width = a.shape
    e = np.exp(score)
    places = [(i, j) for i in range(height) for j in range(width)]
    heatmap = np.zeros((height, width))
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
            heatmap[p] += a[k][p] * (weight - max(g[k][p], 0))
    return np.maximum(heatmap, 0)


def test_noise_cam_of_the_code_twin():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    g = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) - 0.3
    g[0, 1] = 0
    scores = torch.tensor([0.0, 0.9], dtype=torch.float64)
    maps = noise_cam.maps_of_code(a, g, scores)
    for i in range(2):
        expected = slow_noise_cam_of_code(a[i].numpy(), g[i].numpy(), float(scores[i]))
        np.testing.assert_allclose(maps[i], expected, rtol=1e-9, atol=1e-12)
    assert maps.max() > 0


def test_noise_cam_of_the_code_of_a_constant_gradient_is_blank():
    a = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    g = torch.tensor([0.5, 2.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert noise_cam.maps_of_code(a, g, torch.zeros(2)).max() < 1e-5
    assert (
        noise_cam.maps_of_code(a, g, torch.ones(2)).max() > 0.1
    )  # the exponential alone lights it


def slow_noise_cam(a, g):
    """tan2023, equations 9-16, in loops."""
    channels, height, width = a.shape
    heatmap = np.zeros((height, width))
    for k in range(channels):
        weight = 0.0
        for i in range(height):
            for j in range(width):
                second, third = g[k, i, j] ** 2, g[k, i, j] ** 3
                alpha = second / (2 * second + a[k].sum() * third) if second else 0.0
                weight += alpha * max(g[k, i, j], 0)
        for i in range(height):
            for j in range(width):
                heatmap[i, j] += a[k, i, j] * (weight - max(g[k, i, j], 0))
    return np.maximum(heatmap, 0)


def test_noise_cam_as_printed_is_grad_cam_plus_plus_beyond_layer_cam():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    g = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) - 0.4
    g[0, 1] = 0
    maps = noise_cam.maps(a, g)
    for i in range(2):
        np.testing.assert_allclose(maps[i], slow_noise_cam(a[i].numpy(), g[i].numpy()), atol=1e-12)
    plain = grad_cam_plus_plus.maps(a, g), layer_cam.maps(a, g)
    torch.testing.assert_close(maps, (plain[0] - plain[1]).relu())
    assert maps.max() > 0

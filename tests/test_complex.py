"""Complex networks: a complex channel is explained as two real ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camdrift.explain import cam
from conftest import as_model


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Complex(nn.Module):
    """Two complex convs, or their real and imaginary parts by hand."""

    def __init__(self, act=torch.tanh, dtype=torch.complex64):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1, dtype=dtype)
        self.inner = nn.Conv2d(4, 4, 3, dtype=dtype)
        self.head = nn.Linear(4, 5, dtype=dtype.to_real())
        self.act = act

    def forward(self, x):
        x = self.inner(self.act(self.conv(x.to(self.conv.weight.dtype))))
        return self.head(x.abs().mean((2, 3)))


class ByHand(Complex):
    """The same of pairs of real tensors, which are kept."""

    def forward(self, x):
        self.kept = []
        real, imaginary = self.conved(self.conv, x, torch.zeros_like(x))
        acted = torch.tanh(torch.complex(real, imaginary))
        real, imaginary = self.keep(acted.real, acted.imag)
        real, imaginary = self.keep(*self.conved(self.inner, real, imaginary))
        return self.head((real**2 + imaginary**2).sqrt().mean((2, 3)))

    def keep(self, real, imaginary):
        self.kept += [real, imaginary]
        return real, imaginary

    def conved(self, conv, real, imaginary):
        weight, bias = conv.weight, conv.bias[:, None, None]

        def part(x, weight):
            return F.conv2d(x, weight, padding=conv.padding)

        return (
            part(real, weight.real) - part(imaginary, weight.imag) + bias.real,
            part(real, weight.imag) + part(imaginary, weight.real) + bias.imag,
        )


def by_hand(images, dtype=torch.complex64):
    """Returns logits and, for class 1, Grad-CAM and LayerCAM of channels in halves, by loops."""
    network = ByHand(dtype=dtype)
    logits = network(images)
    gradients = torch.autograd.grad(logits[:, 1].sum(), network.kept)
    maps = {"GradCAM": [], "LayerCAM": []}
    for layer in (0, 2):
        grad_cam, layer_cam = 0, 0
        for half in (layer, layer + 1):
            tensor, gradient = network.kept[half], gradients[half]
            for channel in range(tensor.shape[1]):
                one, slope = tensor[:, channel], gradient[:, channel]
                grad_cam = grad_cam + slope.mean((1, 2), keepdim=True) * one
                layer_cam = layer_cam + slope.relu() * one
        maps["GradCAM"].append(grad_cam.relu().detach())
        maps["LayerCAM"].append(layer_cam.relu().detach())
    return logits.detach(), maps


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_convs_are_explained_by_their_parts(images, dtype):
    images = images.to(dtype.to_real())
    network = Complex(dtype=dtype).eval()
    explained = cam.all_layers(network, images, 1, methods=["GradCAM", "LayerCAM"])
    logits, maps = by_hand(images, dtype)
    assert explained.layers == ("conv", "inner")
    torch.testing.assert_close(explained.logits, logits)
    for name, layers in maps.items():
        for ours, expected in zip(explained.maps[name], layers, strict=True):
            assert expected.any()
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    last = cam.all_layers(network, images, 1, layers=[-1]).maps["GradCAM"][0]
    torch.testing.assert_close(last, explained.maps["GradCAM"][1])
    named = cam.all_layers(network, images, 1, hook_points=["inner"]).maps["GradCAM"][0]
    torch.testing.assert_close(named, explained.maps["GradCAM"][1])


def test_images_may_be_complex(images):
    plain = cam.all_layers(Complex(), images, 1)
    explained = cam.all_layers(Complex(), images.to(torch.complex64), 1)
    torch.testing.assert_close(explained.maps["GradCAM"], plain.maps["GradCAM"])


def test_complex_weights_that_change_are_seen(images):
    network = Complex()
    before = cam.all_layers(network, images, 1)
    network.conv.weight.data.mul_(1j)
    network.inner.weight.data.mul_(2)
    after = cam.all_layers(network, images, 1)
    assert not torch.equal(after.logits, before.logits)


def test_methods_that_perturb_explain_complex_layers(images):
    maps = cam.all_layers(Complex(), images[:1], 1, methods=["ScoreCAM"]).maps["ScoreCAM"]
    assert all(bool(layer.any()) for layer in maps)


def test_a_study_takes_a_complex_network(images):
    model = as_model(Complex().eval(), micro_batch=3)
    _, tensors = model.activations(images)
    assert [tensor.shape[1] for tensor in tensors] == [8, 8]
    assert not any(tensor.is_complex() for tensor in tensors)


def test_complex_logits_are_refused_and_a_function_of_them_is_not(images):
    class Logits(Complex):
        def forward(self, x):
            return self.inner(torch.tanh(self.conv(x.to(self.conv.weight.dtype)))).mean((2, 3))

    with pytest.raises(ValueError, match=r"wanted real logits, got torch.complex64; score= .*abs"):
        cam.all_layers(Logits(), images)
    explained = cam.all_layers(Logits(), images, score=lambda output: output.abs()[:, 0])
    assert all(bool(layer.any()) for layer in explained.maps["GradCAM"])


def test_complex_features_between_real_convs_change_nothing_in_the_maps(images):
    class Filtered(nn.Module):
        """A filter of all frequencies, as in a GFNet."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)
            self.filter = nn.Parameter(torch.randn(4, 12, 7, dtype=torch.complex64))

        def forward(self, x):
            self.kept = x = torch.relu(self.conv(x))
            x = torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=x.shape[-2:])
            return self.head(x.relu().mean((2, 3)))

    network = Filtered().eval()
    score = network(images)[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, network.kept)
    expected = (gradient.mean((2, 3), keepdim=True) * network.kept).sum(1).relu().detach()
    ours = cam.all_layers(network, images, 1).maps["GradCAM"][0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-10)

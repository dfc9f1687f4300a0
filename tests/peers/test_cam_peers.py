"""Maps of other libraries as oracles, each on its own terms; `make peers` installs them.

pytorch-grad-cam hooks the conv itself where an in-place ReLU then overwrites what it kept; in-place
is switched off here. All are asked at the ReLU, whose output camdrift explains.
"""

import numpy as np
import pytest
import torch
from torch import nn

from camdrift.explain import cam, external
from camdrift.explain.methods import library
from camdrift.pipeline.vision import torchvision  # the peers import torchvision, too
from camdrift.settings import SettingsError
from conftest import small_network

assert torchvision
CLASSES = torch.tensor([0, 1, 2, 3, 1])
FROM_PASS = [
    "GradCAM", "HiResCAM", "XGradCAM", "LayerCAM", "EigenCAM", "EigenGradCAM", "FEM",
    "GradCAMElementWise", "KPCA_CAM", "SegEigenCAM",
]  # fmt: skip
THROUGH = ["ScoreCAM", "AblationCAM", "FinerCAM", "ShapleyCAM"]


def network() -> nn.Module:
    net = small_network().eval()
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return net


@pytest.fixture
def images(pixels):
    return pixels[:5]


def stretched(layer):
    """Maps as pytorch-grad-cam scales them before it resizes: from 0 to almost 1."""
    layer = layer - layer.amin((1, 2), keepdim=True)
    return layer / (layer.amax((1, 2), keepdim=True) + 1e-7)


def library_maps(name, module, net, images):
    """What pytorch-grad-cam itself returns for one layer, at the input's size."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, name)(net, [module]) as method:
        if name == "FinerCAM":
            return np.concatenate([
                method(image[None].requires_grad_(), target_idx=int(target))
                for image, target in zip(images.clone(), CLASSES, strict=True)
            ])  # fmt: skip
        return method(images.clone(), [ClassifierOutputTarget(int(c)) for c in CLASSES])


@pytest.mark.parametrize("name", FROM_PASS + THROUGH)
def test_maps_are_pytorch_grad_cams(images, name):
    from pytorch_grad_cam.utils.image import scale_cam_image

    explanation = cam.all_layers(network(), images, CLASSES, methods=[name])
    net = network()
    for layer, module in zip(explanation.maps[name], (net[2], net[5]), strict=True):
        expected = library_maps(name, module, net, images)
        # Their last step, on our raw maps: scaled, resized by OpenCV, and scaled once more.
        ours = scale_cam_image(scale_cam_image(stretched(layer).numpy(), (12, 12)))
        np.testing.assert_allclose(ours, expected, atol=2e-3 if name == "KPCA_CAM" else 1e-4)


def test_grad_cam_plus_plus_is_close_to_pytorch_grad_cams(images):
    """Theirs damps small gradients by 1e-6 in a denominator of their square; the twin decides."""
    explanation = cam.all_layers(
        network(), images, CLASSES, methods=["GradCAMPlusPlus"], layers=[0]
    )
    net = network()
    expected = library_maps("GradCAMPlusPlus", net[2], net, images).reshape(5, -1)
    ours = stretched(explanation.maps["GradCAMPlusPlus"][0]).flatten(1).numpy()
    cosine = (ours * expected).sum(1) / np.linalg.norm(ours, axis=1)
    assert (cosine / np.linalg.norm(expected, axis=1)).min() > 0.95


@pytest.mark.parametrize("name", ["GradCAM", "XGradCAM", "LayerCAM"])
def test_maps_are_torchcams(images, name):
    library = pytest.importorskip("torchcam.methods")
    explanation = cam.all_layers(network(), images, CLASSES, methods=[name])
    net = network()
    with getattr(library, name)(net, target_layer=["2", "5"]) as extractor:
        scores = net(images.clone().requires_grad_())
        expected = extractor(CLASSES.tolist(), scores, normalized=False)
    for ours, theirs in zip(explanation.maps[name], expected, strict=True):
        torch.testing.assert_close(ours, theirs.relu(), rtol=1e-4, atol=1e-7)


def test_grad_cam_is_captums(images):
    captum = pytest.importorskip("captum.attr")
    explanation = cam.all_layers(network(), images, CLASSES)
    net = network()
    for layer, module in zip(explanation.maps["GradCAM"], (net[2], net[5]), strict=True):
        expected = captum.LayerGradCam(net, module).attribute(
            images, CLASSES, relu_attributions=True
        )
        torch.testing.assert_close(layer, expected[:, 0].detach(), rtol=1e-4, atol=1e-7)


def test_a_functional_activation_is_explained_through_the_library_too(images):

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = small_network()

        def forward(self, x):
            x = self.parts[1](self.parts[0](x)).relu_()
            x = self.parts[4](nn.functional.max_pool2d(x, 2))
            return self.parts[8](nn.functional.relu(x, inplace=True).mean((2, 3)))

    one, other = (
        cam.all_layers(net, images, CLASSES, methods=["ScoreCAM"]).maps["ScoreCAM"]
        for net in (Functional(), small_network())
    )
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["FullGrad", "NoCAM", "GuidedBackpropReLUModel"])
def test_what_makes_no_map_of_a_layer_is_refused(images, name):
    with pytest.raises(SettingsError, match=f"no method '{name}'.*AblationCAM, .*FinerCAM"):
        cam.all_layers(network(), images, methods=[name])
    with pytest.raises(SettingsError, match="ScoreCAM' explains no probability"):
        cam.all_layers(network(), images, methods=["ScoreCAM"], softmax=True)


@pytest.mark.parametrize("name", library.FROM_ARRAYS)
def test_every_class_that_is_fed_needs_the_pass_alone(name):
    a, g = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5) - 0.5
    maps = library.from_arrays(name)(a, g)
    assert maps.shape == (2, 4, 5)
    assert maps.min() >= 0
    assert name in FROM_PASS


class Joining(nn.Module):
    """A parameter of its own, and a concatenation right behind the taps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gamma = nn.Parameter(torch.ones(1))
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        joined = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        return self.head(self.gamma * joined.mean((2, 3)))


@pytest.mark.parametrize("name", THROUGH)
def test_any_network_goes_through_the_library_also_under_autocast(images, name, monkeypatch):
    calls = []
    own = external._of_image
    monkeypatch.setattr(external, "_of_image", lambda *a: calls.append(1) or own(*a))
    explanation = cam.all_layers(Joining(), images[:1], 0, methods=[name], micro_batch=4)
    assert len(calls) == 3  # not of the padding
    with torch.autocast("cpu", torch.bfloat16):
        half = cam.all_layers(Joining(), images[:1], 0, methods=[name])
    for one, other in zip(explanation.maps[name], half.maps[name], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def reshape_tokens(extra):
    """pytorch-grad-cam's own reshape of a ViT's tokens, as its README has it."""

    def reshape(tensor):
        side = int((tensor.shape[1] - extra) ** 0.5)
        grid = tensor[:, extra:].reshape(len(tensor), side, side, tensor.shape[2])
        return grid.transpose(2, 3).transpose(1, 2)

    return reshape


def reshape_rows(tensor):
    """The same of tensors (n, h, w, d)."""
    return tensor.transpose(2, 3).transpose(1, 2)


TRANSFORMERS = {
    "timm:vit_tiny_patch16_224": (lambda net: [b.norm1 for b in net.blocks], reshape_tokens(1)),
    "timm:deit_tiny_distilled_patch16_224": (
        lambda net: [b.norm1 for b in net.blocks], reshape_tokens(2)
    ),
    "timm:beit_base_patch16_224": (lambda net: [b.norm1 for b in net.blocks], reshape_tokens(1)),
    "timm:mixer_s32_224": (lambda net: [b.norm1 for b in net.blocks], reshape_tokens(0)),
    "timm:xcit_nano_12_p16_224": (lambda net: [b.norm1 for b in net.blocks], reshape_tokens(0)),
    "timm:swin_tiny_patch4_window7_224": (
        lambda net: [b.norm1 for stage in net.layers for b in stage.blocks], reshape_rows
    ),
    "torchvision:vit_b_16": (lambda net: [b.ln_1 for b in net.encoder.layers], reshape_tokens(1)),
    "torchvision:swin_t": (
        lambda net: [b.norm1 for stage in net.features[1::2] for b in stage], reshape_rows
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_maps_of_blocks_are_pytorch_grad_cams(name):
    """At the first, middle and last of the norms that its users hook."""
    import timm
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    library_name, _, own = name.partition(":")
    torch.manual_seed(0)
    builder = timm.create_model if library_name == "timm" else torchvision.models.get_model
    net = builder(own).eval()
    with torch.no_grad():
        for key, weight in net.named_parameters():
            if "gamma" in key:
                weight.fill_(0.5)
    images = torch.rand(2, 3, 224, 224)
    norms, reshape = TRANSFORMERS[name]
    modules = norms(net)
    explanation = cam.all_layers(net, images, torch.tensor([1, 3]))
    assert len(explanation.layers) == len(modules) + (2 if "xcit" in name else 0)  # class attention
    raw = []
    for place in (0, len(modules) // 2, len(modules) - 1):
        with GradCAM(net, [modules[place]], reshape) as method:
            keep = method.get_cam_image
            method.get_cam_image = lambda *args, keep=keep: raw.append(keep(*args)) or raw[-1]
            method(images.clone(), [ClassifierOutputTarget(1), ClassifierOutputTarget(3)])
        theirs = torch.as_tensor(raw[-1]).clamp_min(0)
        ours = explanation.maps["GradCAM"][place]
        # Terms of both signs cancel: the error is a share of the largest activation's.
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(
            torch.as_tensor(raw[-1]).abs().max()
        )

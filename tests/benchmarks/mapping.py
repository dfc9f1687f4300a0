"""Races of the maps: all layers of a VGG-16, against other libraries and against the limit."""

import copy
import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from camdrift.explain import cam
from camdrift.pipeline.vision import torchvision
from races import Race

FOUR = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM")
LEAN = 4.0  # mean of a weight, in deviations of the sum that it is a term of
CONVOLUTIONS = ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::thnn_conv2d",
                "aten::cudnn_convolution")  # fmt: skip


def races() -> Iterator[Race]:
    """Yields the races, small ones first; at 224 px the slowest are of a single image."""
    network = _vgg16()
    both = network, cam.prepare(network)
    for px, batch in ((64, 1), (64, 8), (112, 1), (112, 8), (224, 1)):
        yield _race(*both, px, batch, "pytorch-grad-cam, a layer at a time", _one_by_one, 30)
        yield _race(*both, px, batch, "captum, a layer at a time", _captum, 10)
    for px, batch in (
        (64, 1), (64, 8), (64, 32), (112, 1), (112, 8), (112, 32), (224, 1), (224, 8),
    ):  # fmt: skip
        yield _race(*both, px, batch, "pytorch-grad-cam, all layers at once", _at_once, 2.5)
        yield _torchcam(*both, px, batch)
        yield _limit(*both, px, batch)


def _vgg16() -> nn.Module:
    """Returns an untrained VGG-16, no map of which is empty.

    Its weights lean to the positive: with those of mean 0, terms of a map cancel, some maps down to
    the rounding of their terms, which no two libraries have in common.
    """
    torch.manual_seed(0)
    network = torchvision.models.vgg16(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # in place, pytorch-grad-cam mixes what is before and after it
        if isinstance(module, nn.Conv2d | nn.Linear):
            terms = module.weight[0].numel()
            nn.init.normal_(module.weight, mean=LEAN / terms, std=terms**-0.5)
            module.weight.data /= (1 + LEAN**2) ** 0.5
    return network


def _activations(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.features if isinstance(module, nn.ReLU)]


def _images(px: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(px)
    return torch.rand(batch, 3, px, px, generator=generator), torch.arange(batch) % 10


def _race(
    network: nn.Module,
    ready: cam.Prepared,
    px: int,
    batch: int,
    against: str,
    theirs: Callable,
    target: float,
) -> Race:
    """Maps of Grad-CAM as the others return them: in [0, 1], at the input's size."""
    images, classes = _images(px, batch)
    return Race(
        "Grad-CAM of 13 layers", against, {"px": px, "images": batch},
        lambda: cam.all_layers(ready, images, classes, micro_batch=batch).scaled(px)["GradCAM"],
        partial(theirs, network, images, classes), _close, target, rounds=3 if batch == 1 else 2,
    )  # fmt: skip


def _one_by_one(network: nn.Module, images: Tensor, classes: Tensor) -> list[Tensor]:
    """As pytorch-grad-cam's README has it, for each layer."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    maps = []
    for layer in _activations(network):
        with GradCAM(network, [layer]) as method:
            maps.append(torch.from_numpy(method(images, targets)))
    return maps


def _at_once(network: nn.Module, images: Tensor, classes: Tensor) -> list[Tensor]:
    """One object for all layers, and its maps before it takes their mean."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Each(GradCAM):
        def aggregate_multi_layers(self, cam_per_target_layer: Any) -> Any:
            return cam_per_target_layer

    with Each(network, _activations(network)) as method:
        maps = method(images, [ClassifierOutputTarget(int(c)) for c in classes])
    return [torch.from_numpy(layer[:, 0]) for layer in maps]


def _captum(network: nn.Module, images: Tensor, classes: Tensor) -> list[Tensor]:
    from captum.attr import LayerAttribution, LayerGradCam

    layers = []
    for layer in _activations(network):
        maps = LayerGradCam(network, layer).attribute(images, classes, relu_attributions=True)
        maps = maps.detach()
        maps = maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-30)
        layers.append(LayerAttribution.interpolate(maps, images.shape[-2:], "bilinear")[:, 0])
    return layers


def _torchcam(network: nn.Module, ready: cam.Prepared, px: int, batch: int) -> Race:
    """Raw maps at their own sizes by four methods; torchcam goes a pass for each."""
    from torchcam import methods

    images, classes = _images(px, batch)
    names = [name for name, module in network.named_modules() if module in _activations(network)]
    kinds = {"GradCAM": methods.GradCAM, "GradCAMPlusPlus": methods.GradCAMpp,
             "XGradCAM": methods.XGradCAM, "LayerCAM": methods.LayerCAM}  # fmt: skip

    def theirs() -> dict[str, list[Tensor]]:
        result = {}
        for name, kind in kinds.items():
            with kind(network, target_layer=names) as method:
                scores = network(images)
                result[name] = method(classes.tolist(), scores, normalized=False)
        return result

    def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        for name in FOUR:
            if name == "GradCAMPlusPlus":  # their denominator is another; the twin decides
                continue
            _close(ours[name], [layer.relu().detach() for layer in theirs[name]])

    return Race(
        "4 methods, 13 layers", "torchcam, 4 passes", {"px": px, "images": batch},
        lambda: cam.all_layers(ready, images, classes, methods=FOUR, micro_batch=batch).maps,
        theirs, same, 3.0, rounds=3 if batch == 1 else 2,
    )  # fmt: skip


def _limit(network: nn.Module, ready: cam.Prepared, px: int, batch: int) -> Race:
    """A forward and a backward to the first activation, and nothing else; no maps are made."""
    images, classes = _images(px, batch)
    eager, leaf = copy.deepcopy(network).requires_grad_(False), []

    def begin(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        leaf[:] = [output.detach().requires_grad_()]
        return leaf[0]

    eager.features[1].register_forward_hook(begin)

    def limit() -> tuple[Tensor, Tensor]:
        logits = eager(images)
        (first,) = leaf
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), first)
        return logits.detach(), gradient

    def same(ours: cam.Explained, theirs: tuple[Tensor, Tensor]) -> None:
        torch.testing.assert_close(ours.logits, theirs[0])

    return Race(
        "Grad-CAM of 13 layers", "the limit: forward and backward alone",
        {"px": px, "images": batch},
        lambda: cam.all_layers(ready, images, classes, micro_batch=batch), limit, same,
        1 / 1.1, rounds=5 if batch == 1 else 3,
    )  # fmt: skip


def _close(ours: Any, theirs: Any) -> None:
    """Cosine of each map 0.9999 at least; pytorch-grad-cam takes the least value of a map off."""
    assert len(ours) == len(theirs) == 13
    for one, other in zip(ours, theirs, strict=True):
        a, b = (maps.flatten(1).double() for maps in (one, other))
        a, b = (maps - maps.amin(1, keepdim=True) for maps in (a, b))
        cosine = torch.nn.functional.cosine_similarity(a, b)
        assert (cosine > 0.9999).all(), cosine


def convolutions() -> list[dict[str, Any]]:
    """Returns the share of our time that convolutions take, forward and backward."""
    network, rows = _vgg16(), []
    ready = cam.prepare(network)
    for px, batch in ((64, 8), (112, 8), (224, 1)):
        images, classes = _images(px, batch)
        cam.all_layers(ready, images, classes, micro_batch=batch)
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU]) as record:
            cam.all_layers(ready, images, classes, micro_batch=batch)
        events = record.key_averages()
        total = sum(event.self_cpu_time_total for event in events)
        # A backward's own time is in the operators that it calls.
        inside = sum(event.cpu_time_total for event in events if event.key in CONVOLUTIONS)
        rows.append({"px": px, "images": batch, "share": round(inside / total, 3)})
    return rows

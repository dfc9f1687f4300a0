"""Methods of pytorch-grad-cam by class name, beyond those of `camdrift.explain.methods`.

Methods that need only activations and gradients use those of the pass that all methods share.
Methods that perturb the input or compute their own gradients go through the library, one image and
one layer at a time: Score-CAM and Ablation-CAM call the network once for every channel of every
layer (4,224 times an image for a VGG-16), Finer-CAM and Shapley-CAM once a layer, forward and
backward.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from camdrift.models import hook_points
from camdrift.models.hook_points import Tap
from camdrift.settings import SettingsError

FED = ("EigenCAM", "EigenGradCAM", "FEM", "GradCAMElementWise", "KPCA_CAM", "SegEigenCAM")
# It uses the gradients of biases, not layers.
WITHOUT_LAYERS = ("FullGrad",)


@cache
def _kind(name: str) -> Any:
    """Returns a class of pytorch-grad-cam that computes a layer's map.

    Raises:
        SettingsError: there is no class of that name, or the library is not installed.
    """
    import_module("camdrift.pipeline.vision")  # it imports torchvision, too
    try:
        library = import_module("pytorch_grad_cam")
        base = import_module("pytorch_grad_cam.base_cam").BaseCAM
    except ModuleNotFoundError as fault:
        raise SettingsError(
            f"method '{name}' is none of camdrift's own; it may be one of pytorch-grad-cam, which "
            "is not installed: pip install -c constraints.txt grad-cam"
        ) from fault
    kinds = {
        key: kind
        for key, kind in vars(library).items()
        if isinstance(kind, type) and issubclass(kind, base) and key not in WITHOUT_LAYERS
    } | {"FinerCAM": library.FinerCAM}
    if name not in kinds:
        raise SettingsError(
            f"no method '{name}' that makes a map of a layer; pytorch-grad-cam has: "
            + ", ".join(sorted(kinds))
        )
    return kinds[name]


def fed(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a method of `FED` as a function of activations and gradients, see `methods`."""
    method = _kind(name)(nn.Linear(1, 1), [])

    def of(activations: Tensor, gradients: Tensor) -> Tensor:
        arrays = (value.float().cpu().numpy() for value in (activations, gradients))
        maps = method.get_cam_image(None, None, None, *arrays, False)
        return torch.from_numpy(np.maximum(maps, 0).astype(np.float32)).to(activations.device)

    return of


def through(
    name: str,
    traced: fx.GraphModule,
    taps: Sequence[Tap],
    inputs: Tensor,
    classes: Tensor,
    *,
    softmax: bool = False,
) -> tuple[Tensor, ...]:
    """Returns a method's maps from pytorch-grad-cam itself: a tensor (n, h, w) a layer.

    Args:
        name: the name of its class.
        traced: the network.
        taps: of the layers.
        inputs: (n, c, h, w), inputs of the network.
        classes: (n,), the classes to explain.
        softmax: must be False: these methods choose themselves between logit and probability.

    Raises:
        SettingsError: there is no method of that name, or `softmax` is True.
    """
    if softmax:
        raise SettingsError(f"method '{name}' explains no probability; wanted softmax: False")
    network, modules = hook_points.with_modules(traced, taps)
    kind = _kind(name)
    with torch.autocast(inputs.device.type, enabled=False):
        return tuple(
            torch.cat([_of_image(kind, network, module, *each)
                       for each in zip(inputs.split(1), classes.tolist(), strict=True)])
            for module in modules
        )  # fmt: skip


def _of_image(
    kind: Any, network: nn.Module, module: nn.Module, image: Tensor, target: int
) -> Tensor:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    raw: list[np.ndarray] = []
    with torch.enable_grad(), kind(network, [module]) as method:
        inner = getattr(method, "base_cam", method)
        make = inner.get_cam_image

        def keep(*arguments: Any) -> np.ndarray:
            raw.append(make(*arguments))
            return raw[-1]

        inner.get_cam_image = keep
        # Finer-CAM takes the target's number and chooses the classes to compare it with itself.
        options = (
            {"targets": None, "target_idx": target}
            if kind.__name__ == "FinerCAM"
            else {"targets": [ClassifierOutputTarget(target)]}
        )
        method(image.detach().requires_grad_(), **options)
    maps = torch.as_tensor(np.maximum(np.asarray(raw[0]), 0), dtype=torch.float32)
    return maps.to(image.device)

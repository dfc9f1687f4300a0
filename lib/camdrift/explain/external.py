"""Methods of pytorch-grad-cam by class name, beyond those of `camdrift.explain.methods`.

Methods that need only activations and gradients use those of the pass that all methods share, see
`methods.library`.
Methods that perturb the input or compute their own gradients go through the library, one image and
one layer at a time: Score-CAM and Ablation-CAM call the network once for every channel of every
layer (4,224 times an image for a VGG-16), Finer-CAM and Shapley-CAM once a layer, forward and
backward.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camdrift.explain.methods import library
from camdrift.models.hook_points import HookPoint, Watched, WithModules
from camdrift.models.tensors import Inputs, Labels
from camdrift.settings import SettingsError


def through(
    name: str,
    watched: Watched,
    points: Sequence[HookPoint],
    inputs: Inputs,
    classes: Labels,
    *,
    softmax: bool = False,
) -> tuple[Tensor, ...]:
    """Returns a method's maps from pytorch-grad-cam itself: `Heatmaps` of each layer.

    Args:
        name: the name of its class.
        watched: the network.
        points: hook points of the layers.
        inputs: of the network.
        classes: to explain.
        softmax: must be False: these methods choose themselves between logit and probability.

    Raises:
        SettingsError: there is no method of that name, or `softmax` is True.
    """
    if softmax:
        raise SettingsError(f"method '{name}' explains no probability; wanted softmax: False")
    network = WithModules(watched, points)
    kind = library.kind(name)
    with torch.autocast(inputs.device.type, enabled=False):
        return tuple(
            torch.cat([_of_image(kind, network, module, *each)
                       for each in zip(inputs.split(1), classes.tolist(), strict=True)])
            for module in network.points
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

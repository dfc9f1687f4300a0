"""Methods of pytorch-grad-cam by class name, beyond those of `camdrift.explain.methods`.

Methods that need only activations and gradients use those of the pass that all methods share, see
`methods.library`.
Methods that perturb the input or compute their own gradients go through the library, one image and
one layer at a time: Score-CAM and Ablation-CAM call the network once for every channel of every
layer (4,224 times an image for a VGG-16), Finer-CAM and Shapley-CAM once a layer, forward and
backward.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camdrift.explain.methods import library
from camdrift.explain.prepared import Prepared, Reshape
from camdrift.models.engine import WithModules
from camdrift.models.tensors import Labels
from camdrift.settings import SettingsError


def through(
    name: str, ready: Prepared, pixels: Tensor, classes: Labels, *, softmax: bool = False
) -> tuple[Tensor, ...]:
    """Returns a method's maps from pytorch-grad-cam itself: `Heatmaps` of each layer.

    Args:
        name: the name of its class.
        ready: the network.
        pixels: (n, c, h, w).
        classes: to explain.
        softmax: must be False: these methods choose themselves between logit and probability.

    Raises:
        SettingsError: there is no method of that name, `softmax` is True, or the network's output
            is not its logits, of two classes at least.
    """
    if softmax:
        raise SettingsError(f"method '{name}' explains no probability; wanted softmax: False")
    kind = library.kind(name)
    if ready.explaining.score is not None:
        raise SettingsError(f"method '{name}' explains logits alone; wanted score: None")
    network, inputs = WithModules(*ready.watch(pixels)), ready.inputs(pixels)
    reshape = ready.explaining.reshape
    with torch.autocast(inputs.device.type, enabled=False):
        return tuple(
            torch.cat([_of_image(kind, network, module, *each, reshape)
                       for each in zip(inputs.split(1), classes.tolist(), strict=True)])
            for module in network.points
        )  # fmt: skip


def _of_image(
    kind: Any, network: nn.Module, module: nn.Module, image: Tensor, target: int, reshape: Reshape
) -> Tensor:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    raw: list[np.ndarray] = []
    with torch.enable_grad(), kind(network, [module], reshape) as method:
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

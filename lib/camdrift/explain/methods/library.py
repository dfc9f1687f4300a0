"""Classes of pytorch-grad-cam by name, and its methods that need a single pass."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from camdrift.models.tensors import Activations, Heatmaps
from camdrift.settings import SettingsError

FROM_ARRAYS = ("EigenCAM", "EigenGradCAM", "FEM", "GradCAMElementWise", "KPCA_CAM", "SegEigenCAM")
# It uses the gradients of biases, not layers.
WITHOUT_LAYERS = ("FullGrad",)


@cache
def kind(name: str) -> Any:
    """Returns a class of pytorch-grad-cam that makes a map of a layer.

    Raises:
        SettingsError: there is none of that name.
    """
    import_module("camdrift.pipeline.vision")  # it imports torchvision, too
    library = import_module("pytorch_grad_cam")
    base = import_module("pytorch_grad_cam.base_cam").BaseCAM
    classes = {
        key: value
        for key, value in vars(library).items()
        if isinstance(value, type) and issubclass(value, base) and key not in WITHOUT_LAYERS
    } | {"FinerCAM": library.FinerCAM}
    if name not in classes:
        raise SettingsError(
            f"no method '{name}' that makes a map of a layer; pytorch-grad-cam has: "
            + ", ".join(sorted(classes))
        )
    return classes[name]


@cache
def from_arrays(name: str) -> Callable[[Activations, Activations], Heatmaps]:
    """Returns a method of `FROM_ARRAYS` as a function of activations and gradients."""
    method = kind(name)(nn.Linear(1, 1), [])

    def maps(activations: Activations, gradients: Activations) -> Heatmaps:
        arrays = (value.float().cpu().numpy() for value in (activations, gradients))
        values = method.get_cam_image(None, None, None, *arrays, False)
        return torch.from_numpy(np.maximum(values, 0).astype(np.float32)).to(activations.device)

    return maps

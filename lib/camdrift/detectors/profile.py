"""Profile: what an image's activations and maps look like, layer by layer."""

import numpy as np
import torch
from torch import Tensor

from camdrift.detectors.names import PROFILE
from camdrift.explain.methods import grad_cam
from camdrift.models.model import Model

TINY = 1e-12


def of_layer(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns an image's profile at one layer: (n, 3), in the order of `names.PROFILE`.

    The logarithm of the Grad-CAM's maximum; its mean over its maximum, in [0, 1], 0 for an empty
    map; the logarithm of the mean activation.
    """
    maps = grad_cam.maps(activations, gradients).flatten(1)
    peak = maps.amax(1)
    spread = torch.where(peak > 0, maps.mean(1) / peak.clamp_min(TINY), 0.0)
    activity = activations.flatten(1).mean(1).clamp_min(0)
    return torch.stack([(peak + TINY).log(), spread, (activity + TINY).log()], dim=1)


def measure(model: Model, pixels: Tensor) -> dict[str, np.ndarray]:
    """Returns the profile of each image: arrays (n,) by name, `<name>_<layer>`, layers from 0.

    For the own top class; one forward and one backward an image.
    """
    parts = []
    for batch, rows in model.batches(pixels.detach()):
        logits, activations = model.probes(batch)
        top = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
        gradients = torch.autograd.grad(top, activations)
        pairs = zip(activations, gradients, strict=True)
        parts.append(torch.stack([of_layer(a.detach(), g)[:rows] for a, g in pairs], dim=1))
    found = torch.cat(parts).cpu().numpy()
    return {
        f"{name}_{layer}": found[:, layer, i]
        for layer in range(found.shape[1])
        for i, name in enumerate(PROFILE)
    }

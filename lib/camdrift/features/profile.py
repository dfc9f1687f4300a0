"""Profile: statistics of an image's activations and maps, layer by layer."""

import torch
from torch import Tensor

from camdrift.explain.methods import grad_cam
from camdrift.features.images import Columns
from camdrift.models.logits import top_logit
from camdrift.models.model import Model
from camdrift.models.tensors import Activations, Logits, Pixels

TINY = 1e-12
# Statistics of each layer; a column is `profile_<name>_<layer>`, layers from 0.
NAMES = ("peak", "spread", "activity")


def layer_profile(activations: Activations, gradients: Activations) -> Tensor:
    """Returns an image's profile at one layer: (n, 3), in the order of `NAMES`.

    They are the logarithm of the Grad-CAM's maximum; its mean divided by its maximum, in [0, 1], 0
    for an empty map; and the logarithm of the mean activation.
    """
    maps = grad_cam.maps(activations, gradients).flatten(1)
    peak = maps.amax(1)
    spread = torch.where(peak > 0, maps.mean(1) / peak.clamp_min(TINY), 0.0)
    activity = activations.flatten(1).mean(1).clamp_min(0)
    return torch.stack([(peak + TINY).log(), spread, (activity + TINY).log()], dim=1)


def measure(model: Model, pixels: Pixels) -> Columns:
    """Returns the profile of each image: arrays (n,) by name, see `NAMES`.

    The maps are those of the image's own top class. Costs one forward and one backward pass.
    """
    parts = []
    for batch, rows in model.batches(pixels.detach()):
        logits, activations = model.probes(batch)
        gradients = torch.autograd.grad(top_logit(logits).sum(), activations)
        pairs = zip(activations, gradients, strict=True)
        parts.append(torch.stack([layer_profile(a.detach(), g)[:rows] for a, g in pairs], dim=1))
    values = torch.cat(parts).cpu().numpy()
    return {
        f"profile_{name}_{layer}": values[:, layer, i]
        for layer in range(values.shape[1])
        for i, name in enumerate(NAMES)
    }


def differentiable(model: Model, batch: Pixels) -> tuple[Logits, Tensor]:
    """Returns the logits of a micro-batch, and its profiles in the columns' order: double (n, k).

    Both have gradients with respect to the pixels.
    """
    logits, activations = model.activations(batch)
    gradients = torch.autograd.grad(top_logit(logits).sum(), activations, create_graph=True)
    pairs = zip(activations, gradients, strict=True)
    layers = torch.stack([layer_profile(a, g) for a, g in pairs], dim=1)
    return logits, layers.flatten(1).double().to(batch.device)

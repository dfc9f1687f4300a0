"""Joint drift: how far an image's maps of all layers are from those of its median-filtered copy.

A clean twin is not there, so the copy stands for it, as in feature squeezing (Xu et al. 2018), with
maps in place of probabilities. Both maps of a layer explain the image's own top class. The vector
of all layers' drift is judged twice: by its distance from that of benign images, and by a
regression that has seen attacked ones. This study's own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from camdrift.detectors import joint
from camdrift.settings.section import Section, Window

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, Pixels

NAMES = ("drift", "drift_logistic")


class Settings(Section):
    """The median filter's window in px, odd."""

    window: Window


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 2


def compare(model: Model, batch: Pixels, *, window: int, graph: bool) -> tuple[Logits, Tensor]:
    """Returns the logits of a micro-batch, and the drift of each image and layer: (n, layers).

    Drift is 1 minus the cosine similarity, in [0, 1]. With `graph`, both have gradients with
    respect to the pixels. Costs two forward and two backward passes.
    """
    import torch

    from camdrift.explain.methods import grad_cam
    from camdrift.features.cleaning import median
    from camdrift.features.comparison import similarity

    call = model.activations if graph else model.probes
    copies = median(batch, size=window)
    every = [call(pixels) for pixels in (batch, copies)]
    logits = every[0][0]
    classes = logits.argmax(1, keepdim=True)
    maps = []
    for outputs, activations in every:
        score = outputs.gather(1, classes).sum()
        gradients = torch.autograd.grad(score, activations, create_graph=graph)
        pairs = zip(activations, gradients, strict=True)
        maps.append([grad_cam.maps(a if graph else a.detach(), g) for a, g in pairs])
    drift = [1 - similarity(own, copy) for own, copy in zip(*maps, strict=True)]
    return logits, torch.stack([layer.to(batch.device) for layer in drift], dim=1)


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `drift_<layer>`, layers from 0, in [0, 1]."""
    import torch

    parts = []
    for batch, rows in images.model.batches(images.pixels):
        _, drift = compare(images.model, batch, window=settings.window, graph=False)
        parts.append(drift[:rows])
    return joint.columns("drift", torch.cat(parts))


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the two detectors by their names in tables."""
    return joint.pair("drift", NAMES)


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the distance or the log odds themselves."""
    return joint.objective(detector, partial(compare, model, window=settings.window, graph=True))

"""Signature: the share of each channel of the last layer in the logit of an image's top class.

Klawikowska et al. 2020 look at relevance as a signature of attacked images; Fidel et al. 2020,
"When Explainability Meets Adversarial Learning", train a detector on signatures. A channel's
relevance is the sum of gradient times activation over its places, which is layer-wise relevance
propagation's epsilon rule where dense layers and pooling follow (Ancona et al. 2018, proposition
1). The two readings are this study's own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from camdrift.detectors import joint
from camdrift.settings.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.detectors.detector import Detector
    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Logits, Pixels

NAMES = ("relevance", "relevance_logistic")


class Settings(Section):
    """No settings."""


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def signatures(model: Model, batch: Pixels, *, graph: bool) -> tuple[Logits, Tensor]:
    """Returns the logits of a micro-batch, and its signatures: (n, channels).

    Absolute values of a signature add up to 1, or it is 0 everywhere. With `graph`, both have
    gradients with respect to the pixels.
    """
    import torch

    from camdrift.models.logits import top_logit

    logits, activations = (model.activations if graph else model.probes)(batch)
    last = activations[-1]
    (gradient,) = torch.autograd.grad(top_logit(logits).sum(), last, create_graph=graph)
    shares = (gradient * (last if graph else last.detach())).flatten(2).sum(2)
    return logits, shares / shares.abs().sum(1, keepdim=True).clamp_min(torch.finfo().tiny)


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `relevance_<channel>`, channels from 0, in [-1, 1]."""
    import torch

    parts = []
    for batch, rows in images.model.batches(images.pixels):
        parts.append(signatures(images.model, batch, graph=False)[1][:rows])
    return joint.columns("relevance", torch.cat(parts))


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the two detectors by their names in tables."""
    return joint.pair("relevance", NAMES)


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the distance or the log odds themselves."""
    return joint.objective(detector, partial(signatures, model, graph=True))

"""Adaptive attack, which knows the detector: it must flip the class and look benign at once.

Selective projected gradient descent (Bryniarski et al. 2022, "Evading Adversarial Example
Detection Defenses with Orthogonal Projected Gradient Descent", section 4.1): a step follows the
classifier's loss until the class flips, and the detector's score afterwards, so there is no
weight between the two to tune. The norm is L-infinity. In place of a detector's score it
lowers the surrogate in the detector's file.
"""

import torch
from torch.nn import functional as F

from camdrift.features.images import Objective
from camdrift.models import gradients
from camdrift.models.model import Model, padded
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels
from camdrift.storage import arrays


def perturb(
    model: Model, pixels: Pixels, labels: Labels, score: Objective | None, *,
    eps: float, step: float, steps: int,
) -> Pixels:  # fmt: skip
    """Returns attacked pixels, in [0, 1].

    The result is the iterate with the lowest score among those that flip the class, or else the
    last one. Without a score the attack is non-adaptive: it raises the classifier's loss in every
    step.

    Args:
        model: the model under attack.
        pixels: clean, in [0, 1].
        labels: the classes of the clean images.
        score: the detector's surrogate, or None.
        eps: largest change of a pixel value.
        step: size of a step, in pixel values.
        steps: number of steps.
    """
    parts = []
    start = 0
    for batch, rows in model.batches(pixels):
        label = padded(labels[start : start + rows], len(batch))
        best, lowest = batch.clone(), torch.full((len(batch),), torch.inf)
        look = _look(score or _blind(model), label, best, lowest)
        sizes = [step] * steps
        change, _ = gradients.ascend(look, batch, sizes, eps=eps, look_last=True)
        last = (batch + change).clamp(0, 1)
        parts.append(torch.where(lowest.isinf().view(-1, 1, 1, 1), last, best)[:rows])
        start += rows
    return torch.cat(parts)


def values(model: Model, pixels: Pixels, score: Objective) -> arrays.PerImage:
    """Returns a surrogate's value for each image: (n,)."""
    parts = []
    for batch, rows in model.batches(pixels):
        _, scores = score(batch.clone().requires_grad_())  # some derive by the pixels inside
        parts.append(scores[:rows].detach().cpu())
    return torch.cat(parts).double().numpy()


def _blind(model: Model) -> Objective:
    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits = model(batch)
        return logits, torch.full((len(batch),), torch.nan)

    return score


def _look(score: Objective, labels: Labels, best: Pixels, lowest: PerImage) -> gradients.Look:
    """Returns a look that keeps the iterates of the lowest scores, and these, in its arguments."""

    def look(images: Pixels, places: PerImage, gradient: bool) -> tuple[Pixels, Mask]:
        images.requires_grad_()
        with gradients.ConstantConvs():  # scores of maps are derived twice
            logits, scores = score(images)
        known = (logits.argmax(1) != labels) & scores.isfinite()
        better = known & (scores.detach() < lowest)
        best[better] = images.detach()[better]
        lowest[better] = scores.detach()[better]
        rising = images
        if gradient:
            # Raise the loss until the class flips, then lower the score.
            objective = F.cross_entropy(logits, labels, reduction="none")
            if known.any():  # else no score would be derived but in vain
                objective = torch.where(known, -scores.nan_to_num(), objective)
            (rising,) = torch.autograd.grad(objective.sum(), images)
            rising = rising.nan_to_num()
        images.requires_grad_(False)
        return rising, torch.zeros_like(known)

    return look

"""Adaptive attack, which knows the detector: it must flip the class and look benign at once.

Selective projected gradient descent (Bryniarski et al. 2022, "Evading Adversarial Example
Detection Defenses with Orthogonal Projected Gradient Descent", section 4.1): a step follows the
classifier's loss until the class flips, and the detector's score afterwards, so there is no
weight between the two to tune. The norm is L-infinity. In place of a detector's score it
lowers the surrogate in the detector's file.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from camdrift.features.images import Objective
from camdrift.models.model import Model, padded


def perturb(
    model: Model, pixels: Tensor, labels: Tensor, score: Objective | None, *,
    eps: float, step: float, steps: int,
) -> Tensor:  # fmt: skip
    """Returns attacked pixels (n, 3, h, w), in [0, 1].

    The result is the iterate with the lowest score among those that flip the class, or else the
    last one. Without a score the attack is non-adaptive: it raises the classifier's loss in every
    step.

    Args:
        model: the model under attack.
        pixels: (n, 3, h, w), clean.
        labels: (n,), the classes of the clean images.
        score: the detector's surrogate, or None.
        eps: largest change of a pixel value.
        step: size of a step, in pixel values.
        steps: number of steps.
    """
    parts = []
    done = 0
    for batch, rows in model.batches(pixels):
        label = padded(labels[done : done + rows], len(batch))
        attacked = _descend(batch, label, score or _blind(model), eps=eps, step=step, steps=steps)
        parts.append(attacked[:rows])
        done += rows
    return torch.cat(parts)


def _blind(model: Model) -> Objective:
    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(batch)
        return logits, torch.full((len(batch),), torch.nan)

    return score


def _descend(
    clean: Tensor, labels: Tensor, score: Objective, *, eps: float, step: float, steps: int
) -> Tensor:
    current, best = clean, clean.clone()
    lowest = torch.full((len(clean),), torch.inf)
    for i in range(steps + 1):
        current = current.detach().requires_grad_()
        logits, scores = score(current)
        flipped = logits.argmax(1) != labels
        known = flipped & scores.isfinite()
        better = known & (scores.detach() < lowest)
        best[better] = current.detach()[better]
        lowest[better] = scores.detach()[better]
        if i == steps:
            break
        # Raise the loss until the class flips, then lower the score.
        loss = F.cross_entropy(logits, labels, reduction="none")
        climbed = torch.where(known, -scores.nan_to_num(), loss).sum()
        (gradient,) = torch.autograd.grad(climbed, current)
        with torch.no_grad():
            moved = current + step * gradient.nan_to_num().sign()
            current = (moved - clean).clamp(-eps, eps).add(clean).clamp(0, 1)
    return torch.where(lowest.isinf().view(-1, 1, 1, 1), current.detach(), best)

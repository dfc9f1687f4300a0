"""Auto-PGD: projected gradient ascent with momentum, whose steps halve where they lead nowhere.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", section 3 and algorithm 1. AutoAttack begins with it.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from camdrift.models import gradients
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings import SettingsError
from camdrift.settings.section import Count, Section, Share

MOMENTUM = 0.25  # the share of the last move in the next one, 1 - alpha
# Shares of the steps: before the first checkpoint, between two at least, and by which each interval
# is shorter than the one before it.
FIRST, SHORTEST, SHORTER = 0.22, 0.06, 0.03


class Settings(Section):
    """Settings of Auto-PGD."""

    eps: Share
    steps: Count
    restarts: Count
    rho: Share
    loss: Literal["ce", "dlr"]


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    limits: Limits | None = None,
    eps: float,
    steps: int,
    restarts: int,
    rho: float,
    loss: str,
) -> Perturbation:
    """Returns the last perturbation of a walk that changes the class, else the one of largest loss.

    Args:
        model: under attack.
        pixels: in [0, 1].
        labels: the classes that the attack leads away from.
        generators: one for each image, of the point where each walk starts.
        limits: of each image; None: `eps`, of pixel values. Where the L2 norm is limited, too,
            steps follow the gradient and not its sign.
        eps: largest change of a pixel value, in [0, 1].
        steps: of each walk.
        restarts: walks; an image whose class a walk changes takes no further one.
        rho: steps halve where no larger share of those since the last checkpoint has raised the
            loss.
        loss: 'ce', the cross-entropy, or 'dlr', see `logits_ratio`.

    Departs from the paper, as its public code does: a walk starts at a random point that touches
    the limits; the last point that changes the class is returned, not the one of largest loss; a
    share equal to rho halves the step, too; and the loss of the first step is compared with 0, so
    that under the cross-entropy it counts as a rise. Departs from that code: an image whose class
    does not change has the point of largest loss, not none; an image that is wrong when clean is
    attacked, too; and a limited L2 norm limits the change together with Linf.

    Raises:
        SettingsError: the model has fewer classes than the loss needs.
    """
    limits = limits or Limits(torch.full((len(pixels),), eps))
    change, passes = torch.zeros_like(pixels), torch.zeros_like(labels)
    highest = torch.full((len(pixels),), -torch.inf)
    left = torch.arange(len(pixels))
    for _ in range(restarts):
        if not len(left):
            break
        draws = limits.draw(pixels.shape[1:], generators)[left]
        own, losses, flips = _walk(
            model, pixels[left], labels[left], LOSSES[loss], draws, limits.of(left),
            steps=steps, rho=rho,
        )  # fmt: skip
        better = flips | (losses > highest[left])
        change[left[better]] = own[better]
        highest[left] = torch.maximum(highest[left], losses)
        passes[left] += steps + 1
        left = left[~flips]
    return Perturbation(change, passes)


def logits_ratio(logits: Logits, labels: Labels) -> PerImage:
    """Returns the difference of logits ratio, which no scale of the logits changes.

    It is minus the difference of the label's logit and the largest other one, divided by the
    difference of the largest logit and the third largest (Croce & Hein 2020, section 4).

    Raises:
        SettingsError: there are fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise SettingsError(
            "attacks.apgd.loss: dlr compares three logits; wanted ce for a model of "
            f"{logits.shape[1]} classes"
        )
    first, _, third = logits.topk(3).values.unbind(1)
    own = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return -(own - other) / (first - third + 1e-12)


LOSSES: dict[str, gradients.Loss] = {
    "ce": partial(F.cross_entropy, reduction="none"),
    "dlr": logits_ratio,
}


def checkpoints(steps: int) -> Iterator[int]:
    """Yields the lengths of the intervals between checkpoints, in steps, without end."""
    length = max(int(FIRST * steps), 1)
    while True:
        yield length
        length = max(length - max(int(SHORTER * steps), 1), max(int(SHORTEST * steps), 1))


def _walk(
    model: Model, clean: Pixels, labels: Labels, loss: gradients.Loss, draws: Pixels,
    limits: Limits, *, steps: int, rho: float,
) -> tuple[Pixels, PerImage, Mask]:  # fmt: skip
    """Returns a walk's perturbations, see `perturb`, largest losses, and which change the class."""

    def look(change: Pixels) -> tuple[Pixels, PerImage, Mask]:
        gradient, losses, predictions = gradients.of_loss(model, clean + change, labels, loss)
        return gradient, losses, predictions != labels

    reach = limits.linf.view(-1, 1, 1, 1)
    largest = draws.flatten(1).abs().amax(1).clamp_min(torch.finfo().tiny).view(reach.shape)
    change = limits.project(clean, reach * (draws / largest))
    gradient, losses, flips = look(change)
    best, highest, steepest, flipping = change, losses, gradient, change
    share, before, halved = torch.full_like(losses, 2.0), change, torch.ones_like(flips)
    last, rises, earlier = torch.zeros_like(losses), torch.zeros_like(losses), highest
    intervals = checkpoints(steps)
    ends = next(intervals)
    since = 0
    for step in range(steps):
        target = limits.project(clean, change + limits.step(gradient, share))
        if step > 0:
            target = (1 - MOMENTUM) * (target - change) + MOMENTUM * (change - before) + change
            target = limits.project(clean, target)
        before, change = change, target
        gradient, losses, now = look(change)
        flips, flipping = flips | now, _where(now, change, flipping)
        better = losses > highest
        best, steepest = _where(better, change, best), _where(better, gradient, steepest)
        highest = torch.where(better, losses, highest)
        rises += losses > last
        last = losses
        since += 1
        if since == ends:
            stuck = (rises <= rho * since) | (~halved & (highest <= earlier))
            share = torch.where(stuck, share / 2, share)
            change, gradient = _where(stuck, best, change), _where(stuck, steepest, gradient)
            halved, earlier, rises, since = stuck, highest, torch.zeros_like(rises), 0
            ends = next(intervals)
    return _where(flips, flipping, best), highest, flips


def _where(mask: Mask, yes: Pixels, no: Pixels) -> Pixels:
    return torch.where(mask.view(-1, 1, 1, 1), yes, no)

"""Perturbations: the result of any attack, and its measurements, the same for all attacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.models.model import Model
from camdrift.settings import SettingsError


class SpoiltError(SettingsError, FloatingPointError):
    """A perturbation is not finite."""


@dataclass(frozen=True)
class Perturbation:
    """Perturbations of n images.

    pixels: (n, 3, h, w), to add to pixels in [0, 1]; the sum may leave that range.
    evaluations: (n,) int64, forward passes of the model spent on each image.
    log: the attack's own record, one dict a row, `image` counts from 0; empty for most attacks.
    found: (n,) bool, the attack's own judgement of success, if its rule is not "the prediction
        differs from that on the clean image"; None for most attacks.
    last_step: (n, 3, h, w), the part of `pixels` that the last of several steps added, which the
        accumulating loop scales alone; None if the whole perturbation is one step.
    """

    pixels: Tensor
    evaluations: Tensor
    log: list[dict] = field(default_factory=list)
    found: Tensor | None = None
    last_step: Tensor | None = None


def make(
    perturb: Callable[..., Perturbation],
    model: Model,
    pixels: Tensor,
    labels: Tensor,
    *,
    generators: Sequence[np.random.Generator],
    shard: int,
    settings: dict[str, Any],
) -> Perturbation:
    """Returns the perturbations of all images, computed `shard` images at a time.

    An image's result does not depend on the shard, except for attacks that carry something from one
    image to the next (DLFuzz with sequential tables): those require one shard of all images.
    """
    parts: list[Perturbation] = []
    log: list[dict] = []

    def joined(name: str) -> Tensor | None:
        pieces = [getattr(part, name) for part in parts]
        return None if pieces[0] is None else torch.cat(pieces)

    for start in tqdm(range(0, len(pixels), shard), desc="attack", unit="shard"):
        rows = slice(start, start + shard)
        part = perturb(model, pixels[rows], labels[rows], generators=generators[rows], **settings)
        log += [row | {"image": row["image"] + start} for row in part.log]
        parts.append(part)
    return Perturbation(
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.evaluations for part in parts]),
        log,
        joined("found"),
        joined("last_step"),
    )


def measure(model: Model, pixels: Tensor, perturbation: Perturbation) -> pd.DataFrame:
    """Returns the effect of the clipped perturbations on `model`, one row an image.

    Columns: `clean`, `adversarial` and `adversarial_8bit` (predictions; the last after rounding to
    256 levels), `success` and `success_8bit` (the prediction differs from the clean one),
    `unclipped` (the prediction where pixels may leave [0, 1]), `l2`, `linf`, `rms` of the
    perturbation after clipping, in pixel values, `evaluations`, and `probabilities` (the model's
    outputs for the clean image are not below 0 and add up to 1: it ends in a softmax).
    """
    changed = (pixels + perturbation.pixels).clamp(0, 1)
    if not torch.isfinite(changed).all():
        raise SpoiltError(
            "the attack returned a perturbation that is not finite: the gradient of the model, or "
            "the user's own attack, gives NaN or infinity"
        )
    with torch.no_grad():
        outputs = model(pixels)
        clean = outputs.argmax(1).numpy()
        adversarial, rounded, unclipped = (
            model(values).argmax(1).numpy()
            for values in (
                changed,
                changed.mul(255).round().div(255),
                pixels + perturbation.pixels,
            )
        )
    adds_up = (outputs.sum(1) - 1).abs() < 1e-4
    successes = perturbation.found
    change = (changed - pixels).double().flatten(1)
    return pd.DataFrame(
        {
            "clean": clean,
            "adversarial": adversarial,
            "adversarial_8bit": rounded,
            "success": adversarial != clean if successes is None else successes.numpy(),
            "success_8bit": rounded != clean,
            "unclipped": unclipped,
            "l2": change.norm(dim=1).numpy(),
            "linf": change.abs().amax(1).numpy(),
            "rms": change.square().mean(1).sqrt().numpy(),
            "evaluations": perturbation.evaluations.numpy(),
            "probabilities": ((outputs >= 0).all(1) & adds_up).numpy(),
        }
    )

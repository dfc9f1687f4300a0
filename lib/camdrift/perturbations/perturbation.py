"""Perturbations: the result of any attack, and its measurements, the same for all attacks."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations import size
from camdrift.perturbations.limits import Limits
from camdrift.settings import SettingsError


class SpoiltError(SettingsError, FloatingPointError):
    """A perturbation is not finite."""


@dataclass(frozen=True)
class Perturbation:
    """Perturbations of n images.

    pixels: to add to pixels in [0, 1]; the sum may leave that range.
    evaluations: forward passes of the model spent on each image.
    log: the attack's own record, one dict a row, `image` counts from 0; empty for most attacks.
    successes: the attack's own judgement of success, if its rule is not "the prediction
        differs from that on the clean image"; None for most attacks.
    last_step: the part of `pixels` that the last of several steps added, which the
        accumulating loop scales alone; None if the whole perturbation is one step.
    """

    pixels: Pixels
    evaluations: PerImage
    log: list[dict] = field(default_factory=list)
    successes: Mask | None = None
    last_step: Pixels | None = None


def run(
    perturb: Callable[..., Perturbation],
    source: Model,
    target: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    settings: dict[str, Any],
    limits: Limits | None = None,
    others: Pixels | None = None,
    only: Mask | None = None,
    shard: int | None = None,
    outputs: Logits | None = None,
) -> tuple[Perturbation, pd.DataFrame]:
    """Attacks images on one model and returns the perturbations and their effect on another.

    Args:
        perturb: the attack, see `camdrift.attacks`.
        source: the model on which the attack is made.
        target: the model that meets it; see `measure` for the table's columns.
        pixels: in [0, 1].
        labels: the classes that the attack leads away from.
        generators: one for each image.
        settings: of the attack.
        limits: of each image. An attack with a parameter of this name heeds them; the result of any
            other is projected on them, and counts as one step. None: the attack's own.
        others: another image for each, for an attack with a parameter of this name.
        only: the images to attack; the others stay as they are, without an evaluation.
            None attacks all.
        shard: images to attack at a time, None for all; an image's result does not depend on it,
            except for attacks that carry something from one image to the next (DLFuzz with
            sequential tables, and a library's attack that draws).
        outputs: the target's of the clean images; None to compute them.
    """
    rows = torch.arange(len(pixels)) if only is None else only.nonzero().flatten()
    change, last_step = torch.zeros_like(pixels), torch.zeros_like(pixels)
    evaluations = torch.zeros(len(pixels), dtype=torch.int64)
    successes = torch.zeros(len(pixels), dtype=torch.bool)
    log: list[dict] = []
    steps = judges = False
    parameters = inspect.signature(perturb).parameters
    heeds = "limits" in parameters
    shards = rows.split(shard or len(rows)) if len(rows) else ()
    for part in tqdm(shards, desc="attack", unit="shard", disable=shard is None):
        own = [generators[int(row)] for row in part]
        more: dict[str, Any] = {}
        if limits is not None and heeds:
            more["limits"] = limits.of(part)
        if others is not None and "others" in parameters:
            more["others"] = others[part]
        result = perturb(source, pixels[part], labels[part], generators=own, **more, **settings)
        if limits is not None and not heeds:
            inside = limits.of(part).project(pixels[part], result.pixels)
            result = replace(result, pixels=inside, last_step=None, successes=None)
        change[part], evaluations[part] = result.pixels, result.evaluations
        log += [row | {"image": int(part[row["image"]])} for row in result.log]
        if judges := result.successes is not None:
            successes[part] = result.successes
        if steps := result.last_step is not None:
            last_step[part] = result.last_step
    whole = Perturbation(
        change, evaluations, log, successes if judges else None, last_step if steps else None
    )
    return whole, measure(target, pixels, whole, outputs=outputs)


def measure(
    model: Callable[[Pixels], Logits],
    pixels: Pixels,
    perturbation: Perturbation,
    *,
    outputs: Logits | None = None,
) -> pd.DataFrame:
    """Returns the effect of the clipped perturbations on `model`, one row an image.

    Columns: `clean`, `adversarial` and `adversarial_8bit` (predictions; the last after rounding to
    256 levels), `success` and `success_8bit` (the prediction differs from the clean one),
    `unclipped` (the prediction where pixels may leave [0, 1]), `l2`, `linf`, `rms` of the
    perturbation after clipping, in pixel values, `evaluations`, and `probabilities` (the model's
    outputs for the clean image are not below 0 and add up to 1: it ends in a softmax). `outputs`
    are those, None to compute them.
    """
    changed = (pixels + perturbation.pixels).clamp(0, 1)
    if not torch.isfinite(changed).all():
        raise SpoiltError(
            "the attack returned a perturbation that is not finite: the gradient of the model, or "
            "the user's own attack, gives NaN or infinity"
        )
    with torch.no_grad():
        outputs = model(pixels) if outputs is None else outputs
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
    successes = perturbation.successes
    change = changed - pixels
    return pd.DataFrame(
        {
            "clean": clean,
            "adversarial": adversarial,
            "adversarial_8bit": rounded,
            "success": adversarial != clean if successes is None else successes.numpy(),
            "success_8bit": rounded != clean,
            "unclipped": unclipped,
            "l2": size.l2(change).numpy(),
            "linf": change.double().abs().flatten(1).amax(1).numpy(),
            "rms": size.rms(change).numpy(),
            "evaluations": perturbation.evaluations.numpy(),
            "probabilities": ((outputs >= 0).all(1) & adds_up).numpy(),
        }
    )

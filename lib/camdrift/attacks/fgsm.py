"""The fast gradient sign method.

Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples", section 4.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from camdrift.models import gradients
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Mask, PerImage, Pixels
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Count, Section, Share


class Settings(Section):
    """Settings of the fast gradient sign method."""

    eps: Share
    gains: Count
    target: Annotated[int, Field(ge=0)] | None


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    eps: float,
    gains: int,
    target: int | None,
) -> Perturbation:
    """Returns eps * sign(gradient of the cross-entropy at the image); eps in pixel values.

    With `gains` > 1, the first of eps * 1/gains, 2/gains, ... 1 that changes the prediction from
    the label (klawikowska2020's tool, which computes the gradient once and raises the gain), else
    eps itself; the log has a row an image: `gain` (missing where none did), `before` and `after`,
    the label and the class after the attack. With a `target` class the loss of that class is
    lowered, and success is to reach it. An image that has reached its goal from the start stays
    unchanged; without gains and a target nobody looks.
    """
    targets = labels if target is None else torch.full_like(labels, target)
    searches = gains > 1 or target is not None
    after, reached = labels.clone(), torch.zeros(len(pixels), dtype=torch.bool)

    def look(images: Pixels, places: PerImage, gradient: bool) -> tuple[Pixels, Mask]:
        if gradient:
            rising, after[places] = gradients.cross_entropy(model, images, targets[places])
        else:
            rising = images
            with torch.no_grad():
                after[places] = model(images).argmax(1)
        if searches:
            reached[:] = after != labels if target is None else after == targets
        return rising if target is None else -rising, reached[places]

    tries = [eps * k / gains for k in range(1, gains + 1)]
    change, looks = gradients.ascend(
        look, pixels, tries, eps=eps, one_direction=True, look_last=searches
    )
    gain = torch.tensor([0.0, *tries])[looks - 1]
    log = [
        {"image": i, "gain": float(gain[i]) if reached[i] else float("nan"),
         "before": int(labels[i]), "after": int(after[i])}
        for i in range(len(pixels) if gains > 1 else 0)
    ]  # fmt: skip
    return Perturbation(change, looks, log, None if target is None else reached)

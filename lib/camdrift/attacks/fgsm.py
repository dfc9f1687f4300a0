"""The fast gradient sign method.

Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples", section 4.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from camdrift.models import gradients
from camdrift.models.model import Model
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Count, Section, Share


class Settings(Section):
    """Settings of the fast gradient sign method."""

    eps: Share
    gains: Count
    target: Annotated[int, Field(ge=0)] | None


def perturb(
    model: Model,
    pixels: Tensor,
    labels: Tensor,
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
    lowered, and success is to reach it; an image that has that class already stays unchanged.
    """
    targets = labels if target is None else torch.full_like(labels, target)
    gradient, after = gradients.cross_entropy(model, pixels, targets)
    sign = gradient.sign() if target is None else -gradient.sign()

    def reached(classes: Tensor) -> Tensor:
        return classes != labels if target is None else classes == targets

    gain = torch.full((len(pixels),), eps)
    evaluations = torch.ones(len(pixels), dtype=torch.int64)
    looks = gains > 1 or target is not None
    waiting = torch.arange(len(pixels) if looks else 0)
    if target is not None:
        gain[reached(after)] = 0
        waiting = (~reached(after)).nonzero().flatten()
    for k in range(1, gains + 1):
        if not len(waiting):
            break
        gain[waiting] = eps * k / gains
        with torch.no_grad():
            changed = (pixels[waiting] + eps * k / gains * sign[waiting]).clamp(0, 1)
            after[waiting] = model(changed).argmax(1)
        evaluations[waiting] += 1
        waiting = waiting[~reached(after)[waiting]]
    successes = reached(after)
    log = [
        {"image": i, "gain": float(gain[i]) if successes[i] else float("nan"),
         "before": int(labels[i]), "after": int(after[i])}
        for i in range(len(pixels) if gains > 1 else 0)
    ]  # fmt: skip
    return Perturbation(
        gain.view(-1, 1, 1, 1) * sign, evaluations, log, None if target is None else successes
    )

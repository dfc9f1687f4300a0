"""PASA: how far noise moves an image's logits and its attribution.

Bhusal et al. 2024, "PASA: Attack Agnostic Unsupervised Adversarial Detection using Prediction &
Attribution Sensitivity Analysis". An image is suspect if either number is smaller or larger than
those of benign images. Departs: the paper sets the four limits by hand; here an image's score is
the larger distance of the two numbers' logarithms from the benign median, in median absolute
deviations. An image of one level, to which no noise is added, is far from the median.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from camdrift.detectors.detector import Detector
from camdrift.settings.section import Count, Positive, Section
from camdrift.storage import arrays

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Labels, Logits, PerImage, Pixels

COLUMNS = ("pasa_prediction", "pasa_attribution")
TINY = 1e-12
BETA = 10.0  # of the softplus in the adaptive attack
DRAWS = 2  # of noise, there


class Settings(Section):
    """Noise, and the attribution.

    spread: standard deviation of the noise over the range of the image's values (published: 0.15).
    steps: of integrated gradients.
    """

    spread: Positive
    steps: Count


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 2 + 2 * settings.steps


def integrated_gradients(
    model: Model, pixels: Pixels, classes: Labels, *, steps: int, graph: bool = False
) -> Pixels:
    """Returns the integrated gradients of classes' logits, from a black image.

    Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", equation 1, by the midpoint
    rule. With `graph` they have a gradient with respect to the pixels; they are then those of the
    network with softplus for ReLU, since a gradient through ReLU does not change with the pixels.
    """
    import torch

    from camdrift.models.smoothing import Smooth

    total = torch.zeros_like(pixels)
    for step in range(steps):
        point = (step + 0.5) / steps * pixels
        point = point if graph else point.detach().requires_grad_()
        with Smooth(BETA) if graph else contextlib.nullcontext():
            score = model(point).gather(1, classes[:, None]).sum()
        total = total + torch.autograd.grad(score, point, create_graph=graph)[0]
    return pixels * total / steps


def sensitivities(
    model: Model, pixels: Pixels, draws: Tensor, settings: Settings, *, graph: bool
) -> tuple[Logits, Tensor]:
    """Returns the logits, and both numbers of each image: (n, 2), L1 distances.

    Args:
        model: under attack.
        pixels: in [0, 1].
        draws: of a standard normal distribution, for each image or one for all.
        settings: of the detector.
        graph: whether they have gradients with respect to the pixels.
    """
    import torch

    flat = pixels.flatten(1)
    spread = settings.spread * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
    noisy = (pixels + spread * draws).clamp(0, 1)
    with torch.set_grad_enabled(graph):
        logits, moved = (model(each) for each in (pixels, noisy))
    classes = logits.argmax(1)
    own, other = (
        integrated_gradients(model, each, classes, steps=settings.steps, graph=graph)
        for each in (pixels, noisy)
    )
    pairs = (logits, moved), (own, other)
    return logits, torch.stack([(a - b).flatten(1).abs().sum(1) for a, b in pairs], dim=1)


def measure(images: Images, settings: Settings) -> Columns:
    """Returns `pasa_prediction` and `pasa_attribution`, from 0."""
    import torch

    shape = tuple(images.pixels.shape[1:])
    draws = np.stack([generator.standard_normal(shape) for generator in images.generators])
    parts, start = [], 0
    for batch, rows in images.model.batches(images.pixels):
        own = torch.from_numpy(draws[start : start + rows]).float()
        _, values = sensitivities(images.model, batch[:rows], own, settings, graph=False)
        parts.append(values)
        start += rows
    return dict(zip(COLUMNS, torch.cat(parts).numpy().T, strict=True))


class Pasa(Detector):
    """The larger distance of both numbers' logarithms from the median of benign images."""

    trained_on = "benign"

    def learn(self, features: pd.DataFrame, adversarial: arrays.Mask) -> None:
        """Fits the medians, and the median absolute deviations."""
        benign = _logarithms(features[~adversarial])
        self.median_ = np.median(benign, axis=0)
        self.deviation_ = np.median(np.abs(benign - self.median_), axis=0) + TINY

    def score_samples(self, features: pd.DataFrame) -> arrays.PerImage:
        """Returns the distance."""
        return (np.abs(_logarithms(features) - self.median_) / self.deviation_).max(1)


def _logarithms(features: pd.DataFrame) -> np.ndarray:
    return np.log(features[[*COLUMNS]].to_numpy(dtype=float) + TINY)


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detector by its name in tables."""
    return {"pasa": Pasa()}


def surrogate(detector: Pasa, model: Model, settings: Settings) -> Objective:
    """Returns the mean distance under a few draws of noise, the same for all images.

    The detector draws other noise, and the attribution is that of a smoothed network, see
    `integrated_gradients`: the score is near the detector's, not equal to it.
    """
    import torch

    median, deviation = map(torch.from_numpy, (detector.median_, detector.deviation_))

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        shape, distances = tuple(batch.shape[1:]), []
        for seed in range(DRAWS):
            noise = np.random.default_rng(seed).standard_normal(shape)
            draws = torch.from_numpy(noise).to(batch)
            logits, values = sensitivities(model, batch, draws, settings, graph=True)
            logarithms = (values.double() + TINY).log().cpu()
            distances.append(((logarithms - median).abs() / deviation).amax(1))
        return logits, torch.stack(distances).mean(0).float().to(batch.device)

    return score

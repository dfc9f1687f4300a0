"""Manipulation: steps that move the maps of an image, or keep them, along their own gradient.

Maps are Grad-CAM's. Their gradient is that of a smoothed network, see `smoothing`; an image is
judged on the network as it is, clipped to [0, 1], and rounded to 8 bit as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from camdrift.explain.methods import grad_cam
from camdrift.explain.prepared import Layers
from camdrift.models import gradients, smoothing
from camdrift.models.model import Model, padded
from camdrift.models.tensors import Heatmaps, Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import Perturbation, SpoiltError
from camdrift.settings import SettingsError
from camdrift.settings.section import Count, Positive, Section, Share


@dataclass(frozen=True)
class Watch:
    """The maps of a micro-batch that are watched, and how they were.

    before: by layer, (n, h, w), the maps to which maps are compared.
    places: of the layers in the model's maps.
    classes: that every map explains, (n,); None: each image's top class at the time.
    """

    before: Layers
    places: tuple[int, ...]
    classes: Labels | None

    def drift(
        self, model: Model, batch: Pixels, beta: float | None = None
    ) -> tuple[Logits, PerImage]:
        """Returns logits and each image's drift: 1 minus the cosine, the mean over the layers.

        A layer whose map is empty, before or now, is left out; without any layer the drift is 0.

        Args:
            model: under attack.
            batch: a micro-batch of pixels.
            beta: of the smoothed network, whose drift has gradients with respect to the pixels;
                None: of the network as it is, without gradients.
        """
        logits, maps = explained(model, batch, self.classes, self.places, beta=beta)
        cosines, there = zip(*map(_cosine, maps, self.before), strict=True)
        total = sum(1 - cosine for cosine in cosines)
        return logits, total / sum(layer.float() for layer in there).clamp_min(1)


def explained(
    model: Model,
    batch: Pixels,
    classes: Labels | None,
    places: Sequence[int],
    *,
    beta: float | None = None,
) -> tuple[Logits, Layers]:
    """Returns the logits of a micro-batch, and its Grad-CAMs at some layers.

    They explain `classes`, None for each image's top class; `beta` as in `Watch.drift`.
    """
    graph = beta is not None
    if beta is None:
        logits, tensors = model.probes(batch)
    else:
        with gradients.ConstantConvs(), smoothing.Smooth(beta):
            logits, tensors = model.activations(batch)
    aims = logits.argmax(1) if classes is None else classes
    watched = [tensors[place] for place in places]
    score = logits.gather(1, aims[:, None]).sum()
    slopes = torch.autograd.grad(score, watched, create_graph=graph)
    pairs = zip(watched, slopes, strict=True)
    maps = tuple(grad_cam.maps(a if graph else a.detach(), g).to(logits.device) for a, g in pairs)
    return (logits if graph else logits.detach()), maps


def _cosine(maps: Heatmaps, before: Heatmaps) -> tuple[PerImage, Mask]:
    """Returns the cosine of each pair of maps, 1 where one is empty, and whether neither is."""
    flat, other = maps.flatten(1), before.flatten(1)
    there = (flat.detach().amax(1) > 0) & (other.amax(1) > 0)
    # The norm of zeros has no gradient.
    safe = torch.where(there[:, None], flat, 1.0)
    cosine = (safe * other).sum(1) / (safe.norm(dim=1) * other.norm(dim=1).clamp_min(1e-30))
    return torch.where(there, cosine, 1.0), there


def places_of(model: Model, layers: Sequence[int | str] | None) -> tuple[int, ...]:
    """Returns the places of layers in a model's maps.

    Args:
        model: under attack.
        layers: labels, or numbers from 1, or from the end if negative; None: all.

    Raises:
        SettingsError: there is no such layer.
    """
    labels = [point.label for point in model.maps]
    count = len(labels)
    if layers is None:
        return tuple(range(count))
    known: dict[int | str, int] = {label: place for place, label in enumerate(labels)}
    known |= {number: number - 1 for number in range(1, count + 1)}
    known |= {-number: count - number for number in range(1, count + 1)}
    strange = [layer for layer in layers if layer not in known]
    if strange:
        raise SettingsError(
            f"layers: wanted some of {', '.join(labels)}, or numbers from 1 to {count}, got "
            f"{strange[0]!r}"
        )
    return tuple(sorted({known[layer] for layer in layers}))


# (logits, drift) of the smoothed network -> a number an image, which rises.
Objective = Callable[[Logits, PerImage], PerImage]
# (the network's own logits of some images, which of the micro-batch) -> whether each counts.
Judge = Callable[[Logits, Tensor], Mask]


class Settings(Section):
    """Settings of attacks on maps."""

    eps: Share
    step: Share
    steps: Count
    beta: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    layers: Annotated[list[int | str], Field(min_length=1)] | None


@dataclass(frozen=True)
class Walks:
    """Walks on a micro-batch, all with the same steps.

    model: under attack.
    clean: pixels.
    labels: that an attack leads away from.
    limits: of the changes.
    draw: uniform, within the limits, different for each image.
    places: of the layers that are watched.
    step: size of a step, as a share of the limits.
    steps: their number.
    beta: of softplus, at the first and at the last step; it rises by equal factors.
    """

    model: Model
    clean: Pixels
    labels: Labels
    limits: Limits
    draw: Pixels
    places: tuple[int, ...]
    step: float
    steps: int
    beta: Sequence[float]

    @cached_property
    def outputs(self) -> Logits:
        """The network's own logits of the clean images."""
        with torch.no_grad():
            return self.model(self.clean)

    def watch(self, *, follows: bool) -> Watch:
        """Returns the watch of the clean images' maps of their top classes.

        Later maps explain the same classes or, if it `follows`, the top classes at the time.
        """
        classes = self.outputs.argmax(1)
        _, maps = explained(self.model, self.clean, classes, self.places)
        return Watch(maps, self.places, None if follows else classes)

    def walk(
        self, watch: Watch, objective: Objective, judge: Judge, *, sign: int, start: Pixels
    ) -> tuple[Pixels, PerImage, PerImage]:
        """Returns the best changes on a walk up an objective, and how well they do.

        The best is, of the changes that count, the one with the largest or smallest drift on the
        smoothed network; its drift is then measured on the network as it is.

        Args:
            watch: of maps.
            objective: to climb.
            judge: asked of the smoothed network, and then of the network as it is, for an image
                and for its 8-bit version; all must agree.
            sign: 1 for the largest drift, -1 for the smallest.
            start: the first changes.

        Returns:
            Changes (the last where none counts), their drift (NaN where none counts), and the
            forward passes of each image.

        Raises:
            SpoiltError: a gradient is not finite; the message names the image.
        """
        change = self.limits.project(self.clean, start)
        best, height = change, torch.full((len(change),), -torch.inf)
        passes = torch.zeros(len(change), dtype=torch.int64)
        for step, beta in enumerate(np.geomspace(self.beta[0], self.beta[1], self.steps + 1)):
            current = (self.clean + change).requires_grad_()
            logits, drift = watch.drift(self.model, current, float(beta))
            worth = sign * drift.detach()
            rises = (worth > height) & judge(
                logits.detach(), torch.ones_like(passes, dtype=torch.bool)
            )
            passes += 1 + 2 * rises
            counts = self._count(current.detach(), judge, rises)
            best = torch.where(counts.view(-1, 1, 1, 1), change, best)
            height = torch.where(counts, worth, height)
            if step < self.steps:
                (gradient,) = torch.autograd.grad(objective(logits, drift).sum(), current)
                _refuse_spoilt(gradient)
                move = self.limits.step(gradient, self.step)
                change = self.limits.project(self.clean, change + move)
        there = height > -torch.inf
        best = torch.where(there.view(-1, 1, 1, 1), best, change)
        _, drift = watch.drift(self.model, self.clean + best)
        return best, torch.where(there, drift, torch.nan), passes + 1

    def _count(self, pixels: Pixels, judge: Judge, rows: Mask) -> Mask:
        counts = rows.clone()
        if rows.any():
            both = torch.cat([pixels[rows], pixels[rows].mul(255).round().div(255)])
            with torch.no_grad():
                plain, rounded = self.model(both).chunk(2)
            counts[rows] = judge(plain, rows) & judge(rounded, rows)
        return counts


def _refuse_spoilt(gradient: Pixels) -> None:
    spoilt = (~gradient.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if spoilt:
        raise SpoiltError(f"the derivative of the maps is not finite, for image {spoilt[0]}")


def attacked(
    attack: Callable[[Walks], tuple[Pixels, PerImage]],
    model: Model,
    pixels: Pixels,
    labels: Labels,
    generators: Sequence[np.random.Generator],
    limits: Limits | None,
    *,
    eps: float,
    layers: Sequence[int | str] | None,
    **steps: Any,
) -> Perturbation:
    """Returns the perturbations by an attack that walks, micro-batch by micro-batch.

    Args:
        attack: walks on a micro-batch -> changes, and forward passes of each image.
        model: under attack.
        pixels: in [0, 1].
        labels: that the attack leads away from.
        generators: one for each image.
        limits: of each image; None: `eps`.
        eps: largest change of a pixel value.
        layers: as of `places_of`.
        steps: `step`, `steps` and `beta` of `Walks`.

    Raises:
        SettingsError: there is no such layer, or a rectifier has no smooth form.
        SpoiltError: a gradient is not finite.
    """
    smoothing.check(model.watched.calls)
    places = places_of(model, layers)
    limits = limits or Limits(torch.full((len(pixels),), eps))
    changes: list[Pixels] = []
    passes: list[PerImage] = []
    first = 0
    for batch, rows in model.batches(pixels):
        own = slice(first, first + rows)
        first += rows
        part = limits.of(own, len(batch))
        draw = padded(part.draw(batch.shape[1:], generators[own]), len(batch))
        walks = Walks(model, batch, padded(labels[own], len(batch)), part, draw, places, **steps)
        change, count = attack(walks)
        changes.append(change[:rows])
        passes.append(count[:rows])
    return Perturbation(torch.cat(changes), torch.cat(passes))

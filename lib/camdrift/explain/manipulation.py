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
from torch.nn import attention
from torch.nn import functional as F

from camdrift.explain.methods import grad_cam
from camdrift.models import gradients, smoothing
from camdrift.models.model import Model, padded
from camdrift.models.tensors import Heatmaps, Labels, Logits, Mask, PerImage, Pixels
from camdrift.perturbations.limits import Limits
from camdrift.perturbations.perturbation import Perturbation, SpoiltError
from camdrift.settings import SettingsError
from camdrift.settings.section import Count, Positive, Section, Share

Layers = tuple[Tensor, ...]  # maps, one tensor (n, h, w) a layer


@dataclass(frozen=True)
class Watch:
    """The maps of a micro-batch that are watched, and those that they are compared with.

    before: by layer, (n, h, w).
    places: of the layers in the model's maps.
    classes: that every map explains, (n,); None: each image's top class but for `labels`, which is
        its top class as soon as that is another.
    labels: classes of the clean images, (n,).
    emptied: the cosine of a map that has become empty.
    """

    before: Layers
    places: tuple[int, ...]
    classes: Labels | None
    labels: Labels
    emptied: float

    def drift(
        self, model: Model, batch: Pixels, beta: float | None = None
    ) -> tuple[Logits, PerImage]:
        """Returns logits and each image's drift: 1 minus the cosine, the mean over the layers.

        A layer whose map was empty before is left out; without any layer the drift is 0.

        Args:
            model: under attack.
            batch: a micro-batch of pixels.
            beta: of the smoothed network, whose drift has gradients with respect to the pixels;
                None: of the network as it is, without gradients.
        """
        logits, maps = explained(model, batch, self._aims, self.places, beta=beta)
        total = count = torch.zeros(len(batch), device=batch.device)
        for now, before in zip(maps, self.before, strict=True):
            there = before.flatten(1).amax(1) > 0
            drift = 1 - _cosine(now, before, emptied=self.emptied)
            total, count = total + torch.where(there, drift, 0.0), count + there
        return logits, total / count.clamp_min(1)

    def _aims(self, logits: Logits) -> Labels:
        if self.classes is not None:
            return self.classes
        return logits.scatter(1, self.labels[:, None], -torch.inf).argmax(1)


def explained(
    model: Model,
    batch: Pixels,
    aims: Callable[[Logits], Labels],
    places: Sequence[int],
    *,
    beta: float | None = None,
) -> tuple[Logits, Layers]:
    """Returns the logits of a micro-batch, and its Grad-CAMs at some layers.

    Args:
        model: under attack.
        batch: a micro-batch of pixels.
        aims: logits -> the classes that maps explain.
        places: of the layers.
        beta: as in `Watch.drift`.
    """
    graph = beta is not None
    if beta is None:
        logits, tensors = model.probes(batch)
    else:
        # The other kernels of attention have one derivative.
        twice = attention.sdpa_kernel(attention.SDPBackend.MATH)
        with gradients.ConstantConvs(), smoothing.Smooth(beta), twice:
            logits, tensors = model.activations(batch)
    watched = [tensors[place] for place in places]
    score = logits.gather(1, aims(logits)[:, None]).sum()
    slopes = torch.autograd.grad(
        score, watched, create_graph=graph, allow_unused=True, materialize_grads=True
    )
    pairs = zip(watched, slopes, strict=True)
    maps = tuple(grad_cam.maps(a if graph else a.detach(), g).to(logits.device) for a, g in pairs)
    return (logits if graph else logits.detach()), maps


def _cosine(maps: Heatmaps, before: Heatmaps, *, emptied: float) -> PerImage:
    """Returns the cosine of each pair of maps, `emptied` where one of them is empty."""
    flat, other = maps.flatten(1), before.flatten(1)
    there = (flat.detach().amax(1) > 0) & (other.amax(1) > 0)
    # The norm of zeros has no gradient, and the squares of the smallest numbers are zero.
    safe, other = (
        torch.where(there[:, None], each / each.detach().amax(1, keepdim=True), 1.0)
        for each in (flat, other)
    )
    return torch.where(there, F.cosine_similarity(safe, other), emptied)


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


# (logits, drift, own, counts) -> a number an image, which rises: logits and drift of the smoothed
# network, the network's own logits, and whether an image counts.
Objective = Callable[[Logits, PerImage, Logits, Mask], PerImage]
# (logits of some images, which of the micro-batch) -> whether each counts.
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
    first: the place of the first image among all.
    limits: of the changes.
    draw: uniform in the box of pixel values, different for each image.
    places: of the layers that are watched.
    step: size of a step, as a share of the limits.
    steps: their number.
    beta: of softplus, at the first and at the last step; it rises by equal factors.
    """

    model: Model
    clean: Pixels
    labels: Labels
    first: int
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

    def watch(
        self, *, emptied: float, follows: bool = False, targets: Pixels | None = None
    ) -> Watch:
        """Returns the watch of the clean images' maps of their top classes.

        Args:
            emptied: the cosine of a map that becomes empty: the one that does the attack no good,
                since an empty map shows.
            follows: whether later maps explain the top class at the time, and not the clean one.
            targets: images to whose maps later ones are compared, those of their top classes; None:
                the clean images.
        """
        classes = self.outputs.argmax(1)
        images = self.clean if targets is None else targets
        _, maps = explained(self.model, images, lambda logits: logits.argmax(1), self.places)
        return Watch(maps, self.places, None if follows else classes, self.labels, emptied)

    def walk(
        self, watch: Watch, objective: Objective, judge: Judge, *, sign: int, start: Pixels
    ) -> tuple[Pixels, PerImage, PerImage]:
        """Returns the best changes on a walk up an objective, and how well they do.

        The start and the second half of the walk, where beta is large, are looked at on the network
        as it is: the best is, of the changes that count, the one with the largest or the smallest
        drift there. The first half leads the way on the smoothed network alone.

        Args:
            watch: of maps.
            objective: to climb.
            judge: asked of an image and of its 8-bit version; both must count.
            sign: 1 for the largest drift, -1 for the smallest.
            start: the first changes.

        Returns:
            Changes (the last where none counts), their drift (NaN where none counts), and the
            forward passes of each image.

        Raises:
            SpoiltError: a gradient is not finite; the message names the image.
        """
        change = self.limits.project(self.clean, start)
        best, height = change, torch.full_like(change[:, 0, 0, 0], -torch.inf)
        passes = torch.zeros(len(change), dtype=torch.int64)
        for step, beta in enumerate(np.geomspace(self.beta[0], self.beta[1], self.steps + 1)):
            current = self.clean + change
            own = counts = None
            if step == 0 or 2 * step >= self.steps:
                own, drift = watch.drift(self.model, current)
                counts, judged = self._count(current, own, judge)
                passes += 1 + judged
                better = counts & (sign * drift > height)
                best = torch.where(better.view(-1, 1, 1, 1), change, best)
                height = torch.where(better, sign * drift, height)
            if step == self.steps:
                break
            current.requires_grad_()
            logits, drift = watch.drift(self.model, current, float(beta))
            passes += 1
            if own is None or counts is None:
                own = logits.detach()
                counts = judge(own, torch.ones(len(own), dtype=torch.bool))
            rising = objective(logits, drift, own, counts).sum()
            (gradient,) = torch.autograd.grad(rising, current)
            self._refuse_spoilt(gradient)
            move = self.limits.step(gradient, self.step)
            change = self.limits.project(self.clean, change + move)
        there = height > -torch.inf
        best = torch.where(there.view(-1, 1, 1, 1), best, change)
        return best, torch.where(there, sign * height, torch.nan), passes

    def _count(self, pixels: Pixels, own: Logits, judge: Judge) -> tuple[Mask, Mask]:
        """Returns which images count, also in 8 bit, and which were called in 8 bit."""
        rows = judge(own, torch.ones(len(own), dtype=torch.bool))
        counts = rows.clone()
        if rows.any():
            with torch.no_grad():
                rounded = self.model(pixels[rows].mul(255).round().div(255))
            counts[rows] = judge(rounded, rows)
        return counts, rows

    def _refuse_spoilt(self, gradient: Pixels) -> None:
        spoilt = (~gradient.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if spoilt:
            raise SpoiltError(
                f"the derivative of the maps is not finite, for image {self.first + spoilt[0]}"
            )


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
        aims = padded(labels[own], len(batch))
        walks = Walks(model, batch, aims, own.start, part, draw, places, **steps)
        change, count = attack(walks)
        changes.append(change[:rows])
        passes.append(count[:rows] + 2)  # the clean image's outputs, and its maps
    return Perturbation(torch.cat(changes), torch.cat(passes))

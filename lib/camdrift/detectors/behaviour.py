"""Behaviour deviation: the distance of an image's map from that of the image cleaned by PCA.

Tan et al. 2023, "NoiseCAM", section III-D. Steps 1-4: clean the image, take the difference
for noise, draw noisy copies of the cleaned image that are statistically similar, and compare the
drift of the image's map with the distribution of the copies' drift. Step 5 is the decision, for
which there are three readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field

from camdrift.detectors.detector import SENSITIVE, Detector
from camdrift.settings.detection import place
from camdrift.settings.section import Section
from camdrift.storage import arrays

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Activations, Heatmaps, Logits, PerImage, Pixels

RULES = ("median", "quantile", "deviations")
NAMES = tuple(f"behaviour_{rule}" for rule in RULES)
LAYERS = ("probe",)
STREAM = ""  # shared with `chance`, which draws first
ONE_SURROGATE = True


def _is_probe(value: object) -> object:
    if value == SENSITIVE or (type(value) is int and value != 0):
        return value
    raise ValueError(
        f"wanted '{SENSITIVE}', or a layer counted from 1, or from the end, got {repr(value)[:80]}"
    )


class Settings(Section):
    """The share of variance that cleaning keeps, the number of copies, and the layer of the map.

    variance: share of its variance that a cleaned image keeps.
    copies: noisy copies of the cleaned image; the paper asks for 50 or more.
    probe: the layer, counted from 1, or from the end if negative; 'sensitive' for the most
        sensitive one, see `camdrift.evaluation.sensitivity`.
    """

    variance: Annotated[float, Field(gt=0, lt=1)]
    copies: Annotated[int, Field(ge=2)]
    probe: Annotated[int | str, BeforeValidator(_is_probe)]


def copies(
    pixels: Pixels, clean: Pixels, generators: Sequence[np.random.Generator], *, count: int
) -> Iterator[Tensor]:
    """Yields `count` noisy copies (c, h, w) of each cleaned image, image by image.

    The noise is normal, with the mean and standard deviation of the difference between the image
    and the cleaned image (renkhoff2022, equation 2). Values are not clipped.
    """
    import torch

    for image, base, generator in zip(pixels, clean, generators, strict=True):
        noise = (image - base).double()
        mean, spread = float(noise.mean()), float(noise.std(correction=0))
        for _ in range(count):
            # In place and in one thread: the array is too small to share among threads.
            draw = generator.standard_normal(tuple(base.shape), dtype=np.float32)
            draw *= np.float32(spread)
            draw += np.float32(mean)
            draw += base.numpy()
            yield torch.from_numpy(draw)


def maps(
    model: Model,
    probe: Callable[[Pixels], tuple[Logits, Activations]],
    images: Iterator[Tensor],
) -> Heatmaps:
    """Returns the Grad-CAM of a stream of images, each for its own top class.

    Each image costs a forward pass, and a backward pass to the layer of the map; one micro-batch
    of the stream is in memory at a time.
    """
    import torch

    from camdrift.explain.methods import grad_cam
    from camdrift.models.logits import top_logit

    parts = []
    while group := list(islice(images, model.micro_batch)):
        ((batch, rows),) = model.batches(torch.stack(group))
        logits, activations = probe(batch)
        (gradients,) = torch.autograd.grad(top_logit(logits).sum(), activations)
        heat = grad_cam.maps(activations.detach(), gradients)[:rows]
        parts.append(heat.to(batch.device))
    return torch.cat(parts)


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return settings.copies + 2


def _layer(settings: Settings) -> int:
    if isinstance(settings.probe, str):
        raise TypeError("the most sensitive layer is not known here: see `families.with_layer`")
    return settings.probe


def measure(images: Images, settings: Settings) -> Columns:
    """Returns the behaviour of each image.

    similarity: of the image's map to that of the cleaned image, in [0, 1].
    copies_median, copies_quantile, copies_mean, copies_std: of the copies' similarity to it; the
        quantile is the 5 % one.
    copies_below: share of copies that are no more similar than the image.
    """
    from camdrift.features.cleaning import rebuild
    from camdrift.features.comparison import similarity

    pixels, count = images.pixels, settings.copies
    clean = rebuild(pixels, variance=settings.variance)
    probe = images.model.probe(place(_layer(settings)))

    def stream() -> Iterator[Tensor]:
        yield from clean
        yield from pixels
        yield from copies(pixels, clean, images.generators, count=count)

    heat = maps(images.model, probe, stream())
    n = len(pixels)
    base, own, rest = heat[:n], heat[n : 2 * n], heat[2 * n :].unflatten(0, (n, count))
    own_similarity = similarity(own, base)
    copy_similarity = similarity(rest, base[:, None]).double()
    return {
        "similarity": own_similarity.numpy(),
        "copies_median": copy_similarity.quantile(0.5, dim=1).numpy(),
        "copies_quantile": copy_similarity.quantile(0.05, dim=1).numpy(),
        "copies_mean": copy_similarity.mean(1).numpy(),
        "copies_std": copy_similarity.std(1, correction=0).numpy(),
        "copies_below": (copy_similarity <= own_similarity[:, None]).double().mean(1).numpy(),
    }


class BehaviourDeviation(Detector):
    """tan2023, section III-D, step 5: the image's map drifts further than its noisy copies'.

    Args:
        rule: the limit, taken from the copies' similarities, below which an image is called
            adversarial: 'median' (the paper's), 'quantile' (5 %) or 'deviations' (mean minus two
            standard deviations).
    """

    own_rule = True

    def __init__(self, rule: str = "median") -> None:
        self.rule = rule

    def score_samples(self, features: pd.DataFrame) -> arrays.PerImage:
        """Returns the rule's limit minus the similarity."""
        limit = {
            "median": features["copies_median"],
            "quantile": features["copies_quantile"],
            "deviations": features["copies_mean"] - 2 * features["copies_std"],
        }[self.rule]
        return (limit - features["similarity"]).to_numpy(dtype=float)

    def predict(self, features: pd.DataFrame) -> arrays.Mask:
        """Returns whether the similarity is below the rule's limit."""
        return self.score_samples(features) > 0


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the rules by their names in tables."""
    return {name: BehaviourDeviation(rule) for name, rule in zip(NAMES, RULES, strict=True)}


def surrogate(detector: Detector, model: Model, settings: Settings) -> Objective:
    """Returns the drift of the map from that of the cleaned image; the copies are ignored.

    The gradient ignores that the principal components depend on the image.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    from camdrift.explain.methods import grad_cam
    from camdrift.features.cleaning import rebuild
    from camdrift.models.logits import top_logit

    def probe_map(batch: Pixels) -> tuple[Logits, Heatmaps]:
        logits, activations = model.activations(batch)
        tensor = activations[place(_layer(settings))]
        (gradient,) = torch.autograd.grad(top_logit(logits).sum(), tensor, create_graph=True)
        return logits, grad_cam.maps(tensor, gradient)

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        with torch.no_grad():
            removed = batch - rebuild(batch, variance=settings.variance)
        (logits, own), (_, base) = probe_map(batch), probe_map(batch - removed)
        alike = cosine_similarity(own.flatten(1), base.flatten(1), dim=1)
        return logits, 1 - alike.to(batch.device)

    return score

"""Attacks on detectors of a cell's test images, and noise of the size of each."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from camdrift.detectors.detector import Detector
from camdrift.detectors.families import Family, families
from camdrift.evaluation import adaptive, evaluation, experiment, measuring, square
from camdrift.evaluation.evaluation import NOISE_OF
from camdrift.evaluation.experiment import Part
from camdrift.features.images import Objective
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Pixels
from camdrift.perturbations import changes, noise
from camdrift.pipeline import randomness
from camdrift.storage import ADAPTIVE, CLEAN, GRADIENT_FREE, NOISE, NON_ADAPTIVE, Seen, arrays


def adapt(model: Model, part: Part, places: slice, measurements: Iterable[Seen]) -> Seen:
    """Returns features of some test images under non-adaptive, adaptive and gradient-free attacks.

    And under noise of the size of each, see `NOISE_OF`. Readings that share an adaptive attack
    share its rows. Rows of the adaptive attack and of its noise have a further column, `surrogate`,
    the number that the attack lowers.

    Args:
        model: the model under attack.
        part: the images that take part.
        places: indices of the images in the test split.
        measurements: of all images that take part; detectors are fitted on them.
    """
    settings = part.settings
    test_images = part.test_images.iloc[places]
    original = next(v for v in part.variants(test_images) if v.name == CLEAN)
    clean = torch.from_numpy(original.pixels())
    labels = torch.from_numpy(test_images["clean"].to_numpy(copy=True))
    rows = test_images.reset_index(drop=True)

    def attack(score: Objective | None) -> Tensor:
        budget = settings.adaptive.model_dump()
        return _stored(adaptive.perturb(model, clean, labels, score, **budget), part)

    def features_of(
        pixels: Tensor, arm: str, detectors: list[Family], name: str = "",
        score: Objective | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """Returns the features of attacked images, and of images under noise of their size."""
        generators = _generators(part, rows, NOISE_OF[arm], name)
        noisy = _stored(noise.beside(NOISE, clean, pixels - clean, generators), part)
        parts = []
        for changed, variant in ((pixels, arm), (noisy, NOISE_OF[arm])):
            own = (model, changed, clean, rows, variant, 1.0, detectors, part, name)
            features, _ = experiment.features(*own)
            if score is not None:
                features["surrogate"] = adaptive.values(model, changed, score)
            parts.append(features)
        return pd.concat(parts)

    detectors = families(settings)
    images = part.images.reset_index(drop=True)
    whole = experiment.join(list(measurements))
    fitted = evaluation.fit_detectors(whole, images, 1.0, detectors)
    non_adaptive = attack(None)
    parts = [features_of(non_adaptive, NON_ADAPTIVE, detectors)]
    for family in detectors:
        of_family = None
        for name in family.readings():
            if fitted[name].unfit:
                continue
            if family.has_surrogate and (of_family is None or not family.shares_surrogate):
                score = family.surrogate(fitted[name], model, part.reference)
                of_family = features_of(attack(score), ADAPTIVE, [family], name, score)
            if of_family is not None:
                parts.append(of_family.assign(against=name))
            if family.name in settings.gradient_free.detectors:
                own_score = partial(_score, model, part, rows, labels, family, name, fitted[name])
                pixels = square.perturb(
                    clean, non_adaptive, own_score, _generators(part, rows, GRADIENT_FREE, name),
                    eps=settings.adaptive.eps, queries=settings.gradient_free.queries,
                )  # fmt: skip
                parts.append(features_of(_stored(pixels, part), GRADIENT_FREE, [family], name))
    return Seen(pd.concat(parts, ignore_index=True), {})


def _stored(pixels: Pixels, part: Part) -> Pixels:
    return torch.from_numpy(changes.stored(pixels.numpy(), quantise=part.protocol.quantise))


def _generators(
    part: Part, rows: pd.DataFrame, variant: str, name: str, *key: int | str
) -> list[np.random.Generator]:
    whole: tuple[int | str, ...] = (part.seed, "detect", part.name, variant, name, *key)
    return [randomness.generator(*whole, int(image)) for image in rows["image"]]


def _score(
    model: Model, part: Part, rows: pd.DataFrame, labels: Labels, family: Family, name: str,
    detector: Detector, pixels: Pixels,
) -> arrays.PerImage:  # fmt: skip
    """Returns the fitted detector's own score of stored images, infinite without a flip.

    A detector with random numbers has the same ones at each call: the search lowers that one
    score, and the features of its result are measured with others.
    """

    def streams(stream: str) -> list[np.random.Generator]:
        return _generators(part, rows, GRADIENT_FREE, name, stream)

    features, _ = measuring.measure_images(
        model, _stored(pixels, part), streams, [family], part.reference
    )
    scores = detector.score_samples(features)
    flipped = features["prediction"].to_numpy() != labels.numpy()
    return np.where(flipped & np.isfinite(scores), scores, np.inf)

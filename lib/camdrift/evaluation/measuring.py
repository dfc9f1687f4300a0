"""Measuring: the detectors' features of images, each image separately."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from camdrift.detectors.families import Family
from camdrift.features.images import Images
from camdrift.features.reference import Reference
from camdrift.models.model import Model

Streams = Callable[[str], Sequence[np.random.Generator]]


def measure_images(
    model: Model,
    pixels: Tensor,
    streams: Streams,
    families: Sequence[Family],
    reference: Reference | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns the detectors' features, a row for each image, and the seconds of each detector.

    Columns: `prediction`, the top class, and those of each detector's file. Images are measured in
    micro-batches, so that memory does not grow with their number. Cheap detectors come first, and
    detectors of one stream draw in this order.

    Args:
        model: the model under attack.
        pixels: (n, c, h, w), in [0, 1].
        streams: the name of a random stream -> its generators, one for each image.
        families: the detectors.
        reference: the training images, for detectors that compare images with these.
    """
    parts = []
    cheap = sorted(families, key=lambda family: family.passes)
    seconds = {family.name: 0.0 for family in cheap}
    generators = {name: streams(name) for name in {family.stream for family in cheap}}
    for start in range(0, len(pixels), model.micro_batch):
        places = slice(start, start + model.micro_batch)
        images = Images(model, pixels[places], [], reference)
        columns = {"prediction": images.logits.argmax(1).numpy()}
        for family in cheap:
            start_time = time.perf_counter()
            columns |= family.measure(images.with_generators(generators[family.stream][places]))
            seconds[family.name] += time.perf_counter() - start_time
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True), seconds

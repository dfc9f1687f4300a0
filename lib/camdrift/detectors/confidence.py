"""Confidence: what the logits of an image, and of a simpler copy of it, say by themselves."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from camdrift.models.model import Model


def median(pixels: Tensor, *, size: int) -> Tensor:
    """Returns images filtered by the median of a window of `size` px, an odd number.

    Edges are repeated, so that images of any size have an outcome.
    """
    reach = size // 2
    padded = F.pad(pixels, (reach,) * 4, mode="replicate")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows.flatten(-2).median(dim=-1).values


def fewer_levels(pixels: Tensor, *, bits: int) -> Tensor:
    """Returns images at 2 ** bits levels."""
    steps = 2**bits - 1
    return pixels.mul(steps).round().div(steps)


def squeezed(pixels: Tensor, *, bits: int, window: int) -> list[Tensor]:
    """Returns the copies of feature squeezing: fewer levels, and the median filter."""
    return [fewer_levels(pixels, bits=bits), median(pixels, size=window)]


def measure(model: Model, pixels: Tensor, *, bits: int, window: int) -> dict[str, np.ndarray]:
    """Returns the confidence of each image: arrays (n,) by name.

    prediction: the top class.
    probability: of the top class (Hendrycks & Gimpel 2017).
    energy: -log of the sum of exp(logits) (Liu et al. 2020, equation 4, at temperature 1).
    squeezing: the largest L1 distance between the probabilities of the image and of a squeezed
        copy (Xu et al. 2018, section 5), in [0, 2].
    """
    with torch.no_grad():
        logits = model(pixels)
        chances = logits.softmax(1)
        others = [model(copy).softmax(1) for copy in squeezed(pixels, bits=bits, window=window)]
    distances = torch.stack([(chances - other).abs().sum(1) for other in others])
    return {
        "prediction": logits.argmax(1).numpy(),
        "probability": chances.amax(1).numpy(),
        "energy": -logits.logsumexp(1).numpy(),
        "squeezing": distances.amax(0).numpy(),
    }

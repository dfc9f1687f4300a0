"""Gradient-free attack on a detector: random squares that lower its score and keep the flip.

Square Attack (Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial
attack via random search", algorithms 1 and 2, L-infinity), with a detector's own score in place of
the classifier's margin. It begins at images whose class is flipped, and not at vertical stripes.

It checks an attack along gradients: one that this search beats followed gradients that are masked,
or a surrogate that is not the score (Tramer et al. 2020, "On Adaptive Attacks to Adversarial
Example Defenses", section 3).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from camdrift.models.tensors import Pixels
from camdrift.storage import arrays

# (images, number of the query) -> scores, infinite where the class is not flipped.
Judge = Callable[[Pixels, int], arrays.PerImage]

SHARE = 0.05  # of the image in the first square (section 4.1, L-infinity)
# Shares of the queries after which that of the square halves (section 3.3).
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def perturb(
    clean: Pixels,
    start: Pixels,
    judge: Judge,
    generators: Sequence[np.random.Generator],
    *,
    eps: float,
    queries: int,
) -> Pixels:
    """Returns attacked pixels, in [0, 1], whose scores are no higher than those at the start.

    A query moves the pixels of one square, of a random place, to the edges of the L-infinity ball,
    each channel to a random one of the two, and stays there where the score is lower. An image
    whose class is not flipped at the start stays as it is until a square flips it.

    Args:
        clean: in [0, 1].
        start: attacked pixels, within `eps` of clean ones.
        judge: the score to lower.
        generators: one for each image.
        eps: largest change of a pixel value.
        queries: looks at the score of an image, the first one at the start.
    """
    best = start.clone()
    lowest = judge(best, 0)
    channels, height, width = clean.shape[1:]
    for query in range(1, queries):
        sides = side(query / queries, height=height, width=width)
        moved = best.clone()
        for image, generator in enumerate(generators):
            top = generator.integers(height - sides + 1)
            left = generator.integers(width - sides + 1)
            signs = torch.from_numpy(generator.choice([-eps, eps], (channels, 1, 1))).to(clean)
            window = (image, slice(None), slice(top, top + sides), slice(left, left + sides))
            moved[window] = (clean[window] + signs).clamp(0, 1)
        scores = judge(moved, query)
        lower = scores < lowest
        best[torch.from_numpy(lower)] = moved[torch.from_numpy(lower)]
        lowest = np.where(lower, scores, lowest)
    return best


def side(done: float, *, height: int, width: int) -> int:
    """Returns the side of the square in px after a share of the queries, in [0, 1)."""
    share = SHARE / 2 ** sum(done > limit for limit in HALVINGS)
    return max(1, min(round(math.sqrt(share * height * width)), height, width))

"""Gradient-free attack on a detector: random squares that lower its score and keep the flip.

Square Attack (Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial
attack via random search", algorithms 1 and 2, L-infinity), with a detector's own score in place of
the classifier's margin. Departs: it begins at an attack's result, not at vertical stripes; and
moves that leave the score equal are kept, since some scores are counts.

It checks attacks along gradients (Tramer et al. 2020, "On Adaptive Attacks to Adversarial Example
Defenses"): one that the search beats had masked gradients, a surrogate unlike the score, or too few
steps. A search that does not win shows nothing.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from camdrift.models.tensors import Pixels
from camdrift.storage import arrays

Score = Callable[[Pixels], arrays.PerImage]  # infinite where the class is not flipped

SHARE = 0.3  # of the image in the first square, as the authors' code has it for hard images
# Shares of the search after which the square's area halves, as in the authors' code; the paper
# omits 0.05.
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def perturb(
    clean: Pixels,
    start: Pixels,
    score: Score,
    generators: Sequence[np.random.Generator],
    *,
    eps: float,
    queries: int,
) -> Pixels:
    """Returns attacked pixels, in [0, 1], whose scores are no higher than those at the start.

    Each query moves the pixels of one square, at a random place, to the edges of the L-infinity
    ball, each channel to a random one of the two. The move is kept unless it raises the score. An
    image whose class is not flipped at the start stays as it is until a square flips it.

    Args:
        clean: in [0, 1].
        start: attacked pixels, within `eps` of clean ones.
        score: to be lowered; equal for equal pixels.
        generators: one for each image.
        eps: largest change of a pixel value.
        queries: evaluations of an image's score, the first one at the start.
    """
    best = start.clone()
    lowest = score(best)
    for query in range(1, queries):
        moved = best.clone()
        length = side((query - 1) / (queries - 1), height=clean.shape[2], width=clean.shape[3])
        for image, generator in enumerate(generators):
            moved[image] = _move(clean[image], best[image], generator, eps=eps, side=length)
        scores = score(moved)
        kept = np.isfinite(scores) & (scores <= lowest)
        best[torch.from_numpy(kept)] = moved[torch.from_numpy(kept)]
        lowest = np.where(kept, scores, lowest)
    return best


def side(progress: float, *, height: int, width: int) -> int:
    """Returns the side of the square in px after a share of the search, in [0, 1)."""
    share = SHARE / 2 ** sum(progress > limit for limit in HALVINGS)
    return max(1, min(round(math.sqrt(share * height * width)), height, width))


def _move(
    clean: torch.Tensor, best: torch.Tensor, generator: np.random.Generator, *,
    eps: float, side: int,
) -> torch.Tensor:  # fmt: skip
    """Returns an image with one square moved; the signs are drawn anew if that changes nothing."""
    channels, height, width = clean.shape
    top = generator.integers(height - side + 1)
    left = generator.integers(width - side + 1)
    window = slice(None), slice(top, top + side), slice(left, left + side)
    moved = best.clone()
    for _ in range(10):  # a grey pixel may have one edge alone, at 0 or 1
        signs = torch.from_numpy(generator.choice([-eps, eps], (channels, 1, 1))).to(clean)
        moved[window] = (clean[window] + signs).clamp(0, 1)
        if (moved[window] - best[window]).abs().max() > eps / 100:
            break
    return moved

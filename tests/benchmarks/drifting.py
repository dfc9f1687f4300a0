"""Scores of drift against upsampling first, and against scikit-image pair by pair."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional as F

from camdrift.scores import comparison, cosine, ssim
from races import Race

SIZE, PAIRS = 224, 256
SIDES = (224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14)  # of VGG-16's conv layers


def races() -> Iterator[Race]:
    """Yields the races of the scores: all layers' maps, then those of one side at a time."""
    yield _cosine(SIDES, "VGG-16's 13 layers", 100.0, rounds=5)
    for side, target in ((14, 100.0), (28, 1.0), (56, 1.0), (112, 1.0), (224, 1.0)):
        yield _cosine((side,), str(side), target, rounds=20)
    for side, target in ((14, 15.0), (28, 1.0), (56, 1.0)):
        yield _ssim(side, target)


def drawn(side: int) -> np.ndarray:
    """Returns maps as scores get them: float32, each divided by its maximum; pairs are halves."""
    maps = np.random.default_rng(side).random((2 * PAIRS, side, side), dtype=np.float32)
    return maps / maps.max(axis=(1, 2), keepdims=True)


def scored(of: Callable[[np.ndarray, np.ndarray], np.ndarray], maps: np.ndarray) -> np.ndarray:
    """Returns a score of each pair, in chunks as the study computes it."""
    places = np.arange(2 * PAIRS)
    return comparison.score_by_chunk(of, maps, places[:PAIRS], places[PAIRS:])


def enlarged(heatmap: Tensor) -> Tensor:
    return F.interpolate(heatmap, SIZE, mode="bilinear", align_corners=False).flatten()


def _cosine(sides: tuple[int, ...], name: str, target: float, *, rounds: int) -> Race:
    """Theirs is at its best pair by pair, where both enlarged maps stay in a cache, in float32."""
    layers = [drawn(side) for side in sides]
    tensors = [torch.from_numpy(maps)[:, None, None].split(PAIRS) for maps in layers]
    of = partial(cosine.score, size=SIZE)

    def theirs() -> np.ndarray:
        pairs = ((enlarged(a), enlarged(b)) for ab in tensors for a, b in zip(*ab, strict=True))
        return torch.stack([F.cosine_similarity(*pair, dim=0) for pair in pairs]).numpy()

    return Race(
        f"Cosine of maps seen at {SIZE} px", "upsampling first, in torch, pair by pair",
        {"px": name, "pairs": PAIRS}, lambda: np.concatenate([scored(of, m) for m in layers]),
        theirs, partial(np.testing.assert_allclose, rtol=0, atol=2e-6), target, rounds,
    )  # fmt: skip


def _ssim(side: int, target: float) -> Race:
    maps = drawn(side)
    window = ssim.window(side)

    def theirs() -> np.ndarray:
        pairs = zip(*np.split(maps, 2), strict=True)
        return np.array([structural_similarity(*p, win_size=window, data_range=1) for p in pairs])

    return Race(
        "SSIM of maps at their own size", "scikit-image, pair by pair",
        {"px": side, "pairs": PAIRS}, lambda: scored(partial(ssim.score, size=side), maps), theirs,
        partial(np.testing.assert_allclose, rtol=0, atol=1e-6), target, rounds=20,
    )  # fmt: skip

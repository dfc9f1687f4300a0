"""One-pixel queries answered incrementally against whole forwards."""

from collections.abc import Iterator

import torch
from torch import Tensor

from camdrift.models import architectures
from camdrift.models.incremental import Incremental, painted
from camdrift.models.model import Model
from races import Race

QUERIES, IMAGES = 64, 2
HALVES = [0.5] * 3


def races() -> Iterator[Race]:
    """Yields the races of the one-pixel attack's queries, on a VGG-16 of full width."""
    yield _queries(64, "pooled", 1.5)
    for size, target in ((112, 2.5), (224, 6.0)):
        for head in ("pooled", "torchvision"):
            yield _queries(size, head, target)


def close(ours: Tensor, theirs: Tensor) -> None:
    """Rounding apart: at 224 px some convs add the same products in another order.

    Either way the logits are 2e-6 of the largest from those in float64, and as far from each other.
    """
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-6 * float(theirs.abs().max()))


def _queries(size: int, head: str, target: float) -> Race:
    """The clean images' tensors are made beforehand: a search asks thousands of times an image."""
    torch.manual_seed(0)
    net = architectures.build(
        architecture="vgg16", width=1.0, head=head, classes=1000, size=size, initialised=True
    )
    model = Model(net, mean=HALVES, std=HALVES, size=size, micro_batch=32)
    draws = torch.Generator().manual_seed(1)
    pixels = torch.rand(IMAGES, 3, size, size, generator=draws)
    images = torch.arange(QUERIES) % IMAGES
    places = torch.randint(0, size, (QUERIES, 1, 2), generator=draws)
    values = torch.rand(QUERIES, 1, 3, generator=draws)
    incremental = Incremental(model, pixels)
    changed = painted(pixels[images], places, values)

    @torch.no_grad()
    def full() -> Tensor:
        return model(changed)

    return Race(
        f"{QUERIES} one-pixel queries, VGG-16", "whole forwards, in batches of 32",
        {"px": size, "head": head}, lambda: incremental.logits(images, places, values), full,
        close, target, rounds=3,
    )  # fmt: skip

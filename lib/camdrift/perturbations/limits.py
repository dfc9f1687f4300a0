"""Limits: the largest change of each image, and the steps that stay within it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from camdrift import storage
from camdrift.models.model import padded
from camdrift.models.tensors import PerImage, Pixels
from camdrift.settings import Cell

SLACK = 1 - 1e-5  # of the largest change, for the rounding of sums


@dataclass(frozen=True)
class Limits:
    """The largest change of each of n images, after clipping to [0, 1].

    linf: of a pixel value, (n,).
    l2: of the L2 norm, (n,); None: any.
    """

    linf: PerImage
    l2: PerImage | None = None

    def project(self, clean: Pixels, change: Pixels) -> Pixels:
        """Returns changes within the limits that leave pixels in [0, 1].

        Values are clipped first; then a change that is too large is made smaller as a whole.
        """
        most = self.linf.view(-1, 1, 1, 1) * SLACK
        change = (clean + change.clamp(-most, most)).clamp(0, 1) - clean
        if self.l2 is None:
            return change
        norm, most = change.flatten(1).norm(dim=1), self.l2 * SLACK
        return change * torch.where(norm > most, most / norm, 1.0).view(-1, 1, 1, 1)

    def step(self, gradient: Pixels, share: float | PerImage) -> Pixels:
        """Returns steps up a gradient, as large as a share of the limits.

        They follow the gradient itself where the L2 norm is limited, else its sign.
        """
        if self.l2 is None:
            return (share * self.linf).view(-1, 1, 1, 1) * gradient.sign()
        norm = gradient.flatten(1).norm(dim=1)
        size = torch.where(norm > 0, share * self.l2 / norm, 0.0)
        return size.view(-1, 1, 1, 1) * gradient

    def draw(self, shape: Sequence[int], generators: Sequence[np.random.Generator]) -> Pixels:
        """Returns a uniform draw of `shape` in the box of pixel values, for each generator."""
        draws = np.stack([generator.uniform(-1, 1, tuple(shape)) for generator in generators])
        return torch.from_numpy(draws).float() * self.linf[: len(draws)].view(-1, 1, 1, 1)

    def of(self, places: slice | Tensor, count: int | None = None) -> "Limits":
        """Returns the limits of some images, those of the last repeated up to `count`."""
        linf, l2 = self.linf[places], None if self.l2 is None else self.l2[places]
        count = count or len(linf)
        return Limits(padded(linf, count), None if l2 is None else padded(l2, count))


def within(cell: Cell, images: pd.Series) -> Limits | None:
    """Returns the size, on each of some images, of the attack that limits that of a cell.

    `images` are numbers in the set. None where no other attack limits the cell's.
    """
    if cell.limiting is None:
        return None
    other = storage.read(storage.Attacked, storage.DATA / cell.within)
    sizes = other.images.set_index("image").loc[images]
    return Limits(*(torch.tensor(sizes[name].to_numpy()).float() for name in ("linf", "l2")))

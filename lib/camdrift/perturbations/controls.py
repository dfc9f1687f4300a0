"""Controls: an attack's own perturbation, rearranged, so that one property alone is kept."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from camdrift.models.tensors import Pixels
from camdrift.perturbations.size import l2, scale_to

# (pixels, perturbation, the image's generator) -> rearranged perturbation, each (c, h, w).
Control = Callable[[Tensor, Tensor, np.random.Generator], Tensor]


def negated(clean: Tensor, perturbation: Tensor, generator: np.random.Generator) -> Tensor:
    """Returns the perturbation with every sign flipped: the same structure, the opposite way."""
    return -perturbation


def sign_shuffled(clean: Tensor, perturbation: Tensor, generator: np.random.Generator) -> Tensor:
    """Returns the perturbation with its signs shuffled: each value keeps its size."""
    signs = perturbation.sign().flatten()
    moved = signs.nonzero().flatten()
    signs[moved] = signs[moved[torch.from_numpy(generator.permutation(len(moved)))]]
    return perturbation.abs() * signs.view_as(perturbation)


def permuted(clean: Tensor, perturbation: Tensor, generator: np.random.Generator) -> Tensor:
    """Returns the perturbation with its pixels shuffled; channels stay together."""
    order = torch.from_numpy(generator.permutation(perturbation[0].numel()))
    return perturbation.flatten(1)[:, order].view_as(perturbation)


def phase_randomised(clean: Tensor, perturbation: Tensor, generator: np.random.Generator) -> Tensor:
    """Returns noise with the perturbation's power spectrum in each channel.

    Every phase of its Fourier transform is shifted by that of white noise, by the same in all
    channels, which keeps their cross-spectra and the mean (Theiler et al. 1992, Physica D 58,
    77-94, in two dimensions).
    """
    white = torch.fft.fft2(torch.from_numpy(generator.standard_normal(perturbation.shape[1:])))
    turn = torch.polar(torch.ones_like(white.real), white.angle())
    turn[0, 0] = 1
    return torch.fft.ifft2(torch.fft.fft2(perturbation.double()) * turn).real.float()


def displaced(clean: Tensor, perturbation: Tensor, generator: np.random.Generator) -> Tensor:
    """Returns the change that paints the attack's pixels, in its colours, at random places.

    For attacks on few pixels, such as one-pixel: does the colour matter, or the place? The places
    are drawn without replacement from all pixels.
    """
    colours = (clean + perturbation).flatten(1)
    painted = perturbation.flatten(1).any(0).nonzero().flatten()
    places = torch.from_numpy(generator.permutation(colours.shape[1])[: len(painted)])
    change = torch.zeros_like(colours)
    change[:, places] = colours[:, painted] - clean.flatten(1)[:, places]
    return change.view_as(perturbation)


CONTROLS: dict[str, Control] = {
    "negated": negated,
    "sign_shuffled": sign_shuffled,
    "permuted": permuted,
    "phase_randomised": phase_randomised,
    "displaced": displaced,
}
OWN_SIZE = ("displaced",)  # a colour that is kept cannot have another size


def check(names: Sequence[str]) -> list[str]:
    """Returns an error message for each name that is not a control."""
    there = ", ".join(CONTROLS)
    return [
        f"wanted a control, got '{name}'; there are: {there}"
        for name in names
        if name not in CONTROLS
    ]


def rearranged(
    kind: str, clean: Pixels, perturbation: Pixels, generators: Sequence[np.random.Generator]
) -> Pixels:
    """Returns a control of each perturbation, to add to the pixels and then clip.

    It has the L2 norm of the perturbation, both clipped to [0, 1], unless the control keeps
    colours (`OWN_SIZE`).

    Args:
        kind: a key of `CONTROLS`.
        clean: the images, in [0, 1].
        perturbation: of each image.
        generators: one for each image.
    """
    images = zip(clean, perturbation, generators, strict=True)
    turned = torch.stack([CONTROLS[kind](*image) for image in images])
    if kind in OWN_SIZE:
        return turned
    sizes = l2((clean + perturbation).clamp(0, 1) - clean)
    return scale_to(clean, turned, sizes[:, None]).float().view(-1, 1, 1, 1) * turned

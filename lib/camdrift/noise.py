"""Noise of the same size as an attack's perturbation, image by image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def gaussian(perturbation: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Returns a draw of N(mean, std) for each image, mean and std over its whole perturbation.

    renkhoff2022, section III-C: one mean and one standard deviation an image, not one a channel.
    """
    draws = []
    for change, generator in zip(perturbation, generators, strict=True):
        values = change.double()
        mean, spread = values.mean().item(), values.std(correction=0).item()
        draws.append(generator.normal(mean, spread, size=tuple(change.shape)).astype(np.float32))
    return torch.from_numpy(np.stack(draws))


def scale_to(clean: Tensor, base: Tensor, targets: Tensor) -> Tensor:
    """Returns the factors at which each image's clipped noise has the L2 sizes `targets`.

    Solves ||clip(x + f * base, 0, 1) - x|| = target for f (Rauber & Bethge 2020, arXiv
    2007.07677): a value moves by min(f |b|, room), so the squared size is, between the factors at
    which values saturate, quadratic in f. Noise that saturates everywhere before it is large
    enough stays at its largest; a base of zeros, or a target of 0, gives 0.

    Args:
        clean: (n, 3, h, w), pixels.
        base: (n, 3, h, w), the unscaled noise.
        targets: (n, rungs), L2 sizes.

    Returns:
        float64 (n, rungs).
    """
    clean, base = clean.double().flatten(1), base.double().flatten(1)
    step = base.abs()
    room = torch.where(base > 0, 1 - clean, clean) * (step > 0)
    turn = torch.where(step > 0, room / step, 0.0)  # the factor at which the value saturates
    turn, order = turn.sort(dim=1)
    room_squared, step_squared = room.gather(1, order).square(), step.gather(1, order).square()
    saturated = room_squared.cumsum(1)  # up to and with the value
    moving = step_squared.flip(1).cumsum(1).flip(1)  # from the value on
    reached = turn.square() * (moving - step_squared) + saturated
    wanted = targets.double().square()
    first = torch.searchsorted(reached, wanted).clamp_max(reached.shape[1] - 1)
    left = wanted - saturated.gather(1, first) + room_squared.gather(1, first)
    rate = moving.gather(1, first)
    factor = torch.where(rate > 0, (left.clamp_min(0) / rate).sqrt(), 0.0)
    return factor.minimum(turn[:, -1:])


def clipped(clean: Tensor, change: Tensor) -> Tensor:
    """Returns what is left of a change when the sum is clipped to [0, 1]."""
    return (clean + change).clamp(0, 1) - clean


def l2(change: Tensor) -> Tensor:
    """Returns the L2 norm over all channels and pixels of each image: (n,)."""
    return change.flatten(1).norm(dim=1)


def matched(
    clean: Tensor,
    perturbation: Tensor,
    base: Tensor,
    strengths: Sequence[float],
    *,
    scaling: str,
) -> pd.DataFrame:
    """Returns the scale of the noise at each strength, and what was measured of both.

    `scaling` 'after_clipping' gives the clipped noise the L2 norm of the clipped perturbation;
    'unclipped' is the paper's reading, the strength itself as the factor of both.

    Returns:
        A row for each (image, strength), images counted from 0: `scale`; `mean`, `std`, `l2`,
        `linf` of the clipped attack (`attack_…`) and the clipped noise (`noise_…`), in pixel
        values.
    """
    attacks = [clipped(clean, strength * perturbation) for strength in strengths]
    scales = torch.tensor([list(strengths)], dtype=torch.float64).expand(len(clean), -1)
    if scaling == "after_clipping":
        sizes = torch.stack([l2(attack.double()) for attack in attacks], dim=1)
        scales = scale_to(clean, base, sizes)
    tables = []
    for strength, attack, scale in zip(strengths, attacks, scales.T, strict=True):
        noise = clipped(clean, scale.float().view(-1, 1, 1, 1) * base)
        table = {"row": np.arange(len(clean)), "strength": float(strength), "scale": scale.numpy()}
        for name, change in (("attack", attack), ("noise", noise)):
            values = change.double().flatten(1)
            table[f"{name}_mean"] = values.mean(1).numpy()
            table[f"{name}_std"] = values.std(1, correction=0).numpy()
            table[f"{name}_l2"] = values.norm(dim=1).numpy()
            table[f"{name}_linf"] = values.abs().amax(1).numpy()
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)

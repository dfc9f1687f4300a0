"""Changes to an image's pixels: the attack or its noise at a strength, clipped and stored.

NumPy alone, so that the dashboard, which imports no torch, shows the images that the stages
explain.
"""

import numpy as np

from camdrift.settings import Protocol
from camdrift.storage.arrays import LastStep, PerImage, Pixels


def scaled_part(whole: Pixels, last_step: LastStep, *, applied: str) -> Pixels:
    """Returns the part of perturbations that a strength scales; the rest stays unscaled.

    An exact strength scales the whole perturbation; the public code of renkhoff2022 scales only the
    last step. `last_step` has no rows where the perturbation is one step.
    """
    return last_step if applied == "accumulating" and len(last_step) else whole


def attacked(
    clean: Pixels, whole: Pixels, last_step: LastStep, multiple: float, *, applied: str
) -> Pixels:
    """Returns the attack at a multiple (see `strengths.multipliers`), not clipped."""
    scaled = scaled_part(whole, last_step, applied=applied)
    if scaled is whole:
        return clean + multiple * whole
    return clean + (whole - scaled) + multiple * scaled


def like(perturbation: Pixels, draw: Pixels) -> Pixels:
    """Returns noise N(mean, std), with mean and std over each image's whole perturbation.

    renkhoff2022, section III-C: one mean and one standard deviation an image, not one a channel.
    `draw` is standard normal.
    """
    values = perturbation.astype(np.float64)
    axes = tuple(range(1, values.ndim))
    mean, spread = (f(values, axis=axes, keepdims=True) for f in (np.mean, np.std))
    return (mean + spread * draw).astype(np.float32)


def noise_base(whole: Pixels, last_step: LastStep, draw: Pixels, *, protocol: Protocol) -> Pixels:
    """Returns the noise that a scale multiplies.

    It resembles the whole perturbation or, as in the public code, the part that a strength scales.
    """
    if protocol.noise == "matched":
        return like(whole, draw)
    return like(scaled_part(whole, last_step, applied=protocol.strengths), draw)


def noisy(
    clean: Pixels,
    whole: Pixels,
    last_step: LastStep,
    base: Pixels,
    scale: PerImage,
    offset: float,
    *,
    protocol: Protocol,
) -> Pixels:
    """Returns the noise at a scale of its `base`, not clipped.

    Noise 'with_negated_attack' is added to the unscaled part of the attack and to `offset` (see
    `strengths.offsets`) times its scaled part, as in the public code.
    """
    factor = scale.astype(np.float32).reshape(-1, 1, 1, 1)
    if protocol.noise == "matched":
        return clean + factor * base
    scaled = scaled_part(whole, last_step, applied=protocol.strengths)
    return clean + (whole - scaled) + offset * scaled + factor * base


def stored(pixels: Pixels, *, quantise: str) -> Pixels:
    """Returns pixels clipped to [0, 1] and, unless 'none', at one of 256 levels.

    'floor' is the cast to uint8 of the public code: a value between two levels takes the lower.
    """
    clipped = pixels.clip(0, 1)
    if quantise == "none":
        return clipped
    levels = clipped * 255
    # A level may be slightly too small after float32; the published code works in grey levels, and
    # its cast loses none of them.
    return (np.round(levels) if quantise == "round" else np.floor(levels + 1e-4)) / 255

"""Changes to an image's pixels: the attack or its noise at a strength, clipped and stored."""

from torch import Tensor

from camdrift.settings import Protocol


def scaled_part(whole: Tensor, last_step: Tensor, *, applied: str) -> Tensor:
    """Returns the part of perturbations that a strength scales; the rest stays unscaled.

    An exact strength scales the whole perturbation; the public code of renkhoff2022 scales only the
    last step. `last_step` has no rows where the perturbation is one step.
    """
    return last_step if applied == "accumulating" and len(last_step) else whole


def attacked(
    clean: Tensor, whole: Tensor, last_step: Tensor, multiple: float, *, applied: str
) -> Tensor:
    """Returns the attack at a multiple (see `strengths.multipliers`), not clipped."""
    scaled = scaled_part(whole, last_step, applied=applied)
    if scaled is whole:
        return clean + multiple * whole
    return clean + (whole - scaled) + multiple * scaled


def like(perturbation: Tensor, draw: Tensor) -> Tensor:
    """Returns noise N(mean, std), with mean and std over each image's whole perturbation.

    renkhoff2022, section III-C: one mean and one standard deviation an image, not one a channel.
    `draw` is standard normal, of the perturbation's shape.
    """
    values = perturbation.double().flatten(1)
    mean, spread = values.mean(1), values.std(1, correction=0)
    return (mean.view(-1, 1, 1, 1) + spread.view(-1, 1, 1, 1) * draw.double()).float()


def noise_base(whole: Tensor, last_step: Tensor, draw: Tensor, *, protocol: Protocol) -> Tensor:
    """Returns the noise that a scale multiplies.

    It resembles the whole perturbation or, as in the public code, the part that a strength scales.
    """
    if protocol.noise == "matched":
        return like(whole, draw)
    return like(scaled_part(whole, last_step, applied=protocol.strengths), draw)


def noisy(
    clean: Tensor,
    whole: Tensor,
    last_step: Tensor,
    base: Tensor,
    scale: Tensor,
    offset: float,
    *,
    protocol: Protocol,
) -> Tensor:
    """Returns the noise at a scale (one an image) of its `base`, not clipped.

    Noise 'with_negated_attack' is added to the unscaled part of the attack and to `offset` (see
    `strengths.offsets`) times its scaled part, as in the public code.
    """
    factor = scale.float().view(-1, 1, 1, 1)
    if protocol.noise == "matched":
        return clean + factor * base
    scaled = scaled_part(whole, last_step, applied=protocol.strengths)
    return clean + (whole - scaled) + offset * scaled + factor * base


def stored(pixels: Tensor, *, quantise: str) -> Tensor:
    """Returns pixels clipped to [0, 1] and, unless 'none', at one of 256 levels.

    'floor' is the cast to uint8 of the public code: a value between two levels takes the lower.
    """
    clipped = pixels.clamp(0, 1)
    if quantise == "none":
        return clipped
    levels = clipped * 255
    # A level may be slightly too small after float32; the published code works in grey levels, and
    # its cast loses none of them.
    levels = levels.round() if quantise == "round" else (levels + 1e-4).floor()
    return levels / 255


def l2(change: Tensor) -> Tensor:
    """Returns the L2 norm over all channels and pixels of each image: (n,)."""
    return change.double().flatten(1).norm(dim=1)

"""Strengths, as the papers define them and as the public code applies them."""

from collections.abc import Sequence


def multipliers(strengths: Sequence[float], *, applied: str) -> list[float]:
    """Returns the multiple of the perturbation that each strength really applies.

    'exact': the strengths themselves. 'accumulating': the loop of renkhoff2022's public code, which
    at each strength subtracts the perturbation from the image and adds it back scaled, but
    continues from the scaled image and not from the adversarial one: c_j = c_(j-1) - 1 + s_j from
    c_0 = 1. 0.25, 0.5, 1, 2, 4 become 0.25, -0.25, -0.25, 0.75, 3.75.
    """
    if applied == "exact":
        return list(strengths)
    multiple, multiples = 1.0, []
    for strength in strengths:
        multiple += strength - 1
        multiples.append(multiple)
    return multiples


def offsets(strengths: Sequence[float]) -> list[float]:
    """Returns the multiple of the attack that remains in the public code's noisy images.

    The same loop subtracts the whole perturbation from the image of the previous strength:
    o_j = c_(j-1) - 1, which is 0, -0.75, -1.25, -1.25, -0.25 for 0.25, 0.5, 1, 2, 4.
    """
    multiples = multipliers(strengths, applied="accumulating")
    return [before - 1 for before in [1.0, *multiples[:-1]]]

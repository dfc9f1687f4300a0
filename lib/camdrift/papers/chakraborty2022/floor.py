"""The floor of accuracy: the eps at which networks have lost their lead over chance."""

from collections.abc import Sequence

import numpy as np

from camdrift.datasets import chance
from camdrift.papers.chakraborty2022.comparison import Comparison
from camdrift.storage import OWN_ATTACK

LEFT = 0.1  # of a network's lead over chance: with less left, it is at its floor


def can_lose(comparison: Comparison, kind: str) -> np.ndarray:
    """Returns whether networks are off their floor under an attack: bool (networks, eps).

    At the floor a network has lost its lead over chance but for a tenth: there, neither networks
    nor attacks can differ by much.
    """
    floor = chance.level(comparison.images["label"].to_numpy())
    lead = comparison.right(OWN_ATTACK, 0.0).mean(0)[:, None] - floor
    leads = [comparison.right(kind, eps).mean(0) - floor for eps in comparison.plan.eps]
    return (lead > 0) & (np.stack(leads, axis=1) > LEFT * lead)


def off_the_floor(comparison: Comparison, kind: str, networks: Sequence[int]) -> str:
    """Returns the eps at which networks are off their floor, in words."""
    names, off = list(comparison.networks()), can_lose(comparison, kind)
    by_eps: dict[tuple[bool, ...], list[str]] = {}
    for i in networks:
        by_eps.setdefault(tuple(off[i]), []).append(names[i])
    texts = []
    for at, together in by_eps.items():
        eps = [f"{eps:g}" for eps, here in zip(comparison.plan.eps, at, strict=True) if here]
        where = "every eps" if all(at) else f"eps {', '.join(eps)}" if eps else "no eps"
        texts.append(f"{', '.join(together)} at {where}")
    return f"off their floor of accuracy: {'; '.join(texts)}"

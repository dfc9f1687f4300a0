"""Random generators, one for each (seed, name, ...): no global state, no dependence on order."""

import hashlib
from collections.abc import Iterable

import numpy as np


def entropy(*key: int | str) -> int:
    """Returns a 63-bit integer that depends on every part of `key` and on nothing else.

    Two keys that differ in any part give unrelated integers, so a draw for one image or cell
    does not change when another image or cell is added.
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*key: int | str) -> np.random.Generator:
    """Returns a NumPy generator (PCG64) seeded by `entropy(*key)`."""
    return np.random.default_rng(entropy(*key))


def sample(names: Iterable[str], count: int | None, *key: int | str) -> np.ndarray:
    """Returns the places of `count` names, or of all of them for None, in ascending order.

    The draw depends on `key` and the names alone, not on their order; a smaller one is part of it.
    """
    order = np.argsort([entropy(*key, name) for name in names])
    return np.sort(order[:count])

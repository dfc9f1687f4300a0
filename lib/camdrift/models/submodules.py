"""Submodules of a network, those that it keeps in plain lists included."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn


def submodules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the network and its submodules once each, with their paths.

    Registered ones come first, as in `named_modules`; then those that PyTorch does not see, since
    they stand in plain lists, tuples and dicts, or in a module's `__dict__`.
    """
    registered = list(network.named_modules())
    visited = {id(module) for _, module in registered}
    yield from registered
    waiting = registered
    while waiting:
        path, module = waiting.pop()
        for name, value in vars(module).items():
            if name in USUAL or _is_plain(value):
                continue
            for place, part in _named(name, value):
                if id(part) not in visited:
                    visited.add(id(part))
                    hidden = f"{path}.{place}" if path else place, part
                    waiting.append(hidden)
                    yield hidden


USUAL = frozenset(vars(nn.Module()))


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Yields values, and those in lists, tuples and dicts among them in their place."""
    return (part for value in values for _, part in _walk("", value, set()))


SCALARS = {bool, int, float, str, type(None)}


def _is_plain(value: Any) -> bool:
    """Returns whether a value is a scalar, or a list or tuple of scalars."""
    if type(value) in (list, tuple):
        return all(type(part) in SCALARS for part in value)
    return type(value) in SCALARS


def _named(name: str, value: Any) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        for place, part in _walk(name, value, set()):
            if isinstance(part, nn.Module):
                yield place, part


def _walk(name: str, value: Any, visited: set[int]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, list | tuple | dict):
        yield name, value
    elif id(value) not in visited:  # a container may hold itself
        visited.add(id(value))
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from _walk(f"{name}.{key}", part, visited)

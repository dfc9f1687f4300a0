"""Outputs of networks: tensors in containers and objects of any depth."""

import copy
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

SEQUENCES = (tuple, list, set, frozenset, deque)
# Of these, attributes are no part of an output.
OPAQUE = (nn.Module, type, types.ModuleType, types.FunctionType, types.MethodType)


def tensors(output: Any) -> Iterator[Tensor]:
    """Yields the tensors in an output: in containers, dataclasses and attributes of objects."""
    return (tensor for _, tensor in named_tensors(output))


def named_tensors(output: Any) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    """Yields the tensors in an output, each with the entries and attributes that lead to it."""
    return _walk((), output, set())


def _walk(
    path: tuple[str | int, ...], value: Any, visited: set[int]
) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
        return
    if id(value) in visited:  # a container may hold itself
        return
    visited.add(id(value))
    for key, part in _parts(value):
        yield from _walk((*path, key), part, visited)


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, SEQUENCES):
        yield from enumerate(value)
    yield from attributes(value).items()


def attributes(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object; none of a tensor, a module or a function."""
    if isinstance(value, (Tensor, *OPAQUE)):
        return {}
    slots = (name for kind in type(value).__mro__ for name in _slots(kind))
    there = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return there | dict(getattr(value, "__dict__", {}))


def _slots(kind: type) -> list[str]:
    names = vars(kind).get("__slots__", ())
    return [name for name in ([names] if isinstance(names, str) else names) if name[:2] != "__"]


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns an output with other tensors, in copies of what holds them.

    What holds no tensor that changes is not copied.

    Args:
        output: of a network.
        change: returns a tensor in place of another, or that one.
    """
    return _mapped(output, change, {})


def _mapped(value: Any, change: Callable[[Tensor], Tensor], copies: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if id(value) in copies:
        return copies[id(value)]
    copies[id(value)] = value  # where a container holds itself
    parts = {key: _mapped(part, change, copies) for key, part in _entries(value)}
    own = attributes(value)
    others = {name: _mapped(part, change, copies) for name, part in own.items()}
    if all(parts[key] is part for key, part in _entries(value)) and all(
        others[name] is part for name, part in own.items()
    ):
        return value
    if isinstance(value, SEQUENCES):
        kind: Any = type(value)
        other = kind(*parts.values()) if hasattr(value, "_fields") else kind(parts.values())
    else:
        other = copy.copy(value)
        for key, part in parts.items():
            other[key] = part
    for name, part in others.items():
        object.__setattr__(other, name, part)  # also where it is frozen
    copies[id(value)] = other
    return other


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, SEQUENCES):
        yield from enumerate(value)


def entry(output: Any, path: str | int | Sequence[str | int]) -> Any:
    """Returns the entry of an output, or its attribute, that a path leads to; None without one.

    Args:
        output: of a network.
        path: a name, a place, or several of them in turn; 'head.logits' may stand for ('head',
            'logits').
    """
    if isinstance(path, str):
        whole = _entry(output, path)
        if whole is not None or "." not in path:
            return whole
        path = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in [path] if isinstance(path, int) else path:
        output = _entry(output, step)
    return output


def _entry(output: Any, step: str | int) -> Any:
    if isinstance(output, dict) and step in output:
        return output[step]
    if isinstance(step, int):
        there = isinstance(output, list | tuple) and -len(output) <= step < len(output)
        return output[step] if there else None
    return getattr(output, step, None)

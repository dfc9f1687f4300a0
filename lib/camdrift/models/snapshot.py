"""Snapshot of a network: tells whether it has changed since."""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Snapshot:
    """The modules, tensors and attributes of a network at one time.

    Tensors are known by identity and version. Writes through `.data`, and those of batch norm into
    its statistics, raise no version: `holds` therefore adds up the values of buffers and, where
    there is batch norm, those of its and the convs' weights, too. It does not see a change deep in
    an attribute that is neither a list, tuple, set nor dict.
    """

    def __init__(self, network: nn.Module) -> None:
        self._parts = [_reference(part) for part in _parts(network)]
        self._sums = _sums(network)

    def holds(self, network: nn.Module) -> bool:
        """Returns whether a network is as it was."""
        parts = list(_parts(network))
        return (
            len(parts) == len(self._parts)
            and all(map(_is_same, self._parts, parts))
            and torch.equal(_sums(network), self._sums)
        )


def _parts(network: nn.Module) -> Iterator[Any]:
    """Yields modules, their attributes, tensors and the versions of these."""
    for module in network.modules():
        yield module
        for name, value in vars(module).items():
            if name != "training":
                yield name
                yield from _flat(value)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield len(value)
        for key, part in value.items():
            yield key
            yield from _flat(part)
    elif isinstance(value, list | tuple | set | frozenset):
        yield len(value)
        for part in value:
            yield from _flat(part)
    else:
        yield value
        if isinstance(value, Tensor):
            yield 0 if value.is_inference() else value._version
            yield value.data_ptr()  # another after `.to` and `.half`


def _reference(value: Any) -> Any:
    """Returns what tells a value from others without keeping it alive."""
    if isinstance(value, PLAIN):
        return value
    try:
        return weakref.ref(value)
    except TypeError:
        return value


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(before, weakref.ref):
        return before() is now
    return type(before) is type(now) and (before is now or before == now)


def _sums(network: nn.Module) -> Tensor:
    """Returns the sums of all tensors whose values a prepared network holds as copies."""
    tensors = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    modules = list(network.modules())
    if any(isinstance(module, nn.BatchNorm2d) for module in modules):
        for module in modules:
            if isinstance(module, nn.BatchNorm2d | nn.Conv2d):
                tensors += module.parameters(recurse=False)
    with torch.no_grad():
        return torch.stack(
            [tensor.sum(dtype=torch.float32).cpu() for tensor in tensors] or [torch.zeros(())]
        )

"""Snapshot of a network: tells whether it has changed since."""

import weakref
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from camdrift.models.submodules import submodules

ROW = 1024
PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Snapshot:
    """The modules, tensors and attributes of a network at one time.

    Tensors are compared by identity and version counter. Writes through `.data`, and batch norm's
    updates of its statistics, do not increase that counter. `holds` therefore also compares sums,
    weighted by place, of all tensors that a prepared network holds as copies. It misses a change
    inside an attribute that is not a list, tuple, set or dict.
    """

    def __init__(self, network: nn.Module) -> None:
        modules = [module for _, module in submodules(network)]
        self._parts = [_reference(part) for part in _parts(modules)]
        self._sums = _sums(modules)

    def holds(self, network: nn.Module) -> bool:
        """Returns whether a network is as it was."""
        modules = [module for _, module in submodules(network)]
        parts = list(_parts(modules))
        return (
            len(parts) == len(self._parts)
            and all(map(_is_same, self._parts, parts))
            and torch.equal(_sums(modules), self._sums)
        )


def _parts(modules: list[nn.Module]) -> Iterator[Any]:
    """Yields modules, their attributes, tensors and the versions of these."""
    for module in modules:
        yield module
        for name, value in vars(module).items():
            if name != "training":
                yield name
                yield from _flat(value, set())


def _flat(value: Any, visited: set[int]) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple | set | frozenset):
        yield len(value)
        if not value or id(value) in visited:  # a container may hold itself
            return
        visited.add(id(value))
        if isinstance(value, dict):
            for key, part in value.items():
                yield key
                yield from _flat(part, visited)
        else:
            for part in value:
                yield from _flat(part, visited)
    else:
        yield value
        if isinstance(value, Tensor):
            yield 0 if value.is_inference() else value._version
            if value.layout == torch.strided:
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


def _sums(modules: list[nn.Module]) -> Tensor:
    """Returns a sum for each tensor that a prepared network holds as a copy, as bits.

    These are buffers, parameters of four dimensions, and those of batch norm with the convs before.
    Values are weighted by their places: shuffled ones have another sum.
    """
    tensors = []
    for module in modules:
        tensors += [buffer for buffer in module.buffers(recurse=False) if _is_plain(buffer)]
        whole = isinstance(module, nn.BatchNorm2d | nn.Conv2d)
        parameters = module.parameters(recurse=False)
        tensors += [p for p in parameters if _is_plain(p) and (whole or p.ndim == 4)]
    with torch.no_grad():
        sums = [_weighted_sum(tensor).cpu() for tensor in tensors]
    return torch.stack(sums).view(torch.int32) if sums else torch.zeros(0)


def _is_plain(tensor: Tensor) -> bool:
    numbers = tensor.is_floating_point() or tensor.is_complex()
    return tensor.layout == torch.strided and numbers


def _weighted_sum(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = real.detach().reshape(-1).float()
    whole = flat[: len(flat) // ROW * ROW].view(-1, ROW)
    weights = _weights(ROW, flat.device)
    rows = whole @ weights
    rest = flat[whole.numel() :]
    return (rows * _weights(len(rows), flat.device)).sum() + rest @ weights[: len(rest)]


@lru_cache(maxsize=64)
def _weights(count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, generator=generator).add_(0.5).to(device)

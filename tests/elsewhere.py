"""A device that is not the CPU, for machines without one: real values that pretend to lie there.

Tensors moved to `DEVICE` refuse to meet those of the CPU, as a GPU's do, and NumPy cannot read
them. What this cannot show is what a GPU computes.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = "meta"  # the one device that every PyTorch knows and that holds no values of its own
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
CHOOSE = (torch.ops.aten.index.Tensor,)  # of a tensor there, by places that may lie here


class There(torch.Tensor):
    """A tensor that says it lies on `DEVICE`; `here` holds its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "There":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype, device=DEVICE, requires_grad=here.requires_grad,
        )  # fmt: skip
        tensor.here = here
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"There({self.here})"


class Elsewhere(TorchDispatchMode):
    """Within it, tensors can be moved to `DEVICE` and made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


def _called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors: list[torch.Tensor] = []
    tree_map(lambda v: tensors.append(v) if isinstance(v, torch.Tensor) else None, (args, kwargs))
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    device = kwargs.get("device")
    if there and len(there) < len(tensors) and func not in MOVES:
        first = isinstance(tensors[0], There) and func in CHOOSE
        if not first and any(not isinstance(t, There) and t.ndim for t in tensors):
            raise RuntimeError(f"{func}: wanted all tensors on one device, got two")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    elsewhere = bool(there) if device is None else torch.device(device).type == DEVICE
    if func is MOVES[1]:
        elsewhere = isinstance(args[0], There)
    plain = tree_map(lambda v: v.here if isinstance(v, There) else v, (args, kwargs))
    result = func(*plain[0], **plain[1])
    if not elsewhere:
        return result
    same = {id(tensor.here): tensor for tensor in there}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, There):
            return value
        return same[id(value)] if id(value) in same else There(value)

    return tree_map(wrapped, result)

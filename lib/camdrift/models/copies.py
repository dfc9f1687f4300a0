"""Copies of networks that are explained, so that the networks themselves stay as they are."""

import copy
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camdrift.models.calls import UnwatchableError
from camdrift.models.submodules import leaves, submodules


def frozen(network: nn.Module, *, hooks: bool = False) -> nn.Module:
    """Returns a copy of a network in eval mode that shares its weights and requires no gradient.

    It has none of the network's hooks, except those before a forward, in which some modules compute
    their weights. It has its own buffers: a forward may write into them. It shares attributes that
    cannot be copied. Of `DataParallel`, `DistributedDataParallel` and the wrapper of
    `torch.compile`, the network inside is copied.

    Args:
        network: to copy; it is left as it is.
        hooks: whether the copy keeps the hooks after a forward.

    Raises:
        UnwatchableError: it is scripted or quantised, has lazy modules without weights, or a
            forward that would call the network itself and not the copy.
    """
    network = unwrapped(network)
    modules = [module for _, module in submodules(network)]
    weights = [weight for module in modules for weight in module.parameters(recurse=False)]
    if any(".quantized" in type(module).__module__ for module in modules):
        raise UnwatchableError(
            f"{type(network).__name__} has quantised modules, through which no gradient passes; "
            "wanted the network before it was quantised"
        )
    if any(isinstance(weight, nn.UninitializedParameter) for weight in weights):
        raise UnwatchableError(
            f"{type(network).__name__} has lazy modules without weights; wanted a network that was "
            "called once"
        )
    shared: dict[int, object] = {
        id(weight): nn.Parameter(
            weight.clone() if weight.is_inference() else weight.detach(), requires_grad=False
        )
        for weight in weights
    }
    # A forward may have left tensors with a history, which cannot be copied, on its modules.
    for module in modules:
        for value in leaves(vars(module).values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                shared[id(value)] = value.detach().clone()  # a forward may write into it
    try:
        copied = dict(shared)
        clone = copy.deepcopy(network, copied)
    except (RuntimeError, TypeError):
        copied = shared | _attributes_to_share(modules, shared)
        clone = copy.deepcopy(network, copied)
    for path, module in list(clone.named_modules()):
        if path and unwrapped(module) is not module:
            clone.set_submodule(path, unwrapped(module))
    for _, module in submodules(clone):
        module.training = False
        forward = vars(module).get("forward")
        if isinstance(forward, types.FunctionType):
            module.forward = _rebound(forward, copied)
        if not hooks:
            module._forward_hooks.clear()
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return clone.eval()


def _rebound(function: types.FunctionType, copied: dict[int, Any]) -> types.FunctionType:
    """Returns a function that was put in place of a forward, with copies of the modules it calls.

    Args:
        function: a plain function, to which a copy of its network is unknown.
        copied: by id of a module: its copy.

    Raises:
        UnwatchableError: it calls a module by a global name.
    """

    def own(value: Any) -> Any:
        is_module = isinstance(getattr(value, "__self__", value), nn.Module)
        return copy.deepcopy(value, copied) if is_module else value

    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if id(getattr(value, "__self__", value)) in copied and own(value) is not value:
            raise UnwatchableError(
                f"a forward was replaced by a function that calls the global '{name}', not the "
                "copy of it that is explained; wanted `network.forward = types.MethodType(function,"
                " network)`, with the network as the function's first argument"
            )
    cells = [types.CellType(own(cell.cell_contents)) for cell in function.__closure__ or ()]
    rebound = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        None if function.__defaults__ is None else tuple(map(own, function.__defaults__)),
        tuple(cells),
    )
    rebound.__kwdefaults__ = function.__kwdefaults__
    return rebound


def _attributes_to_share(
    modules: Sequence[nn.Module], memo: dict[int, object]
) -> dict[int, object]:
    """Returns the attributes of modules that cannot be copied, such as locks and files, by id."""
    attributes: dict[int, object] = {}
    copied = vars(nn.Module()).keys() - {"_forward_hooks"}
    for module in modules:
        for name in vars(module).keys() - copied:
            value = vars(module)[name]
            try:
                copy.deepcopy(value, dict(memo))
            except (RuntimeError, TypeError):
                attributes[id(value)] = value
    return attributes


WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(network: nn.Module) -> nn.Module:
    """Returns the network inside wrappers, itself if there are none.

    Raises:
        UnwatchableError: it is scripted or traced: its calls are not seen.
    """
    while True:
        if isinstance(network, WRAPPERS):
            network = network.module
        elif hasattr(network, "_orig_mod"):  # of torch.compile
            network = network._orig_mod  # type: ignore[assignment]
        else:
            break
    if isinstance(network, torch.jit.ScriptModule):
        raise UnwatchableError(
            f"{type(network).__name__} is scripted or traced, and its layers cannot be watched; "
            "wanted the network that it was made of"
        )
    return network

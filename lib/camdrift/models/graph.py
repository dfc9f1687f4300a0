"""Graph of a network by `torch.fx`: for relevance maps and incremental queries, which need one."""

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

from camdrift.settings import SettingsError

# In eval mode these return their input.
IDENTITIES = (nn.Identity, nn.modules.dropout._DropoutNd)
NOT_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
IN_PLACE = {"iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul"}
CONCATS = {torch.cat, torch.concat}
IDENTITY_FUNCTIONS = {F.dropout, F.dropout2d}
ACTIVATION_FUNCTIONS = {
    F.relu, torch.relu, F.relu6, F.gelu, F.silu, F.leaky_relu, F.elu, F.selu, F.celu, F.mish,
    F.hardswish, F.hardsigmoid, F.softplus, F.prelu, torch.sigmoid, F.sigmoid, torch.tanh, F.tanh,
    "relu", "relu_", "sigmoid", "tanh",
}  # fmt: skip


class UntraceableError(SettingsError):
    """The network's forward cannot be traced."""


def trace(network: nn.Module) -> fx.GraphModule:
    """Returns the network's graph without in-place operations; the network's own are turned off.

    Raises:
        UntraceableError: the forward branches on its input, or writes into a tensor.
    """
    in_place = {name for name, m in network.named_modules() if getattr(m, "inplace", False)}
    for name in in_place:
        network.get_submodule(name).inplace = False  # type: ignore[assignment]
    try:
        traced = fx.symbolic_trace(network)
    except Exception as fault:
        raise UntraceableError(
            f"torch.fx cannot trace {type(network).__name__}: {fault}. Wanted a forward whose "
            "branches do not depend on its input"
        ) from fault
    _out_of_place(traced, in_place)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _out_of_place(traced: fx.GraphModule, modules: set[str]) -> None:
    """Replaces in-place operations by their counterparts; `modules` are the in-place modules.

    Later nodes that used the overwritten tensor then use the operation's result.
    """
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        if "out" in node.kwargs:
            raise UntraceableError(
                f"the forward writes into a tensor ({node.format_node()}); wanted one that makes a "
                "new tensor"
            )
        changed = node.op == "call_module" and node.target in modules
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
            changed = True
        other = _counterpart(node)
        if other is not None:
            node.target, changed = other, True
        if changed:
            for user in [user for user in node.args[0].users if order[user] > order[node]]:
                user.replace_input_with(node.args[0], node)


def _counterpart(node: fx.Node) -> object | None:
    """Returns the out-of-place counterpart of an in-place node, None for any other node."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    assert isinstance(name, str)
    if node.op == "call_method":
        bare = name.removesuffix("_")
        return bare if name == f"{bare}_" and hasattr(torch.Tensor, bare) else None
    if node.op != "call_function":
        return None
    if node.target in vars(operator).values():
        return getattr(operator, name[1:], None) if name in IN_PLACE else None
    bare = name.removesuffix("_")
    function = getattr(torch, bare, None) or getattr(F, bare, None)
    return function if name == f"{bare}_" else None


def is_activation(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Returns whether a node applies an activation to each value by itself."""
    module = module_of(node, traced)
    if module is None:
        return node.target in ACTIVATION_FUNCTIONS
    known = type(module).__module__ == nn.modules.activation.__name__
    return known and not isinstance(module, NOT_ACTIVATIONS)


def matches(node: fx.Node, traced: fx.GraphModule, kinds: tuple, functions: set) -> bool:
    """Returns whether a node calls a module of one of these kinds, or one of these functions."""
    module = module_of(node, traced)
    return node.target in functions if module is None else isinstance(module, kinds)


def module_of(node: fx.Node, traced: fx.GraphModule) -> nn.Module | None:
    """Returns the module that a node calls, None where it calls a function or nothing."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None

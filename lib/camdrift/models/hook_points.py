"""Taps of a network: the tensor of each conv layer's map, and the tensors of the neurons.

The network is traced by `torch.fx`, and a tapped copy of its graph returns these tensors beside
the logits. There are no hooks: nothing remains on the network, not even after an error.
"""

import copy
import operator
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from camdrift.models import checks
from camdrift.settings import SettingsError

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
# In eval mode these return their input.
IDENTITIES = (nn.Identity, nn.modules.dropout._DropoutNd)
NOT_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)

PRODUCTS = {operator.mul, torch.mul, "mul"}
ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
IN_PLACE = {"iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul"}
CONCATS = {torch.cat, torch.concat}
NORM_FUNCTIONS = {F.batch_norm, F.group_norm, F.layer_norm, F.instance_norm}
IDENTITY_FUNCTIONS = {F.dropout, F.dropout2d}
POOL_FUNCTIONS = {F.max_pool2d, F.avg_pool2d, torch.max_pool2d}
ACTIVATION_FUNCTIONS = {
    F.relu, torch.relu, F.relu6, F.gelu, F.silu, F.leaky_relu, F.elu, F.selu, F.celu, F.mish,
    F.hardswish, F.hardsigmoid, F.softplus, F.prelu, torch.sigmoid, F.sigmoid, torch.tanh, F.tanh,
    "relu", "relu_", "sigmoid", "tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Tap:
    """A tensor of the network that is returned beside the logits.

    name: its modules, joined by '+' (convs that share an activation share a map).
    label: short name for figures ('4-1' in a VGG).
    node: its node in the traced graph.
    rectified: whether it is an activation's output; False marks a conv that reaches none.
    """

    name: str
    label: str
    node: str
    rectified: bool


class UntraceableError(SettingsError):
    """The network's forward cannot be traced, or it holds no conv layer."""


def trace(network: nn.Module) -> fx.GraphModule:
    """Returns the network's graph without in-place operations, batch norm folded into its conv.

    An in-place ReLU overwrites the tensor of the tap, and an in-place addition its own first term.
    Folding makes a VGG a quarter faster; it changes logits in the sixth digit.

    Raises:
        UntraceableError: the forward branches on its input, or there is no conv layer.
        UnsoundError: part of it stays in training mode.
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
    checks.refuse_training(traced)
    _out_of_place(traced, in_place)
    traced.graph.eliminate_dead_code()
    _fold_norms(traced)
    if not any(_is_conv(node, traced) for node in traced.graph.nodes):
        raise UntraceableError(f"{type(network).__name__} has no two-dimensional conv layer")
    traced.recompile()
    return traced


def _fold_norms(traced: fx.GraphModule) -> None:
    """Folds each BatchNorm2d into the Conv2d before it, where nothing else uses that conv.

    The conv is called once, its output goes to that norm alone, the norm normalises that output
    alone, no other part of the graph reads the conv's parameters, and neither has a hook. Other
    pairs stay unfolded. (`torch.fx.experimental.optimization.fuse` checks only the second condition
    and folds a BatchNorm1d, which normalises dimension 1, into the last dimension of a Linear.)
    """
    nodes = list(traced.graph.nodes)
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    for node in nodes:
        norm = module_of(node, traced)
        before = node.args[0] if node.args else None
        if type(norm) is not nn.BatchNorm2d or not isinstance(before, fx.Node):
            continue
        conv, place = module_of(before, traced), str(before.target)
        if (
            type(conv) is nn.Conv2d
            and len(before.users) == 1
            and calls[place] == calls[str(node.target)] == 1
            and not read & {place, str(node.target)}
            and not any(_is_hooked(module) for module in (conv, norm))
        ):
            traced.set_submodule(place, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()


def _is_hooked(module: nn.Module) -> bool:
    """Returns whether calling a module does more than its forward."""
    return any(
        (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
         module._backward_pre_hooks)
    )  # fmt: skip


def frozen(network: nn.Module) -> nn.Module:
    """Returns a copy of a network in eval mode that shares its weights and requires no gradient.

    It has none of the network's hooks, except those before a forward, in which some modules compute
    their weights. It has its own buffers: a forward may write into them.

    Raises:
        UntraceableError: the network cannot be copied.
    """
    shared: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in network.parameters()
    }
    try:
        clone = copy.deepcopy(network, shared).eval()
    except RuntimeError as fault:
        raise UntraceableError(
            f"{type(network).__name__} cannot be copied: {fault}. Wanted torch.nn.utils."
            "parametrizations in place of weight_norm and spectral_norm of torch.nn.utils"
        ) from fault
    for module in clone.modules():
        for hooks in (module._forward_hooks, module._backward_hooks, module._backward_pre_hooks):
            hooks.clear()
    return clone


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


def tapped(traced: fx.GraphModule, taps: Sequence[Tap], *, leaves: bool = False) -> fx.GraphModule:
    """Returns a network that shares the weights and returns (logits, tensors of the taps).

    With `leaves`, the graph of gradients begins at the taps: a tap that does not depend on another
    is a leaf, the layers before it keep nothing for a backward, and a backward stops there.
    A tap converts tensors of half precision, from autocast, to single precision.
    """
    graph, logits, tensors = _copy(traced, taps)
    for number, node in enumerate(tensors):
        with graph.inserting_after(node):
            tensors[number] = graph.call_function(_leaf if leaves else _whole, (node,))
        _replace(node, tensors[number], user=tensors[number])
        logits = tensors[number] if logits is node else logits
    graph.output((logits, tuple(tensors)))
    return fx.GraphModule(traced, graph)


def with_modules(
    traced: fx.GraphModule, taps: Sequence[Tap]
) -> tuple[fx.GraphModule, list[nn.Module]]:
    """Returns a copy of a network, and for each tap a module through which the tensor passes.

    Other libraries hook modules; a tap may be the output of a function. The copy shares the
    weights, and they require gradients, which second derivatives need.
    """
    own = frozen(traced).requires_grad_()
    assert isinstance(own, fx.GraphModule)
    graph, logits, tensors = _copy(own, taps)
    for number, node in enumerate(tensors):
        own.add_module(f"tap_{number}", nn.Identity())
        with graph.inserting_after(node):
            identity = graph.call_module(f"tap_{number}", (node,))
        with graph.inserting_after(identity):
            # A concatenation's gradients are views, which no library may change.
            product = graph.call_function(operator.mul, (identity, 1))
        _replace(node, product, user=identity)
        logits = product if logits is node else logits
    graph.output(logits)
    network = fx.GraphModule(own, graph)
    return network, [network.get_submodule(f"tap_{number}") for number in range(len(taps))]


def _copy(traced: fx.GraphModule, taps: Sequence[Tap]) -> tuple[fx.Graph, fx.Node, list[fx.Node]]:
    """Returns a copy of a graph that has no output yet, its logits, and the tensors of taps."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    logits = graph.graph_copy(traced.graph, copies)
    places = {node.name: place for node, place in copies.items()}
    return graph, logits, [places[tap.node] for tap in taps]  # type: ignore[return-value]


def _replace(node: fx.Node, following: fx.Node, *, user: fx.Node) -> None:
    """Makes all users of a node but `user` use the following one instead."""
    node.replace_all_uses_with(following, delete_user_cb=lambda other: other is not user)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor that gradients reach: itself if they reach it already, else a new leaf."""
    tensor = _whole(tensor)
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor in single precision at least: half precision is too coarse for sums."""
    return tensor.float() if tensor.itemsize < 4 else tensor


def left_out(network: nn.Module, traced: fx.GraphModule) -> dict[str, str]:
    """Returns the conv layers of a network that have no map, by name, each with the reason."""
    called = {str(node.target) for node in traced.graph.nodes}
    reasons = {}
    for name, module in network.named_modules():
        if not isinstance(module, nn.modules.conv._ConvNd):
            continue
        if not isinstance(module, nn.Conv2d):
            reasons[name] = f"{type(module).__name__} is not a two-dimensional convolution"
        elif name not in called:
            reasons[name] = "no output of the forward in eval mode depends on it"
    return reasons


def map_taps(traced: fx.GraphModule) -> tuple[Tap, ...]:
    """Returns a tap for each conv layer's map, in forward order.

    A conv's map is the first activation output that the conv reaches through norm, addition or
    concatenation only; convs that share that tensor share a map, named after all of them. A conv
    that reaches no activation is tapped at its own output. Where the last map is concatenated with
    those of other branches (Inception), the concatenation is a further map, the last, named after
    the block: it is the input of the head.
    """
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    owners: dict[fx.Node, list[str]] = {}
    for node in traced.graph.nodes:
        if _is_conv(node, traced):
            place = min(_activations(node, traced), key=order.__getitem__, default=node)
            owners.setdefault(place, []).append(_name(node))
    places = sorted(owners, key=order.__getitem__)
    joint = _joint(places[-1], traced)
    if joint is not None:
        owners[joint] = [_block(joint, owners, traced)]
        places.append(joint)
    labels = _labels(places, owners, traced)
    return tuple(
        Tap("+".join(owners[place]), label, place.name, _is_rectified(place, traced))
        for place, label in zip(places, labels, strict=True)
    )


def neuron_taps(traced: fx.GraphModule) -> tuple[Tap, ...]:
    """Returns a tap for each layer whose units count as neurons, in forward order.

    As in the public code of renkhoff2022: conv layers (at their maps), pooling layers, dense
    layers after their activation. The softmax of the logits comes last and needs no tap. A
    concatenated last map does not count; its branches do.
    """
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    names = {tap.node: tap for tap in map_taps(traced)}
    for node in traced.graph.nodes:
        if matches(node, traced, (), CONCATS):
            names.pop(node.name, None)
        elif matches(node, traced, POOLS, POOL_FUNCTIONS):
            names[node.name] = Tap(node.name, node.name, node.name, False)
        elif matches(node, traced, (nn.Linear,), {F.linear}):
            place = min(_activations(node, traced), key=order.__getitem__, default=None)
            if place is not None:
                names[place.name] = Tap(str(node.target), node.name, place.name, True)
    return tuple(names[node.name] for node in traced.graph.nodes if node.name in names)


def _activations(start: fx.Node, traced: fx.GraphModule) -> Iterator[fx.Node]:
    """Yields the activations that a node reaches through norm, addition or concatenation only."""
    passing: set = ADDS | CONCATS | NORM_FUNCTIONS | IDENTITY_FUNCTIONS
    visited, waiting = set(), list(start.users)
    while waiting:
        node = waiting.pop()
        if node in visited:
            continue
        visited.add(node)
        if is_activation(node, traced):
            yield _gate(node) or node
        elif matches(node, traced, NORMS + IDENTITIES, passing):
            waiting.extend(node.users)


def _gate(node: fx.Node) -> fx.Node | None:
    """Returns the product x * f(x) that an activation f of x stands in (a SiLU by hand), if any."""
    products = (user for user in node.users if user.target in PRODUCTS)
    return next((user for user in products if node.args[0] in user.args), None)


def _joint(last: fx.Node, traced: fx.GraphModule) -> fx.Node | None:
    """Returns the concatenation that the last map goes into, None where there is none."""
    return next((user for user in last.users if matches(user, traced, (), CONCATS)), None)


def _branches(joint: fx.Node, traced: fx.GraphModule) -> Iterator[fx.Node]:
    """Yields the tensors that a concatenation joins, recursively through other concatenations."""
    for node in joint.all_input_nodes:
        if matches(node, traced, (), CONCATS):
            yield from _branches(node, traced)
        else:
            yield node


def _block(joint: fx.Node, owners: dict[fx.Node, list[str]], traced: fx.GraphModule) -> str:
    """Returns the module's name that holds all convs of a concatenation, or the node's name."""
    names = [name for node in _branches(joint, traced) for name in owners.get(node, [])]
    return ".".join(os.path.commonprefix([name.split(".") for name in names])) or joint.name


def _is_rectified(place: fx.Node, traced: fx.GraphModule) -> bool:
    """Returns whether a map's tensor is an activation's output, or a concatenation of such."""
    joined = matches(place, traced, (), CONCATS)
    tensors = _branches(place, traced) if joined else [place]
    return not any(_is_conv(node, traced) for node in tensors)


def _name(node: fx.Node) -> str:
    """Returns the module's name, with ':2' at its second call; the node's name for a function."""
    if node.op != "call_module":
        return node.name
    calls = [other for other in node.graph.nodes if other.target == node.target]
    number = calls.index(node) + 1
    return f"{node.target}:{number}" if number > 1 else str(node.target)


def _is_conv(node: fx.Node, traced: fx.GraphModule) -> bool:
    return matches(node, traced, (nn.Conv2d,), {F.conv2d, torch.conv2d})


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


def _labels(places: list[fx.Node], owners: dict, traced: fx.GraphModule) -> list[str]:
    """Returns 'block-conv' labels where the convs form a chain of pooled blocks, else the names.

    A chain is a network like VGG: every map has one conv, and max-pooling ends each block.
    """
    pools = [n for n in traced.graph.nodes if matches(n, traced, (nn.MaxPool2d,), set())]
    branched = any(len(names) > 1 for names in owners.values()) or any(
        matches(n, traced, (), ADDS | CONCATS) for n in traced.graph.nodes
    )
    if branched or len(pools) < 2:
        return ["+".join(owners[place]) for place in places]
    map_nodes, labels = set(places), []
    block, conv = 1, 0
    for node in traced.graph.nodes:
        if node in map_nodes:
            conv += 1
            labels.append(f"{block}-{conv}")
        elif node in pools:
            block, conv = block + 1, 0
    return labels

"""Hook points of a network: the tensor of each conv layer's map, and the tensors of the neurons.

One forward is recorded, see `calls`; a working forward keeps the results of some of its calls. No
graph is asked for: a forward may branch, loop and write in place, as long as it makes the same
calls each time. There are no hooks: nothing remains on the network, not even after an error.
"""

import copy
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from camdrift.models import architectures, checks
from camdrift.models.calls import (
    ACTIVATIONS,
    ADDS,
    CONCATS,
    CONVS,
    IDENTITIES,
    MAX_POOLS,
    NORMS,
    POOLS,
    PRODUCTS,
    Call,
    record,
    returns_tensor,
    tensors_in,
)
from camdrift.settings import SettingsError


@dataclass(frozen=True)
class HookPoint:
    """A tensor of the network that is returned beside the logits.

    name: its modules, joined by '+' (convs that share an activation share a map).
    label: short name for figures ('4-1' in a VGG).
    place: of the call that returns it.
    rectified: whether it is an activation's output; False marks a conv that reaches none.
    """

    name: str
    label: str
    place: int
    rectified: bool


class UnwatchableError(SettingsError):
    """The network's forward cannot be watched, or it holds no conv layer."""


class OtherCallsError(checks.UnsoundError):
    """The forward makes other calls than when it was recorded."""

    def __init__(self) -> None:
        super().__init__(
            "the network's forward makes other calls than when it was recorded; wanted images "
            "that take one path through the network in each call"
        )


def frozen(network: nn.Module) -> nn.Module:
    """Returns a copy of a network in eval mode that shares its weights and requires no gradient.

    It has none of the network's hooks, except those before a forward, in which some modules compute
    their weights. It has its own buffers: a forward may write into them. The network inside
    `DataParallel`, `DistributedDataParallel` and `torch.compile`'s wrapper is copied.

    Raises:
        UnwatchableError: the network cannot be copied, or it is scripted.
    """
    network = unwrapped(network)
    shared: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in network.parameters()
    }
    # A forward may have left tensors with a history, which cannot be copied, on its modules.
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                shared[id(value)] = value.detach()
    try:
        clone = copy.deepcopy(network, shared).eval()
    except (RuntimeError, TypeError) as fault:
        raise UnwatchableError(
            f"{type(network).__name__} cannot be copied: {fault}. Wanted a network without "
            "attributes that copy.deepcopy refuses, such as locks, files and generators"
        ) from fault
    for module in clone.modules():
        for hooks in (module._forward_hooks, module._backward_hooks, module._backward_pre_hooks):
            hooks.clear()
    return clone


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


class Watched:
    """A frozen network whose forward was recorded, its batch norm folded into its convs.

    Folding makes a VGG a quarter faster; it changes logits in the sixth digit.

    network: inputs -> logits, on which nothing else is changed.
    calls: of its forward.

    Args:
        network: to watch; it is frozen, and changed.
        inputs: of one image at least.

    Raises:
        UnwatchableError: there is no conv layer.
        UnsoundError: part of it stays in training mode.
    """

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        self.network = network
        self.calls, _ = record(network, inputs)
        checks.refuse_training(self.calls)
        _fold_norms(network, self.calls)
        # Once more: norms are folded, and what a first call computes and keeps is there.
        self.calls, _ = record(network, inputs)
        if not any(_is_conv(call) for call in self.calls):
            raise UnwatchableError(
                f"{type(network).__name__} has no two-dimensional conv layer that its output "
                "depends on"
            )

    def __call__(
        self, inputs: Tensor, points: Sequence[HookPoint], *, leaves: bool = False
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """Returns the network's output and the tensors of hook points.

        With `leaves`, the graph of gradients begins at the points: one that does not depend on
        another is a leaf, the layers before it keep nothing for a backward, and a backward stops
        there. Tensors of half precision, from autocast, become single precision.

        Raises:
            OtherCallsError: the forward makes other calls than when it was recorded.
        """
        kept: dict[int, Tensor] = {}

        def keep(place: int, call: Call, result: Tensor) -> Tensor:
            tensor = _whole(result)
            if leaves and not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
            kept[place] = tensor
            following = tensor.to(result.dtype)
            # A view of it may be written into.
            return following * 1 if call.overwritten and following is tensor else following

        places = [point.place for point in points]
        with _Run(self.calls, {place: partial(keep, place) for place in places}) as run:
            output = run.current(self.network(inputs))
        return output, tuple(kept[place] for place in places)


class _Run(TorchFunctionMode):
    """A forward whose calls are counted, and those in place made out of place.

    In place they would overwrite results that are kept, or that a backward requires. The network
    may go on with the old tensor, in whose place the new one is then given to later calls.

    at: (place, result) -> the result that the network goes on with, of the calls at some places.
    """

    def __init__(
        self, calls: list[Call], at: Mapping[int, Callable[[Call, Tensor], Tensor]]
    ) -> None:
        super().__init__()
        self._calls, self._at, self._place = calls, at, -1
        # By id of a tensor that was to be overwritten, as long as it is in use: a reference to it,
        # and the tensor in its place.
        self._instead: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}

    def current(self, output: Any) -> Any:
        """Returns the network's output, with the tensors that stand in place of others.

        Raises:
            OtherCallsError: the forward made other calls than those recorded.
        """
        if self._place + 1 != len(self._calls):
            raise OtherCallsError
        return _replaced(output, self._instead) if self._instead else output

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        following = self._place + 1
        call = self._calls[following] if following < len(self._calls) else None
        expected = call is not None and call.function is function
        written = call.written if call is not None and expected else None
        old = None if written is None else list(tensors_in([args, kwargs]))[written]
        if self._instead:
            args, kwargs = _replaced(args, self._instead), _replaced(kwargs, self._instead)
        if written is None:
            result = function(*args, **kwargs)
            if not returns_tensor(function, result):
                return result
        else:
            result = _out_of_place(function, args, kwargs, written)
        if call is None or not expected:
            self._place = len(self._calls)  # also where the network goes on after an error
            raise OtherCallsError
        self._place = following
        if following in self._at:
            result = self._at[following](call, result)
        if old is not None:
            forget = partial(_forget, self._instead, id(old))
            self._instead[id(old)] = weakref.ref(old, forget), result
        return result


def _forget(instead: dict[int, Any], key: int, _: object) -> None:
    del instead[key]


def _replaced(value: Any, instead: Mapping[int, tuple[Any, Tensor]]) -> Any:
    """Returns a value with other tensors in place of some, in tuples, lists and dicts, too."""
    if isinstance(value, Tensor):
        return instead[id(value)][1] if id(value) in instead else value
    if type(value) in (tuple, list):
        return type(value)(_replaced(part, instead) for part in value)
    if type(value) is dict:
        return {key: _replaced(part, instead) for key, part in value.items()}
    return value


COUNTERPARTS = {
    Tensor.__iadd__: Tensor.__add__, Tensor.__isub__: Tensor.__sub__,
    Tensor.__imul__: Tensor.__mul__, Tensor.__itruediv__: Tensor.__truediv__,
}  # fmt: skip


def _out_of_place(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], written: int
) -> Tensor:
    """Returns the result of a call in place, made out of place.

    Where there is no counterpart, it is made on a copy of the argument that is written into.
    """
    if function in COUNTERPARTS:
        return COUNTERPARTS[function](*args)
    if kwargs.get("inplace") is True:
        return function(*args, **kwargs | {"inplace": False})
    if isinstance(kwargs.get("out"), Tensor):
        return function(*args, **{name: value for name, value in kwargs.items() if name != "out"})
    tensor = list(tensors_in([args, kwargs]))[written]
    copied = {id(tensor): (tensor, tensor.clone())}
    result = function(*_replaced(args, copied), **_replaced(kwargs, copied))
    return copied[id(tensor)][1] if result is None else result


def _whole(tensor: Tensor) -> Tensor:
    """Returns a tensor in single precision at least: half precision is too coarse for sums."""
    return tensor.float() if tensor.itemsize < 4 else tensor


class WithModules(nn.Module):
    """A network whose hook points pass through modules, for libraries that hook modules.

    It shares the weights, and they require gradients, which second derivatives need.
    """

    def __init__(self, watched: Watched, points: Sequence[HookPoint]) -> None:
        super().__init__()
        self.network = frozen(watched.network).requires_grad_()
        self.points = nn.ModuleList(nn.Identity() for _ in points)
        self._calls = watched.calls
        self._places = [point.place for point in points]

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's output."""

        def passed(module: nn.Module, call: Call, result: Tensor) -> Tensor:
            # A concatenation's gradients are views, which no library may change.
            return module(result * 1) * 1

        modules = zip(self._places, self.points, strict=True)
        at = {place: partial(passed, module) for place, module in modules}
        with _Run(self._calls, at) as run:
            return run.current(self.network(inputs))


def _fold_norms(network: nn.Module, calls: list[Call]) -> None:
    """Folds each BatchNorm2d into the Conv2d before it, where nothing else uses that conv.

    The conv is called once, its output goes to that norm alone, the norm normalises that output
    alone, no other call reads their parameters, and neither has a hook. Other pairs stay unfolded.
    """
    modules = dict(network.named_modules())
    called = Counter(call.module for call in calls if call.function in CONVS | NORMS)
    read = Counter(weight for call in calls for weight in call.weights)
    pairs = []
    for conv_call in calls:
        conv = modules.get(conv_call.module)
        if type(conv) is not nn.Conv2d or len(conv_call.users) != 1 or not _is_conv(conv_call):
            continue
        norm_call = calls[conv_call.users[0]]
        norm = modules.get(norm_call.module)
        weights = [*conv.parameters(), *(norm.parameters() if norm is not None else ())]
        if (
            type(norm) is nn.BatchNorm2d
            and norm_call.function is F.batch_norm
            and norm.running_mean is not None
            and called[conv_call.module] == called[norm_call.module] == 1
            and all(read[id(weight)] == 1 for weight in weights)
            and not any(_is_hooked(module) for module in (conv, norm))
        ):
            pairs.append((conv_call.module, norm_call.module, fuse_conv_bn_eval(conv, norm)))
    for conv_path, norm_path, fused in pairs:
        network.set_submodule(conv_path, fused)
        network.set_submodule(norm_path, nn.Identity())


def _is_hooked(module: nn.Module) -> bool:
    """Returns whether calling a module does more than its forward."""
    return any(
        (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
         module._backward_pre_hooks)
    )  # fmt: skip


def watch(network: nn.Module, inputs: Tensor) -> Watched:
    """Returns a watched copy of a network that shares its weights; raises as `Watched` does.

    On a processor, its weights lie with channels last.
    """
    clone = frozen(network)
    if not any(weight.is_cuda for weight in clone.parameters()):
        architectures.channels_last(clone)
    return Watched(clone, inputs)


def left_out(network: nn.Module, calls: list[Call]) -> dict[str, str]:
    """Returns the conv layers of a network that have no map, by name, each with the reason."""
    called = {call.module for call in calls if _is_conv(call)}
    reasons = {}
    for name, module in network.named_modules():
        if not isinstance(module, nn.modules.conv._ConvNd):
            continue
        if not isinstance(module, nn.Conv2d):
            reasons[name] = f"{type(module).__name__} is not a two-dimensional convolution"
        elif name not in called:
            reasons[name] = "no output of the forward in eval mode depends on it"
    return reasons


def of_maps(calls: list[Call]) -> tuple[HookPoint, ...]:
    """Returns the hook point of each conv layer's map, in forward order.

    A conv's map is the first activation output that the conv reaches through norm, addition or
    concatenation only; convs that share that tensor share a map, named after all of them. A conv
    that reaches no activation is hooked at its own output. Where the last map is concatenated with
    those of other branches (Inception), the concatenation is a further map, the last, named after
    the block: it is the input of the head.
    """
    owners: dict[int, list[str]] = {}
    for place, call in enumerate(calls):
        if _is_conv(call):
            owners.setdefault(min(_activations(place, calls), default=place), []).append(call.name)
    places = sorted(owners)
    joint = _joint(places[-1], calls)
    if joint is not None:
        owners[joint] = [_block(joint, owners, calls)]
        places.append(joint)
    labels = _labels(places, owners, calls)
    return tuple(
        HookPoint("+".join(owners[place]), label, place, _is_rectified(place, calls))
        for place, label in zip(places, labels, strict=True)
    )


def of_neurons(calls: list[Call]) -> tuple[HookPoint, ...]:
    """Returns the hook point of each layer whose units count as neurons, in forward order.

    As in the public code of renkhoff2022: conv layers (at their maps), pooling layers, dense
    layers after their activation. The softmax of the logits comes last and has no hook point. A
    concatenated last map does not count; its branches do.
    """
    points = {point.place: point for point in of_maps(calls)}
    for place, call in enumerate(calls):
        if not call.matters:
            continue
        if call.function in CONCATS:
            points.pop(place, None)
        elif call.function in POOLS:
            points[place] = HookPoint(call.name, call.name, place, False)
        elif call.function is F.linear:
            after = min(_activations(place, calls), default=None)
            if after is not None:
                points[after] = HookPoint(call.name, call.name, after, True)
    return tuple(points[place] for place in sorted(points))


def _is_conv(call: Call) -> bool:
    return call.function in CONVS and call.matters


def _activations(start: int, calls: list[Call]) -> Iterator[int]:
    """Yields the activations that a call reaches through norm, addition or concatenation only."""
    visited, waiting = set(), list(calls[start].users)
    while waiting:
        place = waiting.pop()
        if place in visited or not calls[place].matters:
            continue
        visited.add(place)
        if calls[place].function in ACTIVATIONS:
            gate = _gate(place, calls)
            yield place if gate is None else gate
        elif calls[place].function in ADDS | CONCATS | NORMS | IDENTITIES:
            waiting.extend(calls[place].users)


def _gate(place: int, calls: list[Call]) -> int | None:
    """Returns the product x * f(x) that an activation f of x stands in (a SiLU by hand), if any."""
    source = calls[place].first
    products = (user for user in calls[place].users if calls[user].function in PRODUCTS)
    return next((user for user in products if source in calls[user].inputs), None)


def _joint(last: int, calls: list[Call]) -> int | None:
    """Returns the concatenation that the last map goes into, None where there is none."""
    return next((user for user in calls[last].users if calls[user].function in CONCATS), None)


def _branches(joint: int, calls: list[Call]) -> Iterator[int]:
    """Yields the tensors that a concatenation joins, recursively through other concatenations."""
    for place in calls[joint].inputs:
        if calls[place].function in CONCATS:
            yield from _branches(place, calls)
        else:
            yield place


def _block(joint: int, owners: dict[int, list[str]], calls: list[Call]) -> str:
    """Returns the module's name that holds all convs of a concatenation, or the call's name."""
    names = [name for place in _branches(joint, calls) for name in owners.get(place, [])]
    common = os.path.commonprefix([name.split(".") for name in names])
    return ".".join(common) or calls[joint].name


def _is_rectified(place: int, calls: list[Call]) -> bool:
    """Returns whether a map's tensor is an activation's output, or a concatenation of such."""
    joined = calls[place].function in CONCATS
    tensors = _branches(place, calls) if joined else [place]
    return not any(_is_conv(calls[tensor]) for tensor in tensors)


def _labels(places: list[int], owners: dict[int, list[str]], calls: list[Call]) -> list[str]:
    """Returns 'block-conv' labels where the convs form a chain of pooled blocks, else the names.

    A chain is a network like VGG: every map has one conv, and max-pooling ends each block.
    """
    pools = {i for i, call in enumerate(calls) if call.matters and call.function in MAX_POOLS}
    branched = any(len(names) > 1 for names in owners.values()) or any(
        call.matters and call.function in ADDS | CONCATS for call in calls
    )
    if branched or len(pools) < 2:
        return ["+".join(owners[place]) for place in places]
    labels = []
    block, conv = 1, 0
    for place in range(len(calls)):
        if place in owners:
            conv += 1
            labels.append(f"{block}-{conv}")
        elif place in pools:
            block, conv = block + 1, 0
    return labels

"""Hook points of a network: the tensors of its maps, and those of its neurons."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
)
from camdrift.models.tensors import Activations


@dataclass(frozen=True)
class Grid:
    """The places of a transformer's tokens in the image.

    height, width: tokens.
    extra: tokens before those of the image: of the class, and registers.
    axes: of the tensor: tokens t or rows h and columns w, images n, channels d.
    """

    height: int
    width: int
    extra: int
    axes: Literal["ntd", "tnd", "ndt", "nhwd", "ndhw"]

    def maps(self, tokens: Tensor) -> Activations:
        """Returns the image's tokens as maps of their channels."""
        if self.axes == "ndhw":
            return tokens
        if self.axes == "nhwd":
            return tokens.permute(0, 3, 1, 2)
        if self.axes == "ndt":
            return tokens.unflatten(2, (self.height, self.width))
        rows = tokens if self.axes == "ntd" else tokens.transpose(0, 1)
        return rows[:, self.extra :].transpose(1, 2).unflatten(2, (self.height, self.width))

    def tokens(self, maps: Activations, before: Tensor) -> Tensor:
        """Returns maps as tokens again; class tokens and registers are taken from `before`."""
        if self.axes == "ndhw":
            return maps
        if self.axes == "nhwd":
            return maps.permute(0, 2, 3, 1)
        if self.axes == "ndt":
            return maps.flatten(2)
        rows = maps.flatten(2).transpose(1, 2)
        if self.axes == "tnd":
            rows = rows.transpose(0, 1)
            return torch.cat([before[: self.extra], rows]) if self.extra else rows
        return torch.cat([before[:, : self.extra], rows], 1) if self.extra else rows


@dataclass(frozen=True)
class HookPoint:
    """A tensor of the network that is returned beside the logits.

    A complex channel is explained as two real ones, its real and its imaginary part.

    name: its modules, joined by '+' (convs that share an activation share a map).
    label: short name for figures ('4-1' in a VGG).
    place: of the call that returns it.
    rectified: whether it is an activation's output; False marks a conv that reaches none.
    grid: of its tokens; None for a tensor (n, c, h, w).
    summed: whether it is the activation of a sum, as at the end of a residual branch.
    """

    name: str
    label: str
    place: int
    rectified: bool
    grid: Grid | None = None
    summed: bool = False

    def maps(self, result: Tensor) -> Activations:
        """Returns a call's result as maps of its channels, those of a complex one in halves."""
        maps = result if self.grid is None else self.grid.maps(result)
        return torch.cat([maps.real, maps.imag], 1) if maps.is_complex() else maps

    def restored(self, maps: Activations, result: Tensor) -> Tensor:
        """Returns maps in the shape and precision of the call's result that they are of."""
        if result.is_complex():
            maps = torch.complex(*maps.chunk(2, 1))
        maps = maps.to(result.dtype)
        return maps if self.grid is None else self.grid.tokens(maps, result)


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


def conv_points(calls: list[Call]) -> tuple[HookPoint, ...]:
    """Returns the hook point of each conv layer's map, in forward order; none without conv layers.

    A conv's map is the first activation output that the conv reaches through norm, addition or
    concatenation only; convs that share that tensor share a map, named after all of them. A conv
    that reaches no activation is hooked at its own output, after the batch norm if that alone uses
    it. Where the last map is concatenated with
    those of other branches (Inception), the concatenation is a further map, the last, named after
    the block: it is the input of the head.
    """
    owners: dict[int, list[str]] = {}
    for place, call in enumerate(calls):
        if _is_conv(call):
            own = min(_activations(place, calls), default=_output(place, calls))
            graded = _graded(own, calls)
            if graded is not None:
                owners.setdefault(graded, []).append(call.name)
    if not owners:
        return ()
    places = sorted(owners)
    joint = _joint(places[-1], calls)
    if joint is not None:
        owners[joint] = [_block(joint, owners, calls)]
        places.append(joint)
    labels = _labels(places, owners, calls)
    return tuple(
        HookPoint(
            "+".join(owners[place]), label, place, _is_rectified(place, calls),
            summed=_is_summed(place, calls),
        )
        for place, label in zip(places, labels, strict=True)
    )  # fmt: skip


def neuron_points(calls: list[Call]) -> tuple[HookPoint, ...]:
    """Returns the hook point of each layer whose units count as neurons, in forward order.

    As in the public code of renkhoff2022: conv layers (at their maps), pooling layers, dense
    layers after their activation. The softmax of the logits comes last and has no hook point. A
    concatenated last map does not count; its branches do.
    """
    points = {point.place: point for point in conv_points(calls)}
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
                shape = calls[after].shape
                grid = Grid(shape[1], shape[2], 0, "nhwd") if len(shape) == 4 else None
                points[after] = HookPoint(call.name, call.name, after, True, grid)
    return tuple(points[place] for place in sorted(points))


def _is_conv(call: Call) -> bool:
    return call.function in CONVS and call.matters


def _output(place: int, calls: list[Call]) -> int:
    """Returns the batch norm that alone uses a conv's result, and may be folded, else the conv."""
    users = calls[place].users
    is_norm = len(users) == 1 and calls[users[0]].function in {F.batch_norm, torch.batch_norm}
    return users[0] if is_norm and calls[users[0]].matters else place


def _activations(start: int, calls: list[Call]) -> Iterator[int]:
    """Yields the activations that a call reaches through norm, addition or concatenation only."""
    visited, waiting = set(), list(calls[start].users)
    while waiting:
        place = waiting.pop()
        if place in visited or not calls[place].matters:
            continue
        visited.add(place)
        if calls[place].function in ACTIVATIONS:
            if len(calls[place].shape) != len(calls[start].shape):
                continue  # of another shape of the same memory, in place
            gate = _gate(place, calls)
            yield place if gate is None else gate
        elif calls[place].function in ADDS | CONCATS | NORMS | IDENTITIES:
            waiting.extend(calls[place].users)


def _graded(place: int, calls: list[Call]) -> int | None:
    """Returns the call, from a place on, whose result calls use that a gradient can pass.

    None: there is none before another layer, and the place cannot be explained.
    """
    while not calls[place].graded:
        users = [user for user in calls[place].users if calls[user].matters]
        if any(calls[user].graded for user in users):
            return place
        if not users or calls[users[0]].function in CONVS | {F.linear}:
            return None
        place = users[0]
    return place


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
    return not any(calls[tensor].function in CONVS | NORMS for tensor in tensors)


def _is_summed(place: int, calls: list[Call]) -> bool:
    """Returns whether a map's tensor is a sum of two results, after activations and norms at most.

    A number or a weight that is added, as in a hand-written h-swish, makes no sum.
    """
    passed = ACTIVATIONS | NORMS | IDENTITIES | PRODUCTS
    waiting, visited = [place], set()
    while waiting:
        place = waiting.pop()
        addends = [calls[source].of_images for source in calls[place].inputs]
        if calls[place].function in ADDS and sum(addends) > 1:
            return True
        if calls[place].function in passed and place not in visited:
            visited.add(place)
            waiting.extend(calls[place].inputs)
    return False


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

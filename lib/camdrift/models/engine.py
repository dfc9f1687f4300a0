"""The engine: a network's forward that keeps the tensors of its hook points.

One forward is recorded, see `calls`; a working forward keeps the results of some of its calls. No
graph is asked for: a forward may branch, loop and write in place, as long as it makes the same
calls each time. There are no hooks: nothing remains on the network, not even after an error.
"""

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camdrift.models import architectures, checkpoints, checks, folding
from camdrift.models.calls import (
    CONTAINERS,
    Call,
    Recording,
    UnwatchableError,
    attributes,
    record,
    returns_tensor,
    tensors_in,
)
from camdrift.models.copies import frozen
from camdrift.models.hook_points import HookPoint


class OtherCallsError(checks.UnsoundError):
    """The forward makes other calls than when it was recorded."""

    def __init__(self) -> None:
        super().__init__(
            "the network's forward makes other calls than when it was recorded; wanted images "
            "that take one path through the network in each call"
        )


class Watched:
    """A frozen network whose forward was recorded, its batch norm folded into its convs.

    Folding makes a VGG a quarter faster; it changes logits in the sixth digit.

    network: inputs -> logits; only folding changes it.
    recording: of its forward.

    Args:
        network: to watch; it is frozen, and changed.
        inputs: of one image at least.
        fold: whether to fold batch norm.

    Raises:
        UnsoundError: part of it stays in training mode.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, *, fold: bool = True) -> None:
        self.network = network
        recording = record(network, inputs)
        checks.refuse_training(recording.calls)
        if fold and inputs.itemsize >= 4:  # half precision would show that folding rounds otherwise
            folding.fold_norms(network, recording)
        # Once more: norms are folded, and what a first call computes and keeps is there.
        self.recording: Recording = record(network, inputs)
        self._parameter = next(network.parameters(), None)

    @property
    def calls(self) -> list[Call]:
        """The calls of its forward."""
        return self.recording.calls

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

        first = _first(self.calls, [point.place for point in points]) if leaves else set()

        def keep(point: HookPoint, call: Call, result: Tensor) -> Tensor:
            tensor = _whole(point.maps(result))
            if point.place in first or (leaves and not tensor.requires_grad):
                tensor = tensor.detach().requires_grad_()
            kept[point.place] = tensor
            following = point.restored(tensor.to(result.dtype), result)
            # A view of it may be written into.
            return following * 1 if call.overwritten and following is tensor else following

        at = {point.place: partial(keep, point) for point in points}
        # Some devices replace parameters when a network is moved to them.
        known = next(self.network.parameters(), None) is self._parameter
        with checkpoints.passed(), _Run(self.calls, at, known=known) as run:
            output = run.current(self.network(inputs))
        lost = [point.name for point in points if point.place not in kept]
        if lost:
            raise UnwatchableError(
                f"no gradient passes '{lost[0]}', which is computed under `torch.no_grad`, as in "
                "the forward of an `autograd.Function`; wanted other layers= or hook_points="
            )
        return output, tuple(kept[point.place] for point in points)


@dataclass(eq=False)
class _Box:
    """The current tensor in place of all tensors that the network overwrote to obtain it."""

    tensor: Tensor


class _Run(TorchFunctionMode):
    """A forward whose calls are counted, and those in place made out of place.

    In place they would overwrite results that are kept, or that a backward requires. The network
    may go on with the old tensor, in whose place the new one is then given to later calls.

    at: (place, result) -> the result that the network goes on with, of the calls at some places.
    known: whether the network has the parameters of the recorded one, and not copies of them.
    """

    def __init__(
        self,
        calls: list[Call],
        at: Mapping[int, Callable[[Call, Tensor], Tensor]],
        *,
        known: bool = True,
    ) -> None:
        super().__init__()
        self._calls, self._at, self._known, self._place = calls, at, known, -1
        # By id of a tensor that was to be overwritten, as long as it is in use: a reference to it,
        # and the box of the tensor in its place; and that box by the id of the tensor in it.
        self._instead: dict[int, tuple[weakref.ref[Tensor], _Box]] = {}
        self._boxes: weakref.WeakValueDictionary[int, _Box] = weakref.WeakValueDictionary()
        # By id, with their places: results of hook points under `no_grad`, until a call uses them
        # that a gradient can pass.
        self._waiting: dict[int, tuple[Tensor, int]] = {}

    def current(self, output: Any) -> Any:
        """Returns the network's output, with the tensors that stand in place of others.

        Raises:
            OtherCallsError: the forward made other calls than those recorded.
        """
        if self._place + 1 != len(self._calls):
            raise OtherCallsError
        self._release([output if isinstance(output, CONTAINERS) else attributes(output)])
        if not self._instead:
            return output
        if isinstance(output, CONTAINERS):
            return _replaced(output, self._instead)
        before = attributes(output)
        if any(id(tensor) in self._instead for tensor in tensors_in([before])):
            output = copy.copy(output)
            for name, value in _replaced(before, self._instead).items():
                object.__setattr__(output, name, value)  # also where it is frozen
        return output

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        following = self._place + 1
        call = self._calls[following] if following < len(self._calls) else None
        # Not `is`: that of an attribute, such as `Tensor.T`, is another object each time.
        expected = call is not None and call.function == function
        written = call.written if call is not None and expected else None
        old = None if written is None else list(tensors_in([args, kwargs]))[written]
        if self._instead:
            args, kwargs = _replaced(args, self._instead), _replaced(kwargs, self._instead)
        if self._waiting and torch.is_grad_enabled() and self._release([args, kwargs]):
            args, kwargs = _replaced(args, self._instead), _replaced(kwargs, self._instead)
        if written is None:
            result = function(*args, **kwargs)
            if not returns_tensor(function, result):
                return result
        else:
            result = _out_of_place(function, args, kwargs, written)
        other = self._known and call is not None and call.weights != _ids(call, args, kwargs)
        if call is None or not expected or other:
            self._place = len(self._calls)  # also where the network goes on after an error
            raise OtherCallsError
        self._place = following
        if following in self._at and not call.graded:
            self._waiting[id(result)] = result, following
        elif following in self._at:
            result = self._at[following](call, result)
        if old is not None and call.graded and call.used_ungraded:
            # No call shows that an `autograd.Function` is given the old tensor.
            self._swap(old, result)
            return old
        if old is not None:
            self._put(old, result)
        return result

    def _release(self, values: Any) -> bool:
        """Hooks the tensors among values that waited for it; returns whether there were any."""
        waited = [self._waiting.pop(id(t)) for t in tensors_in(values) if id(t) in self._waiting]
        for tensor, place in waited:
            result = self._at[place](self._calls[place], tensor)
            if result is not tensor:
                self._put(tensor, result)
        return bool(waited)

    def _swap(self, old: Tensor, new: Tensor) -> None:
        """Makes an old tensor the new one."""
        box = self._instead.pop(id(old), (None, None))[1]  # without the reference, which forbids it
        torch.utils.swap_tensors(old, new)
        if box is not None:
            self._boxes.pop(id(box.tensor), None)
            box.tensor = old
            self._boxes[id(old)] = box

    def _put(self, old: Tensor, new: Tensor) -> None:
        """Puts a tensor in place of an old one, and of all that the old one was in place of."""
        known = self._instead.get(id(old))
        box = self._boxes.get(id(old)) if known is None else known[1]
        box = _Box(old) if box is None else box
        before, box.tensor = box.tensor, new  # `before` may go by another name than `old`
        self._boxes.pop(id(before), None)  # its id may become another's
        forget = partial(_forget, self._instead, id(before))
        self._instead[id(before)] = weakref.ref(before, forget), box
        self._boxes[id(new)] = box


def _first(calls: list[Call], places: Sequence[int]) -> set[int]:
    """Returns those of some places that depend on none of the others."""
    after: set[int] = set()
    for place, call in enumerate(calls):
        if any(source in after or source in places for source in call.inputs):
            after.add(place)
    return set(places) - after


def _ids(call: Call, args: Any, kwargs: Any) -> tuple[int, ...]:
    """Returns the ids of the parameters among a call's arguments, none where it had none."""
    if not call.weights:
        return ()
    return tuple(id(t) for t in tensors_in([args, kwargs]) if isinstance(t, nn.Parameter))


def _forget(instead: dict[int, Any], key: int, _: object) -> None:
    del instead[key]


def _replaced(value: Any, instead: Mapping[int, tuple[Any, _Box]]) -> Any:
    """Returns a value with other tensors in place of some, in tuples, lists and dicts, too."""
    if isinstance(value, Tensor):
        return instead[id(value)][1].tensor if id(value) in instead else value
    if isinstance(value, tuple | list):
        parts = [_replaced(part, instead) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if type(value) is dict:
        return {key: _replaced(part, instead) for key, part in value.items()}
    if isinstance(value, dict):  # it may be more than a dict
        other = copy.copy(value)
        for key, part in value.items():
            other[key] = _replaced(part, instead)
        return other
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
    box = _Box(tensor.clone())
    copied = {id(tensor): (tensor, box)}
    result = function(*_replaced(args, copied), **_replaced(kwargs, copied))
    return box.tensor if result is None else result


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
        self._hook_points = tuple(points)

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's output."""

        def passed(module: nn.Module, point: HookPoint, call: Call, result: Tensor) -> Tensor:
            # A concatenation's gradients are views, which no library may change.
            return point.restored(module(point.maps(result) * 1) * 1, result)

        pairs = zip(self.points, self._hook_points, strict=True)
        at = {point.place: partial(passed, module, point) for module, point in pairs}
        with checkpoints.passed(), _Run(self._calls, at, known=False) as run:
            return run.current(self.network(inputs))


def watch(network: nn.Module, inputs: Tensor, *, fold: bool = True) -> Watched:
    """Returns a watched copy of a network that shares its weights; raises as `Watched` does.

    On a CPU, its weights are stored with channels last, unless its forward fails with them: some
    call `view` on tensors, which asks for the usual order.
    """
    clone = frozen(network)
    if not any(weight.is_cuda for weight in clone.parameters()):
        architectures.channels_last(clone)
        try:
            return Watched(clone, inputs, fold=fold)
        except checks.UnsoundError:
            raise
        except RuntimeError:
            clone = frozen(network)
    return Watched(clone, inputs, fold=fold)

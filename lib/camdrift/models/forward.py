"""A network's forward whose calls are those recorded, and those in place made out of place."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camdrift.models import checks, outputs
from camdrift.models.calls import (
    Call,
    Recording,
    UnwatchableError,
    memory,
    returns_tensor,
    tensors_in,
)


class OtherCallsError(checks.UnsoundError):
    """The forward makes other calls than when it was recorded.

    Args:
        call: that was recorded in its place; None: it made more calls.
    """

    def __init__(self, call: Call | None) -> None:
        where = "its end" if call is None else f"'{call.module or call.name}'"
        super().__init__(
            f"the network's forward makes other calls than when it was recorded, from {where} on; "
            "wanted images that take one path through the network in each call"
        )


@dataclass(eq=False)
class _Box:
    """The current tensor in place of all tensors that the network overwrote to obtain it."""

    tensor: Tensor


@dataclass(eq=False)
class _View:
    """A call whose results share the memory of a tensor that is written into later.

    function, args, kwargs: of the call, as the network gave them.
    results: that the network goes on with.
    source: that of the arguments whose memory they share.
    at: the tensor that stood in place of `source` when they were made, or made anew.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Tensor, ...]
    source: Tensor
    at: Tensor


class Forward(TorchFunctionMode):
    """A forward whose calls are counted, and those in place made out of place.

    In place they would overwrite results that are kept, or that a backward requires. The network
    may go on with the old tensor, in whose place the new one is then given to later calls. Views of
    the old tensor are made anew of the new one. A view is written into in place, of a copy of the
    tensor that it shows where a backward may need that.

    recording: of the forward.
    at: (place, result) -> the result that the network goes on with, of the calls at some places.
    known: whether the network has the parameters of the recorded one, and not copies of them.
    """

    def __init__(
        self,
        recording: Recording,
        at: Mapping[int, Callable[[Call, Tensor], Tensor]],
        *,
        known: bool = True,
    ) -> None:
        super().__init__()
        self._calls, self._at, self._known, self._place = recording.calls, at, known, -1
        self._weights = recording.weights
        self._views: list[_View] = []  # in the order of their calls
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
            raise OtherCallsError(next(iter(self._calls[self._place + 1 :]), None))
        self._release(outputs.tensors(output))
        return outputs.mapped(output, self._now) if self._instead else output

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        following = self._place + 1
        call = self._calls[following] if following < len(self._calls) else None
        # Not `is`: that of an attribute, such as `Tensor.T`, is another object each time.
        expected = call is not None and call.function == function
        arguments = args, kwargs
        target = apart = old = None
        if call is not None and expected:
            target, apart = call.target, call.view_target
        if target is not None:
            old = list(tensors_in(arguments))[target]
        if self._instead:
            args, kwargs = _replaced(args, self._instead), _replaced(kwargs, self._instead)
        if self._waiting and torch.is_grad_enabled() and self._release(tensors_in([args, kwargs])):
            args, kwargs = _replaced(args, self._instead), _replaced(kwargs, self._instead)
        if target is not None:
            result = _out_of_place(function, args, kwargs, target)
        elif apart is not None:
            values = _out_of_place(function, args, kwargs, apart)
            result = self._parted(list(tensors_in(arguments))[apart], values)
        else:
            result = function(*args, **kwargs)
            if not returns_tensor(function, result):
                return result
        other = self._known and call is not None and call.weights != self._ids(call, arguments)
        if call is None or not expected or other:
            self._place = len(self._calls)  # also where the network goes on after an error
            raise OtherCallsError(call)
        self._place = following
        if following in self._at and not call.graded:
            self._waiting[id(result)] = result, following
        elif following in self._at:
            result = self._at[following](call, result)
        if call.renewed:
            self._keep_view(function, arguments, result)
        if old is not None and call.graded and call.used_ungraded:
            # No call shows that an `autograd.Function` is given the old tensor.
            self._swap(old, result, call)
            return old
        if old is not None:
            self._put(old, result)
            self._renew()
        return result

    def _ids(self, call: Call, arguments: Any) -> tuple[int, ...]:
        """Returns the ids of the network's parameters among a call's arguments."""
        if not call.weights:
            return ()
        ids = (id(tensor) for tensor in tensors_in(arguments) if isinstance(tensor, nn.Parameter))
        return tuple(one for one in ids if one in self._weights)

    def _now(self, tensor: Tensor) -> Tensor:
        """Returns the tensor that stands in place of another, or that one."""
        return self._instead[id(tensor)][1].tensor if id(tensor) in self._instead else tensor

    def _keep_view(self, function: Callable[..., Any], arguments: Any, result: Any) -> None:
        """Keeps a call whose results are views of a tensor that is written into later."""
        results = tuple(tensors_in([result]))
        place = memory(results[0])
        sources = (tensor for tensor in tensors_in(arguments) if memory(self._now(tensor)) == place)
        source = next(sources, None)
        if source is not None:
            args, kwargs = arguments
            now = self._now(source)
            self._views.append(_View(function, args, kwargs, results, source, now))

    def _renew(self) -> None:
        """Makes the views of tensors anew that others stand in place of by now."""
        for view in self._views:
            now = self._now(view.source)
            if now is view.at:
                continue
            view.at = now
            args, kwargs = _replaced((view.args, view.kwargs), self._instead)
            results = tensors_in([view.function(*args, **kwargs)])
            for old, new in zip(view.results, results, strict=True):
                self._put(old, new)

    def _parted(self, tensor: Tensor, values: Tensor) -> Tensor:
        """Returns a view with other values, in a new memory of which no backward knows.

        All that share its memory go along.
        """
        target = self._now(tensor)
        whole, now = tensor, target
        for view in reversed(self._views):
            if any(self._now(result) is now for result in view.results):
                whole, now = view.source, view.at
        copied = now.clone()
        if copied.stride() == now.stride() and copied.dtype == target.dtype:
            # Written through `.data`, as under `torch.no_grad`, gradients pass as before.
            base = copied if target.requires_grad or not copied.requires_grad else copied.data
            offset = target.storage_offset() - now.storage_offset()
            base.as_strided(target.shape, target.stride(), offset).copy_(values)
            self._put(whole, copied)
            self._renew()
            return self._now(tensor)
        self._put(whole, copied)
        self._renew()
        return self._now(tensor).copy_(values)

    def _release(self, tensors: Iterable[Tensor]) -> bool:
        """Hooks the tensors among some that waited for it; returns whether there were any."""
        waited = [self._waiting.pop(id(t)) for t in tensors if id(t) in self._waiting]
        for tensor, place in waited:
            result = self._at[place](self._calls[place], tensor)
            if result is not tensor:
                self._put(tensor, result)
        return bool(waited)

    def _swap(self, old: Tensor, new: Tensor, call: Call) -> None:
        """Makes an old tensor the new one.

        Raises:
            UnwatchableError: views, or a backward, hold the old one.
        """
        box = self._instead.pop(id(old), (None, None))[1]  # without the reference, which forbids it
        try:
            torch.utils.swap_tensors(old, new)
        except RuntimeError as fault:
            where = f"'{call.module}'" if call.module else "the forward"
            raise UnwatchableError(
                f"{where} writes into a tensor by {call.name}, of which there are views, and uses "
                "it under `torch.no_grad` or in an `autograd.Function`; wanted the same out of "
                "place, such as `x = x + y` instead of `x += y`"
            ) from fault
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
    return value


COUNTERPARTS = {
    Tensor.__iadd__: Tensor.__add__, Tensor.__isub__: Tensor.__sub__,
    Tensor.__imul__: Tensor.__mul__, Tensor.__itruediv__: Tensor.__truediv__,
}  # fmt: skip


def _out_of_place(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], target: int
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
    tensor = list(tensors_in([args, kwargs]))[target]
    box = _Box(tensor.clone())
    if args and args[0] is tensor:  # and nowhere else: a backward may need it as it was
        result = function(box.tensor, *args[1:], **kwargs)
        return box.tensor if result is None else result
    copied = {id(tensor): (tensor, box)}
    result = function(*_replaced(args, copied), **_replaced(kwargs, copied))
    return box.tensor if result is None else result

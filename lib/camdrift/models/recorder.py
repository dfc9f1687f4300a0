"""Recorder: records the torch calls of a network's forward, see `calls`.

A `TorchFunctionMode` sees every call of an eager forward: functions and modules, in place, in
loops, under forward hooks and in a user's `autograd.Function`. It does not see into scripted
functions and `multi_head_attention_forward`, which are one call each.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from camdrift.models import checkpoints, outputs
from camdrift.models.calls import (
    CONVS,
    PERHAPS_VIEWS,
    Call,
    Recording,
    function_name,
    memory,
    returns_tensor,
    tensors_in,
)
from camdrift.models.submodules import submodules

RANDOM = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    F.rrelu,
}  # fmt: skip


def _in_training(function: Callable[..., Any], args: Sequence[Any], kwargs: dict) -> bool:
    """Returns whether a norm takes statistics of its batch, or a dropout draws."""
    names = {
        F.batch_norm: ("input", "mean", "var", "weight", "bias", "training"),
        torch.batch_norm: ("input", "weight", "bias", "mean", "var", "training"),
        torch.dropout: ("input", "p", "train"),
    }.get(function)
    if names is None:
        return function in RANDOM and bool(kwargs.get("training", False))
    return bool((dict(zip(names, args, strict=False)) | kwargs).get(names[-1]))


def _remedy(module: nn.Module | None) -> str:
    """Returns how a call as in training is avoided, by the module that makes it."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return "track_running_stats=True"
    if isinstance(
        module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd | nn.RReLU
    ):
        return "a train() that leaves it in eval mode when the network is"
    return "training=self.training"


class _Recorder(TorchFunctionMode):
    def __init__(self, inputs: Tensor, weights: Iterable[Tensor], paths: Iterable[str]) -> None:
        super().__init__()
        self.paths = frozenset(paths)  # of the network's modules
        self.calls: list[Call] = []
        self.stack: list[tuple[str, nn.Module]] = []  # the modules that are being called
        self.latest: dict[int, int] = {}  # by id of a tensor: the call that made its values
        self.versions: list[tuple[Tensor, int]] = []  # of each call's result
        self.numbers: Counter[str] = Counter()
        self.results: dict[str, int] = {}
        self.inputs = inputs
        # By the place of their memory, the oldest first: all tensors. As long as they are held,
        # ids and places are theirs alone.
        self.held: dict[int, list[Tensor]] = {}
        # By id of a tensor that is not its memory's first: the call that returned it.
        self.views: dict[int, int] = {}
        self.kept: set[int] = set()  # memories that a backward may need
        self.overwritten: set[int] = set()  # memories that a call wrote into
        self.perhaps_views: set[int] = set()  # memories that are two or one, by the layout
        self.depends_on_layout = False
        self.weights: dict[int, list[Tensor]] = {}  # by the place of their memory
        self.originals: dict[int, list[Tensor]] = {}  # what they were before a call wrote into them
        for weight in weights:
            self.weights.setdefault(memory(weight), []).append(weight)
            self._hold(weight)
        self._hold(inputs)

    def _hold(self, tensor: Tensor) -> bool:
        """Holds a tensor; returns whether it shares the memory of an older one."""
        alike = self.held.setdefault(memory(tensor), [])
        if any(tensor is one for one in alike):
            return False
        alike.append(tensor)
        return len(alike) > 1

    def returned(self, path: str, result: Any) -> None:
        """Notes the calls that made a module's result, or the entries of it."""
        for steps, tensor in outputs.named_tensors(result):
            place = self.latest.get(id(tensor))
            name = ".".join(filter(None, [path, *map(str, steps)]))
            own = not steps or name not in self.paths
            if place is not None and own and self.calls[place].results == 1:
                self.results[name] = place

    def restore_weights(self) -> None:
        """Gives weights that were overwritten a memory of their own, and the shared one back."""
        for place, values in self.originals.items():
            for weight, value in zip(self.weights[place], values, strict=True):
                own = weight.detach().clone()
                weight.data.copy_(value)
                weight.data = own

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        used = list(tensors_in([args, kwargs]))
        versions = [_version(tensor) for tensor in used]
        if used and _may_write(function, kwargs):
            for place in {memory(tensor) for tensor in used} & self.weights.keys():
                if place not in self.originals:
                    self.originals[place] = [
                        weight.detach().clone() for weight in self.weights[place]
                    ]
        result = function(*args, **kwargs)
        if not returns_tensor(function, result):
            return result
        results = [args[0]] if function is Tensor.__setitem__ else list(tensors_in([result]))
        place = len(self.calls)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        module = self.stack[-1][1] if self.stack else None
        known = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
        for tensor in used:
            self._hold(tensor)
        changed = [  # of one memory: its views, too
            tensor
            for tensor, version in zip(used, versions, strict=True)
            if _version(tensor) != version
            or (tensor.is_inference() and any(tensor is one for one in results))
        ]
        whole = isinstance(result, Tensor) or function is Tensor.__setitem__
        into = next((i for i, t in enumerate(used) if whole and t is results[0]), None)
        if into is None or {memory(used[into])} != {memory(tensor) for tensor in changed}:
            into = None
        apart = into is not None and self._is_view(used[into])
        call = Call(
            function,
            *self._names(function),
            tuple(dict.fromkeys(self.latest[id(t)] for t in used if id(t) in self.latest)),
            None if first is None else self.latest.get(id(first)),
            tuple(id(t) for t in used if isinstance(t, nn.Parameter)),
            tuple(results[0].shape),
            len(results),
            None if apart else into,
            into if into is not None and apart and self._is_needed(into, used) else None,
            _in_training(function, args, kwargs) and self._of_images([args[0]]),
            self._of_images(used),
            torch.is_grad_enabled(),
            type(module).__name__ if known else f"{function_name(function)}(training=True)",
            _remedy(module),
        )
        self.calls.append(call)
        for tensor in changed:
            self._write(tensor, call, place)
        for source in call.inputs:
            self.calls[source].users.append(place)
            self.calls[source].used_ungraded |= not call.graded
        views = [tensor for tensor in results if self._hold(tensor)]
        self.views |= {id(tensor): place for tensor in views}
        self._keep(call, used, changed, results, views)
        if function in PERHAPS_VIEWS:
            self.perhaps_views |= {memory(tensor) for tensor in [*used, *results]}
        for tensor in results:
            self.latest[id(tensor)] = place
        self.versions.append((results[0], _version(results[0])))
        return result

    def _is_view(self, tensor: Tensor) -> bool:
        """Returns whether a tensor shares the memory of an older one."""
        return tensor._is_view() or id(tensor) in self.views

    def _is_needed(self, into: int, used: list[Tensor]) -> bool:
        """Returns whether a view cannot be written into as it is.

        A backward may need what stood in its memory, or autograd forbids it, as for one of several
        views that a call returned.
        """
        place = memory(used[into])
        others = (tensor for tensor in used if tensor is not used[into])
        maker = self.views.get(id(used[into]))
        several = maker is not None and self.calls[maker].results > 1
        return place in self.kept or several or any(memory(other) == place for other in others)

    def _write(self, tensor: Tensor, call: Call, place: int) -> None:
        """Notes that a call writes into a tensor, and so into all that share its memory."""
        others = self.held[memory(tensor)]
        before = [self.latest[id(t)] for t in others if id(t) in self.latest]
        call.inputs = tuple(dict.fromkeys([*call.inputs, *before]))
        for source in before:
            self.calls[source].overwritten = True
        if call.target is not None or call.view_target is not None:
            for other in others:
                if id(other) in self.views and other is not tensor:
                    self.calls[self.views[id(other)]].renewed = True
        if call.view_target is not None and id(tensor) in self.views:
            self.calls[self.views[id(tensor)]].renewed = True
        self.latest |= {id(t): place for t in others}
        self.overwritten.add(memory(tensor))
        self.depends_on_layout |= memory(tensor) in self.perhaps_views

    def _keep(
        self,
        call: Call,
        used: list[Tensor],
        changed: list[Tensor],
        results: list[Tensor],
        views: list[Tensor],
    ) -> None:
        """Notes the memories that a backward through a call may need."""
        self.kept -= {memory(tensor) for tensor in changed}
        if call.graded and not views and not changed:
            self.kept |= {memory(tensor) for tensor in used}
        if call.graded and call.of_images and not changed:
            self.kept |= {memory(tensor) for tensor in results}

    def _of_images(self, tensors: Iterable[Tensor]) -> bool:
        """Returns whether tensors depend on the network's inputs, and not on weights alone."""
        return any(
            tensor is self.inputs
            or (id(tensor) in self.latest and self.calls[self.latest[id(tensor)]].of_images)
            for tensor in tensors
        )

    def _names(self, function: Callable[..., Any]) -> tuple[str, str]:
        path, module = self.stack[-1] if self.stack else ("", None)
        own = isinstance(module, nn.Conv2d | nn.Linear) and function in CONVS | {F.linear}
        name = path if own else function_name(function)
        self.numbers[name] += 1
        number = self.numbers[name]
        if own:
            return path, name if number == 1 else f"{name}:{number}"
        return path, name if number == 1 else f"{name}_{number - 1}"


def _may_write(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Returns whether a call may write into an argument, by the names that PyTorch gives."""
    name = function_name(function)
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in WRITING or "out" in kwargs or bool(kwargs.get("inplace"))


WRITING = {
    "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__",
    "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__",
}  # fmt: skip


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


@contextlib.contextmanager
def _stacked(modules: Mapping[str, nn.Module], recorder: _Recorder) -> Iterator[None]:
    """Keeps the recorder's stack of the network's modules, with their paths, in the block."""
    stack = recorder.stack
    paths = {id(module): path for path, module in modules.items()}
    here = threading.get_ident()  # the hooks are of all modules, also those of other threads

    def enter(module: nn.Module, _: Any) -> None:
        if threading.get_ident() == here and id(module) in paths:
            stack.append((paths[id(module)], module))

    def leave(module: nn.Module, _: Any, result: Any) -> None:
        if threading.get_ident() == here and id(module) in paths and stack:
            recorder.returned(stack.pop()[0], result)

    hooks = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def record(network: nn.Module, inputs: Tensor) -> Recording:
    """Returns the calls of a network's forward.

    Args:
        network: in eval mode.
        inputs: of one image at least.
    """
    inputs = inputs.clone()  # a forward may write into it
    modules = dict(submodules(network))
    before = _tensors(modules)
    states = {name: _state(tensor) for name, tensor in before.items()}
    parameters = [tensor for tensor in before.values() if isinstance(tensor, nn.Parameter)]
    recorder = _Recorder(inputs, parameters, modules)
    try:
        # Gradients are enabled, to see where the forward disables them; nothing requires one.
        with _stacked(modules, recorder), torch.enable_grad(), checkpoints.passed(), recorder:
            output = network(inputs)
    finally:
        recorder.restore_weights()
    for call, (tensor, version) in zip(recorder.calls, recorder.versions, strict=True):
        call.overwritten |= _version(tensor) != version
    ends = [recorder.latest[id(t)] for t in outputs.tensors(output) if id(t) in recorder.latest]
    _mark(recorder.calls, ends)
    after = _tensors(modules)
    weights = frozenset(map(id, after.values())) & frozenset(map(id, parameters))
    for call in recorder.calls:
        call.weights = tuple(weight for weight in call.weights if weight in weights)
    changed = {
        name
        for name, tensor in before.items()
        if name not in after
        or _state(after[name]) != states[name]
        or memory(tensor) in recorder.overwritten
    }
    height, width = inputs.shape[-2:]
    return Recording(
        recorder.calls,
        len(inputs),
        (height, width),
        frozenset(ends),
        recorder.results,
        weights,
        frozenset(changed),
        bool(recorder.originals),
        recorder.depends_on_layout,
    )


def _tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Returns the parameters and buffers of modules by name."""
    return {
        f"{path}.{name}" if path else name: tensor
        for path, module in modules.items()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


def _state(tensor: Tensor) -> tuple[int, int, int]:
    """Returns what differs after a tensor was replaced or overwritten."""
    return id(tensor), _version(tensor), memory(tensor)


def _mark(calls: list[Call], ends: list[int]) -> None:
    """Marks the calls on which the ends depend."""
    waiting = list(ends)
    while waiting:
        call = calls[waiting.pop()]
        if not call.matters:
            call.matters = True
            waiting.extend(call.inputs)

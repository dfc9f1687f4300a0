"""Calls: the torch calls of a network's forward, and which call uses the result of which.

A `TorchFunctionMode` sees every call of an eager forward: functions and modules, in place, in
loops, under forward hooks and in a user's `autograd.Function`. It does not see into scripted
functions and `multi_head_attention_forward`, which are one call each.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from camdrift.models.submodules import submodules
from camdrift.settings import SettingsError

ATTENTIONS = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
SOFTMAXES = {F.softmax, torch.softmax, Tensor.softmax}
MATMULS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum}
TRANSPOSES = {
    torch.transpose, Tensor.transpose, torch.permute, Tensor.permute, torch.swapaxes,
    Tensor.swapaxes, torch.swapdims, Tensor.swapdims,
}  # fmt: skip
# Of the same values at other places, some of them left out or repeated.
LAYOUTS = TRANSPOSES | {
    Tensor.view, torch.reshape, Tensor.reshape, torch.flatten, Tensor.flatten, torch.unflatten,
    Tensor.unflatten, Tensor.contiguous, torch.roll, Tensor.roll, F.pad, Tensor.__getitem__,
    torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.movedim,
    Tensor.movedim, torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.unbind,
    Tensor.unbind, Tensor.expand, Tensor.clone, torch.clone,
}  # fmt: skip
# Of the tensor itself or a view of it, or a copy, by its layout.
PERHAPS_VIEWS = {
    Tensor.contiguous, torch.reshape, Tensor.reshape, torch.flatten, Tensor.flatten,
}  # fmt: skip
CONVS = {F.conv2d, torch.conv2d}
NORMS = {
    F.batch_norm, torch.batch_norm, F.group_norm, F.layer_norm, F.instance_norm,
    F.local_response_norm,
}  # fmt: skip
# Of the same values in eval mode.
IDENTITIES = {F.dropout, F.dropout2d, torch.dropout, Tensor.contiguous}
ADDS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}
PRODUCTS = {torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__}
CONCATS = {torch.cat, torch.concat, torch.concatenate}
MAX_POOLS = {F.max_pool2d, torch.max_pool2d}
POOLS = MAX_POOLS | {F.avg_pool2d}
ACTIVATIONS = {
    F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.gelu, F.silu, F.mish,
    F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.selu, torch.selu_, F.celu, torch.celu_,
    F.hardswish, F.hardsigmoid, F.hardtanh, F.hardtanh_, F.softplus, F.prelu, torch.prelu,
    F.rrelu, F.rrelu_, F.threshold, F.glu, F.softsign, F.softshrink, F.hardshrink, F.tanhshrink,
    F.logsigmoid, torch.sigmoid, torch.sigmoid_, F.sigmoid, Tensor.sigmoid, Tensor.sigmoid_,
    torch.tanh, torch.tanh_, F.tanh, Tensor.tanh, Tensor.tanh_,
}  # fmt: skip


NAMED = 3  # calls or tensors in a message


class UnwatchableError(SettingsError):
    """The network's forward cannot be watched, or has no hook point."""


@dataclass
class Call:
    """One call that returned a tensor, or wrote into one.

    function: the torch function.
    module: the path of the innermost module that made it.
    name: the module's path for a conv or dense layer, ':2' behind it at its second call; else the
        function's name, numbered.
    inputs: places of the calls whose results it uses.
    first: that of its first argument, None where it is no result.
    users: places of the calls that use its result.
    weights: ids of the parameters that it uses.
    shape: of its result, the first of several.
    results: number of tensors that it returns.
    target: index, among its tensor arguments, of the one that it writes into; None if it writes
        into none, or into one that shares the memory of an older tensor, such as a view.
    view_target: the same of a tensor that shares the memory of an older one, where a backward may
        need what stood in that memory before.
    overwritten: whether a later call writes into its result.
    renewed: whether its result shares the memory of an older tensor, and a later call writes there.
    matters: whether the network's output depends on it.
    used_ungraded: whether a call that no gradient can pass uses its result.
    training: whether it works on images as in training: by statistics of the batch, or at random.
    of_images: whether it uses anything that depends on the network's inputs.
    graded: whether a gradient can pass it: not under `no_grad`, in which the forward of an
        `autograd.Function` runs, too.
    kind: of a call as in training: the class of its module, or the function.
    remedy: how a call as in training is avoided.
    """

    function: Callable[..., Any]
    module: str
    name: str
    inputs: tuple[int, ...]
    first: int | None
    weights: tuple[int, ...]
    shape: tuple[int, ...]
    results: int
    target: int | None
    view_target: int | None
    training: bool
    of_images: bool
    graded: bool
    kind: str
    remedy: str
    users: list[int] = field(default_factory=list)
    overwritten: bool = False
    renewed: bool = False
    matters: bool = False
    used_ungraded: bool = False


@dataclass(frozen=True)
class Recording:
    """The calls of one forward.

    calls: in order.
    images: number of images.
    size: height and width of the inputs in px.
    ends: places of the calls whose results are in the output.
    results: by path of a module: the place of the call that returned its result, of the module's
        last call. Of a result that holds tensors, by the path to each, as 'encoder.0.features'.
        Tensors that are one of several of a call are left out.
    weights: ids of the parameters that the network had before the forward and has after it.
    changed: names of the parameters and buffers that the forward replaces or overwrites.
    overwrites_weights: whether the forward overwrites a parameter.
    depends_on_layout: whether the forward writes into a tensor that is, in one layout, a view of
        another, and in another layout a copy.
    """

    calls: list[Call]
    images: int
    size: tuple[int, int]
    ends: frozenset[int]
    results: dict[str, int]
    weights: frozenset[int] = frozenset()
    changed: frozenset[str] = frozenset()
    overwrites_weights: bool = False
    depends_on_layout: bool = False


def suspects(recording: Recording) -> str:
    """Returns what may make a network's logits differ from call to call, for a message."""
    draws = [
        f"{_name(call.function)} in '{call.module}'" if call.module else _name(call.function)
        for call in recording.calls
        if call.matters and _name(call.function) in DRAWING
    ]
    parts = []
    if draws:
        parts.append(f"it calls {', '.join(list(dict.fromkeys(draws))[:NAMED])}")
    if recording.changed:
        parts.append(f"it changes {', '.join(sorted(recording.changed)[:NAMED])}")
    return f" ({'; '.join(parts)})" if parts else ""


def returns_tensor(function: Callable[..., Any], result: Any) -> bool:
    """Returns whether a call counts: it returns tensors, or writes into one."""
    if isinstance(result, Tensor) or function is Tensor.__setitem__:
        return True
    return isinstance(result, tuple | list) and any(isinstance(part, Tensor) for part in result)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yields the tensors among values and in their lists, tuples and dicts."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


# By their names: calls that draw at random.
DRAWING = {
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli",
    "bernoulli_", "multinomial", "normal", "normal_", "uniform_", "random_", "poisson",
    "exponential_", "geometric_", "cauchy_", "log_normal_", "gumbel_softmax",
}  # fmt: skip
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
            type(module).__name__ if known else f"{_name(function)}(training=True)",
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
        name = path if own else _name(function)
        self.numbers[name] += 1
        number = self.numbers[name]
        if own:
            return path, name if number == 1 else f"{name}:{number}"
        return path, name if number == 1 else f"{name}_{number - 1}"


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))


def _may_write(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Returns whether a call may write into an argument, by the names that PyTorch gives."""
    name = _name(function)
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in WRITING or "out" in kwargs or bool(kwargs.get("inplace"))


WRITING = {
    "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__",
    "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__",
}  # fmt: skip


def memory(tensor: Tensor) -> int:
    """Returns the place of a tensor's memory, which its views share; its id where it has none."""
    try:
        place = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, or of a function transform
        place = 0
    return place or -id(tensor)


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

"""Calls: the torch calls of a network's forward, and which call uses the result of which.

A `TorchFunctionMode` sees every call of an eager forward: functions and modules, in place, in
loops, under forward hooks and in a user's `autograd.Function`. It does not see into scripted
functions and `multi_head_attention_forward`, which are one call each.
"""

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from camdrift.models import checkpoints
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
    written: index, among its tensor arguments, of the one that it writes into; None if it writes
        into none, or into a view of another tensor.
    overwritten: whether a later call writes into its result.
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
    written: int | None
    training: bool
    of_images: bool
    graded: bool
    kind: str
    remedy: str
    users: list[int] = field(default_factory=list)
    overwritten: bool = False
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
        last call; modules whose result is no tensor, or one of several of a call, are left out.
    """

    calls: list[Call]
    images: int
    size: tuple[int, int]
    ends: frozenset[int]
    results: dict[str, int]


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


CONTAINERS = (Tensor, list, tuple, dict)


def attributes(output: Any) -> dict[str, Any]:
    """Returns the attributes of an object, none of one that has neither dict nor fields."""
    if dataclasses.is_dataclass(output):
        return {part.name: getattr(output, part.name) for part in dataclasses.fields(output)}
    return dict(getattr(output, "__dict__", {}))


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
    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.stack: list[tuple[str, nn.Module]] = []  # the modules that are being called
        self.latest: dict[int, int] = {}  # by id of a tensor: the call that made its values
        self.held: list[Tensor] = [inputs]  # as long as they are, ids are theirs alone
        self.versions: list[tuple[Tensor, int]] = []  # of each call's result
        self.numbers: Counter[str] = Counter()
        self.results: dict[str, int] = {}

    def returned(self, path: str, result: Any) -> None:
        """Notes the call that made a module's result."""
        place = self.latest.get(id(result)) if isinstance(result, Tensor) else None
        if place is not None and self.calls[place].results == 1:
            self.results[path] = place

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if not returns_tensor(function, result):
            return result
        results = [args[0]] if function is Tensor.__setitem__ else list(tensors_in([result]))
        used = list(tensors_in([args, kwargs]))
        place = len(self.calls)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        module = self.stack[-1][1] if self.stack else None
        known = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
        call = Call(
            function,
            *self._names(function),
            tuple(dict.fromkeys(self.latest[id(t)] for t in used if id(t) in self.latest)),
            None if first is None else self.latest.get(id(first)),
            tuple(id(t) for t in used if isinstance(t, nn.Parameter)),
            tuple(results[0].shape),
            len(results),
            _written(results, used),
            _in_training(function, args, kwargs) and self._of_images([args[0]]),
            self._of_images(used),
            torch.is_grad_enabled(),
            type(module).__name__ if known else f"{_name(function)}(training=True)",
            _remedy(module),
        )
        if function is Tensor.__setitem__ or any(r is u for r in results for u in used):
            # Written in place: so are the tensor's views, and that of which it is one.
            others = [t for t in self.held if _share(t, results[0])]
            before = [self.latest[id(t)] for t in others if id(t) in self.latest]
            call.inputs = tuple(dict.fromkeys([*call.inputs, *before]))
            self.latest |= {id(t): place for t in others}
        self.calls.append(call)
        for source in call.inputs:
            self.calls[source].users.append(place)
            self.calls[source].used_ungraded |= not call.graded
        for tensor in results:
            self.latest[id(tensor)] = place
        self.held += results
        self.versions.append((results[0], _version(results[0])))
        return result

    def _of_images(self, tensors: Iterable[Tensor]) -> bool:
        """Returns whether tensors depend on the network's inputs, and not on weights alone."""
        return any(
            tensor is self.held[0]
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


def _written(results: list[Tensor], used: list[Tensor]) -> int | None:
    """Returns the place of the argument that a call returns, unless it is a view."""
    places = (place for place, tensor in enumerate(used) if any(tensor is one for one in results))
    place = next(places, None)
    return None if place is None or used[place]._is_view() else place


def _share(one: Tensor, other: Tensor) -> bool:
    """Returns whether tensors share their memory."""
    if one.layout != torch.strided or other.layout != torch.strided:
        return one is other
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


@contextlib.contextmanager
def _modules(network: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Keeps the recorder's stack of the network's modules, with their paths, in the block."""
    stack = recorder.stack
    paths = {id(module): path for path, module in submodules(network)}
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
    recorder = _Recorder(inputs)
    # Gradients are enabled, to see where the forward disables them; nothing requires one.
    with _modules(network, recorder), torch.enable_grad(), checkpoints.passed(), recorder:
        output = network(inputs)
    for call, (tensor, version) in zip(recorder.calls, recorder.versions, strict=True):
        call.overwritten = _version(tensor) != version
    returned = tensors_in([output if isinstance(output, CONTAINERS) else attributes(output)])
    ends = [recorder.latest[id(t)] for t in returned if id(t) in recorder.latest]
    _mark(recorder.calls, ends)
    height, width = inputs.shape[-2:]
    return Recording(
        recorder.calls, len(inputs), (height, width), frozenset(ends), recorder.results
    )


def _mark(calls: list[Call], ends: list[int]) -> None:
    """Marks the calls on which the ends depend."""
    waiting = list(ends)
    while waiting:
        call = calls[waiting.pop()]
        if not call.matters:
            call.matters = True
            waiting.extend(call.inputs)

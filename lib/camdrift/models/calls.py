"""Calls: the torch calls of a network's forward, and which call uses the result of which."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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


# By their names: calls that draw at random.
DRAWING = {
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli",
    "bernoulli_", "multinomial", "normal", "normal_", "uniform_", "random_", "poisson",
    "exponential_", "geometric_", "cauchy_", "log_normal_", "gumbel_softmax",
}  # fmt: skip


def suspects(recording: Recording) -> str:
    """Returns what may make a network's logits differ from call to call, for a message."""
    draws = [
        f"{name} in '{call.module}'" if call.module else name
        for call in recording.calls
        if call.matters and (name := function_name(call.function)) in DRAWING
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


def memory(tensor: Tensor) -> int:
    """Returns the place of a tensor's memory, which its views share; its id where it has none."""
    try:
        place = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, or of a function transform
        place = 0
    return place or -id(tensor)


def function_name(function: Callable[..., Any]) -> str:
    """Returns the name of a torch function."""
    return str(getattr(function, "__name__", function))

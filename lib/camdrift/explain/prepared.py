"""A network that is ready to explain many times."""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camdrift.models import checks, copies, engine, outputs, selection
from camdrift.models.engine import Watched
from camdrift.models.forward import OtherCallsError
from camdrift.models.hook_points import HookPoint
from camdrift.models.model import Model
from camdrift.models.selection import Choice
from camdrift.models.snapshot import Snapshot
from camdrift.models.tensors import Inputs, Logits, PerImage

SIZES = 4  # of images, for which a network is kept ready
Layers = tuple[Tensor, ...]  # one tensor an image and a layer, in forward order
Score = Callable[[Any], PerImage] | str | int | Sequence[str | int] | None
Reshape = Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Explaining:
    """The layers, hook points and score that are explained, see `prepare`."""

    layers: tuple[str | int, ...] | None = None
    hook_points: Choice = None
    reshape: Reshape = None
    score: Score = None


@dataclass
class Prepared:
    """A network that is ready to explain, see `prepare`.

    network: its frozen copy, inputs -> output.
    inputs: pixels -> the network's inputs.
    explaining: what of it is explained.
    """

    network: nn.Module
    inputs: Callable[[Tensor], Tensor]
    explaining: Explaining
    # The original network, until its logits have been compared; in a list, to release it then.
    untried: list[nn.Module] = field(default_factory=list)
    # By shape of an image's inputs.
    _ready: dict[torch.Size, tuple[Watched, tuple[HookPoint, ...]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, pixels: Tensor) -> tuple[Watched, tuple[HookPoint, ...]]:
        """Returns the watched network and its hook points for images of this size."""
        return self._watch(self.inputs(pixels[:1]))

    def _watch(
        self, inputs: Inputs, *, anew: bool = False
    ) -> tuple[Watched, tuple[HookPoint, ...]]:
        shape = inputs.shape[1:]
        with self._lock:
            if anew or shape not in self._ready:
                # Folded, a conv's own result is that of its norm.
                fold = not isinstance(self.explaining.hook_points, tuple)
                watched = engine.watch(self.network, inputs, fold=fold)
                for old in list(self._ready)[: 1 - SIZES]:
                    del self._ready[old]
                self._ready[shape] = watched, self._points(watched)
            return self._ready[shape]

    def _points(self, watched: Watched) -> tuple[HookPoint, ...]:
        points = selection.select(
            watched.recording,
            self.explaining.hook_points,
            ordered=self.explaining.reshape is None,
        )
        layers = self.explaining.layers
        return points if layers is None else _layer_points(points, layers)

    def __call__(self, pixels: Tensor) -> tuple[Logits, Layers]:
        """Returns the logits, or the score, and the tensor of each hook point.

        The graph of gradients begins at these tensors.

        Raises:
            OtherCallsError: for these images the network has other layers than for those before.
        """
        inputs = self.inputs(pixels)
        watched, points = self._watch(inputs[:1])
        try:
            output, tensors = watched(inputs, points, leaves=True)
        except OtherCallsError:
            # Its calls depend on the number of images, or on their values.
            watched, now = self._watch(inputs, anew=True)
            if [point.name for point in now] != [point.name for point in points]:
                raise
            output, tensors = watched(inputs, now, leaves=True)
        return self.logits(output, len(inputs)), tensors

    def logits(self, output: Any, count: int) -> Logits:
        """Returns the logits (count, classes) in a network's output, or the score (count, 1).

        Raises:
            ValueError: there are none.
        """
        score = self.explaining.score
        if callable(score):
            # Tensors are laid out as the network's own would be.
            values = score(outputs.mapped(output, Tensor.contiguous))
            if not isinstance(values, Tensor) or values.shape != (count,):
                raise ValueError(
                    f"wanted a score ({count},), a number for each image, got {_shape(values)}"
                )
            return values[:, None].float()
        if score is not None:
            logits = outputs.entry(output, score)
        else:
            logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
            raise ValueError(
                f"wanted a network that returns ({count}, classes), got {_shape(logits)}; score= "
                f"names the entry of its output, or is a function of it{_fitting(output, count)}"
            )
        if logits.is_complex():
            raise ValueError(
                f"wanted real logits, got {logits.dtype}; score= is a function of the network's "
                "output that returns a real number for each image, such as "
                "lambda output: output.abs()[:, 0]"
            )
        return logits.float() if logits.itemsize < 4 else logits

    def compare(self, pixels: Inputs, logits: Logits) -> None:
        """Raises UnsoundError where the network itself returns other logits than `logits`.

        Only once: a network that passed is released. Both are called without autocast, whose
        rounding could hide a difference.
        """
        networks = self.untried[:1]  # another thread may release it in the meantime
        if not networks:
            return
        watched, _ = self.watch(pixels)
        if watched.recording.overwrites_weights:
            networks = [copy.deepcopy(networks[0])]  # it shares those of the user's network
        kind = pixels.device.type
        cast = torch.is_autocast_enabled(kind)
        with (
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            inputs = self.inputs(pixels)

            def call(network: nn.Module) -> Logits:
                return self.logits(network(inputs.clone()), len(inputs))

            if cast:
                logits = call(watched.network)
            own = call(networks[0])
            checks.refuse_other_logits(own, logits, lambda: call(networks[0]), watched.recording)
        self.untried.clear()


def _fitting(output: Any, count: int) -> str:
    """Returns the first entry of an output that is a tensor (count, classes), for a message."""
    for path, part in outputs.named_tensors(output):
        if part.ndim == 2 and len(part) == count and path:
            short = path[0] if len(path) == 1 else path
            if outputs.entry(output, short) is part:
                return f"; such as score={short!r}"
    return ""


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    return type(value).__name__


def _layer_points(
    points: tuple[HookPoint, ...], layers: Sequence[str | int]
) -> tuple[HookPoint, ...]:
    places: dict[str | int, int] = {point.name: place for place, point in enumerate(points)}
    places |= {place: place % len(points) for place in range(-len(points), len(points))}
    strange = [name for name in layers if name not in places]
    if strange or not layers:
        there = ", ".join(point.name for point in points)
        fault = f"no layer {strange[0]!r}" if strange else "wanted a layer at least, got none"
        raise ValueError(f"{fault}; there are, 0 to {len(points) - 1}: {there}")
    return tuple(points[place] for place in sorted({places[name] for name in layers}))


@torch.inference_mode(False)
def prepare(
    model: nn.Module,
    *,
    layers: Sequence[str | int] | None = None,
    hook_points: Choice = None,
    reshape: Reshape = None,
    score: Score = None,
) -> Prepared:
    """Returns a network ready to explain many times, with its weights as they are now.

    It is a copy in eval mode without hooks, its batch norm folded into its convs; the network
    itself is not changed. The network inside `DataParallel`, `DistributedDataParallel` and
    `torch.compile`'s wrapper is copied. A `Model` is frozen already and shares its weights. Several
    threads can call the prepared network. The first call compares its logits with those of the
    network itself.

    Args:
        model: a network, inputs -> logits, or a `Model`, pixels in [0, 1] -> logits.
        layers: to explain, by name, or by place in forward order (a negative one counts from the
            end); None is all. No backward reaches the earlier ones.
        hook_points: 'convs', 'blocks' or names of modules, see `selection.select`.
        reshape: a function, tokens (n, ...) -> (n, channels, height, width), for networks in which
            the places of the tokens in the image cannot be found automatically.
        score: the entry of the network's output that holds the logits: a name, a place, or several
            in turn, as ('heads', 0, 'logits') or 'heads.0.logits'; or a function of the output that
            returns the number to explain, (n,). None: the output, or its `logits`.

    Raises:
        UnwatchableError: the forward cannot be watched, or there is no hook point.
    """
    own = explaining(layers, hook_points, reshape, score)
    return wrap(model if isinstance(model, Model) else copy.deepcopy(copies.frozen(model)), own)


def explaining(
    layers: Sequence[str | int] | None, hook_points: Choice, reshape: Reshape, score: Score
) -> Explaining:
    """Returns what is explained, from the arguments of `prepare`."""
    if hook_points is not None and not isinstance(hook_points, str) and not callable(hook_points):
        hook_points = tuple(hook_points)
    if score is not None and not callable(score) and not isinstance(score, str | int):
        score = tuple(score)
    return Explaining(None if layers is None else tuple(layers), hook_points, reshape, score)


def wrap(model: nn.Module, explaining: Explaining) -> Prepared:
    """Returns a prepared network that shares the weights of a model."""
    if isinstance(model, Model):
        ready = Prepared(model.network, model.inputs, explaining)
        shape = torch.Size(model.shape)
        ready._ready[shape] = model.watched, ready._points(model.watched)
        return ready
    network = copies.frozen(model)
    kinds = (weight.dtype.to_real() for weight in network.parameters() if _is_number(weight))
    kind = next(kinds, torch.float32)

    def inputs(pixels: Tensor) -> Tensor:
        return pixels.to(kind) if pixels.is_floating_point() else pixels

    return Prepared(network, inputs, explaining, [copies.frozen(model, hooks=True)])


def _is_number(weight: Tensor) -> bool:
    return weight.is_floating_point() or weight.is_complex()


# The last prepared network of each network that was explained.
_latest: WeakKeyDictionary[nn.Module, tuple[Snapshot, Explaining, Prepared]] = WeakKeyDictionary()


def recall(model: nn.Module, explaining: Explaining) -> Prepared:
    """Returns a prepared network that shares weights; that of the last call, if nothing changed."""
    if isinstance(model, Model):
        return wrap(model, explaining)
    before = _latest.get(model)
    if before is not None and before[1] == explaining and before[0].holds(model):
        return before[2]
    ready = wrap(model, explaining)
    _latest[model] = Snapshot(model), explaining, ready
    return ready

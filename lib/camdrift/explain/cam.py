"""Class-activation maps: raw, at every conv layer, from one forward and one backward a class."""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camdrift.explain import external
from camdrift.explain.methods import blind, by_name, library
from camdrift.models import checks, hook_points
from camdrift.models.hook_points import HookPoint, Watched
from camdrift.models.model import Model, padded
from camdrift.models.tensors import Inputs, Labels, Logits, Pixels
from camdrift.storage import OWN, SEED

Layers = tuple[Tensor, ...]  # one tensor (n, h, w) a layer, in forward order
Maps = dict[str, Layers]  # by method
GRAD_CAM = "GradCAM"
FIRST = 8  # images to explain at once before their memory is known
MOST = 64
# Most memory of an image, in sizes of its tapped tensors: these, the tensors between them, their
# gradients, and a method's own tensors.
HELD = 6


@dataclass
class Prepared:
    """A network that is ready to explain, see `prepare`.

    network: its frozen copy, inputs -> logits.
    inputs: pixels -> the network's inputs.
    chosen: layers by name or place, None for all.
    """

    network: nn.Module
    inputs: Callable[[Tensor], Tensor]
    chosen: Sequence[str | int] | None
    # The original network, until its logits have been compared; in a list, to release it then.
    untried: list[nn.Module] = field(default_factory=list)
    _watched: Watched | None = None
    _points: tuple[HookPoint, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, pixels: Tensor) -> tuple[Watched, tuple[HookPoint, ...]]:
        """Returns the watched network and its hook points, found with the first of these pixels."""
        with self._lock:
            if self._watched is None:
                self._watched = hook_points.watch(self.network, self.inputs(pixels[:1]))
                points = hook_points.of_maps(self._watched.calls)
                self._points = points if self.chosen is None else _selection(points, self.chosen)
        return self._watched, self._points

    def __call__(self, pixels: Tensor) -> tuple[Any, Layers]:
        """Returns the network's output and the tensor of each hook point.

        The graph of gradients begins at these tensors.
        """
        watched, points = self.watch(pixels)
        return watched(self.inputs(pixels), points, leaves=True)

    def compare(self, pixels: Inputs, logits: Logits) -> None:
        """Raises UnsoundError where the network itself returns other logits than `logits`.

        Only once: a network that passed is released. Both are called without autocast, whose
        rounding could hide a difference.
        """
        networks = self.untried[:1]  # another thread may release it in the meantime
        if not networks:
            return
        kind = pixels.device.type
        cast = torch.is_autocast_enabled(kind)
        with (
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            if cast:
                watched, _ = self.watch(pixels)
                pixels = pixels.to(next(self.network.parameters()).dtype)
                logits = watched.network(self.inputs(pixels))
            inputs = self.inputs(pixels)
            own = networks[0](inputs)
            checks.refuse_other_logits(own, logits, lambda: networks[0](inputs))
        self.untried.clear()


@dataclass(frozen=True)
class Explained:
    """Maps of images, see `all_layers`.

    layers: names, in forward order.
    targets: the explained classes, (n,), or (n, k) for several an image.
    maps: by method, a tensor a layer, (n, h, w) or (n, k, h, w): raw, not negative.
    """

    layers: tuple[str, ...]
    logits: Logits
    targets: Tensor
    maps: Maps

    def scaled(self, size: int | None = None) -> Maps:
        """Returns the maps divided by their maxima, in [0, 1], and resized (bilinear) to `size` px.

        An empty map stays empty.
        """
        by_method = {}
        for name, maps in self.maps.items():
            tops = [layer.amax((-2, -1), keepdim=True) for layer in maps]
            shares = [m / torch.where(top > 0, top, 1) for m, top in zip(maps, tops, strict=True)]
            if size is not None:
                shares = [_resize(layer, size) for layer in shares]
            by_method[name] = tuple(shares)
        return by_method


def _resize(maps: Tensor, size: int) -> Tensor:
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, (size, size), mode="bilinear").reshape(*maps.shape[:-2], size, size)


@torch.inference_mode(False)
def prepare(model: nn.Module, *, chosen: Sequence[str | int] | None = None) -> Prepared:
    """Returns a network ready to explain many times, which saves each call the preparation.

    It is a copy in eval mode, with the present weights, without in-place operations and hooks, its
    batch norm folded into its convs; the network itself is not changed. A `Model` is frozen already
    and shares its weights.
    Several threads can call the prepared network; but preparing must not run while another thread
    calls a network, since `torch.fx` changes the calling of modules while it traces one.

    Args:
        model: a network, inputs -> logits, or a `Model`, pixels in [0, 1] -> logits.
        chosen: layers by name, or by place in forward order (a negative one counts from the end);
            None is all. Earlier layers are not explained, and no backward reaches them.

    The first call compares its logits with those of the network itself.

    Raises:
        UnwatchableError: the forward cannot be watched, or there is no conv layer.
        ValueError: there is no layer of a name or at a place.
    """
    return _prepared(
        model if isinstance(model, Model) else copy.deepcopy(hook_points.frozen(model)), chosen
    )


def _prepared(
    model: nn.Module, layers: Sequence[str | int] | None, *, compared: bool = False
) -> Prepared:
    """Returns a prepared network that shares weights; `compared`: its logits have been compared."""
    if isinstance(model, Model):
        points = model.maps if layers is None else _selection(model.maps, layers)
        return Prepared(model.network, model.inputs, layers, [], model.watched, points)
    untried = [] if compared else [hook_points.frozen(model)]
    return Prepared(hook_points.frozen(model), _unchanged, layers, untried)


# Networks whose logits have been compared, each with the versions of its weights at that time.
_compared: WeakKeyDictionary[nn.Module, list[tuple[int, int]]] = WeakKeyDictionary()


def _weights(network: nn.Module) -> list[tuple[int, int]]:
    """Returns the identities and versions of weights and buffers, which change when these do."""
    tensors = [*network.parameters(), *network.buffers()]
    # Tensors that were created in inference mode have no version.
    return [(id(t), 0 if t.is_inference() else t._version) for t in tensors]


def _unchanged(pixels: Tensor) -> Tensor:
    return pixels


def _selection(points: tuple[HookPoint, ...], layers: Sequence[str | int]) -> tuple[HookPoint, ...]:
    places: dict[str | int, int] = {point.name: place for place, point in enumerate(points)}
    places |= {place: place % len(points) for place in range(-len(points), len(points))}
    strange = [name for name in layers if name not in places]
    if strange or not layers:
        there = ", ".join(point.name for point in points)
        fault = f"no layer {strange[0]!r}" if strange else "wanted a layer at least, got none"
        raise ValueError(f"{fault}; there are, 0 to {len(points) - 1}: {there}")
    return tuple(points[place] for place in sorted({places[name] for name in layers}))


@torch.inference_mode(False)
@torch.enable_grad()
def all_layers(
    model: nn.Module | Prepared,
    pixels: Tensor,
    targets: Tensor | int | None = None,
    *,
    methods: Sequence[str] = (GRAD_CAM,),
    chosen: Sequence[str | int] | None = None,
    softmax: bool = False,
    micro_batch: int | None = None,
    memory: float | None = None,
) -> Explained:
    """Returns the maps of images by several methods at all conv layers, raw, at their own sizes.

    One forward and, for each class of an image, one backward to the layers' tensors, for any number
    of methods: no gradient of a weight or of the pixels is computed. If all images of a call of the
    network have one class twice, it is explained once. The network is not changed, not even after
    an error. Works under `torch.autocast` (maps are float32 all the same), under `torch.no_grad`
    and with the network on any device; results are on the device of `pixels`. At the first call
    with a network, and again when its weights have changed, its logits are compared with those that
    the network itself returns for the first images.

    Args:
        model: a network, inputs -> logits; a `Model`; or either as `prepare` returns it, which
            saves every call the preparation and keeps the weights of that time.
        pixels: (n, c, h, w), the inputs of the network, or the pixels of a `Model`.
        targets: classes to explain: one, (n,), (n, k) for several an image, or None for each
            image's own top class.
        methods: by name, see `methods`, or classes of pytorch-grad-cam, see `external`.
        chosen: layers, as in `prepare`.
        softmax: whether maps explain the class's probability and not its logit.
        micro_batch: the fixed number of images in each call of the network, the last call padded
            with copies: an image's results then do not depend on the images beside it. None: as
            many as `memory` allows; then they do, in the last digits.
        memory: bytes to use beyond the results; None: half of the free memory.

    Raises:
        SettingsError: there is no method of a name.
        UnwatchableError: the forward cannot be watched, or there is no conv layer.
        UnsoundError: the network itself returns other logits.
        ValueError: targets, layers, pixels or the network's output do not fit.
        FloatingPointError: a map is not finite.
    """
    if isinstance(model, Prepared) and chosen is not None:
        raise ValueError("wanted layers chosen when the network was prepared, got them again")
    if pixels.ndim != 4 or not len(pixels):
        raise ValueError(f"wanted pixels (n, c, h, w) of an image at least, got {pixels.shape}")
    if isinstance(model, Prepared):
        ready = model
    else:
        weights = _weights(model)
        ready = _prepared(model, chosen, compared=_compared.get(model) == weights)
    aims = _targets(targets, len(pixels))
    device = next(ready.network.parameters()).device
    parts: list[tuple[Tensor, Tensor, Maps]] = []
    size, start = micro_batch or (FIRST if memory is None else 1), 0
    while start < len(pixels):
        batch = pixels[start : start + size].detach()
        rows = len(batch)
        if micro_batch:
            batch = padded(batch, micro_batch)
        batch = batch.to(device)
        logits, tensors = ready(batch)
        if (
            not isinstance(logits, Tensor)
            or logits.shape[:1] != batch.shape[:1]
            or logits.ndim != 2
        ):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"wanted a network that returns ({len(batch)}, classes), got {got}")
        if ready.untried:
            ready.compare(batch, logits.detach())
            if not isinstance(model, Prepared):
                _compared[model] = weights
        classes = _classes(aims, logits, start, rows)
        maps = _of_classes(ready, batch[:rows], logits, tensors, classes, methods, softmax=softmax)
        home = [value.detach()[:rows].to(pixels.device) for value in (logits, classes)]
        home_maps = {n: tuple(m[:rows].to(pixels.device) for m in each) for n, each in maps.items()}
        parts.append((home[0], home[1], home_maps))
        start += rows
        if micro_batch is None:
            image_memory = HELD * sum(tensor.nbytes for tensor in tensors) / rows
            most = _free(device) / 2 if memory is None else memory
            size = int(min(max(1, most // image_memory), MOST))
    logits = torch.cat([part[0] for part in parts])
    classes = torch.cat([part[1] for part in parts])
    several = aims is not None and aims.ndim == 2
    by_method = {
        name: tuple(
            torch.cat(layer) for layer in zip(*(part[2][name] for part in parts), strict=True)
        )
        for name in methods
    }
    if not several:
        classes = classes[:, 0]
        by_method = {name: tuple(layer[:, 0] for layer in maps) for name, maps in by_method.items()}
    return Explained(
        tuple(point.name for point in ready.watch(pixels)[1]), logits, classes, by_method
    )


def _targets(targets: Tensor | int | None, n: int) -> Tensor | None:
    if targets is None:
        return None
    classes = torch.as_tensor(targets)
    classes = classes.expand(n) if classes.ndim == 0 else classes
    if classes.ndim > 2 or len(classes) != n or classes.is_floating_point():
        raise ValueError(
            f"wanted targets as a class, (n,) or (n, k) whole numbers for {n} images, got "
            f"{classes.dtype} {tuple(classes.shape)}"
        )
    return classes.long()


def _classes(aims: Tensor | None, logits: Tensor, start: int, rows: int) -> Tensor:
    """Returns the classes of a micro-batch, (len(logits), k); padding repeats the last row's."""
    if aims is None:
        return logits.argmax(1, keepdim=True)
    classes = aims[start : start + rows].to(logits.device)
    classes = classes[:, None] if classes.ndim == 1 else classes
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"wanted targets from 0 to {logits.shape[1] - 1}, got {low if low < 0 else high}"
        )
    return padded(classes, len(logits))


def _of_classes(
    ready: Prepared,
    batch: Tensor,
    logits: Tensor,
    tensors: Layers,
    classes: Tensor,
    names: Sequence[str],
    *,
    softmax: bool,
) -> Maps:
    """Returns the maps of each column of classes: a tensor (n, k, h, w) a layer, by method.

    `batch` has no padding: the slow methods of `external` do not explain it.
    """
    columns = list(dict.fromkeys(tuple(column.tolist()) for column in classes.T))
    outputs = logits.softmax(1) if softmax else logits
    shared = [name for name in names if name in by_name() or name in library.FROM_ARRAYS]
    maps_of: dict[tuple, Maps] = {}
    for i, column in enumerate(columns):
        target = torch.tensor(column, device=logits.device)
        last = i == len(columns) - 1
        maps_of[column] = _maps(shared, outputs, tensors, target, last=last) if shared else {}
        for name in set(names).difference(shared):
            maps_of[column][name] = _finite(name, external.through(
                name, *ready.watch(batch), ready.inputs(batch), target[: len(batch)],
                softmax=softmax,
            ))  # fmt: skip
    each = [maps_of[tuple(column.tolist())] for column in classes.T]
    return {
        name: tuple(torch.stack(maps, 1) for maps in zip(*(m[name] for m in each), strict=True))
        for name in names
    }


def _maps(
    names: Sequence[str],
    outputs: Logits,
    tensors: Layers,
    classes: Labels,
    *,
    last: bool,
) -> Maps:
    """Returns the maps of a micro-batch for a class an image, from one backward.

    Args:
        names: methods that need only tensors and gradients.
        outputs: that of the class is explained.
        tensors: of the layers.
        classes: one an image.
        last: whether this is the last backward.

    Raises:
        FloatingPointError: a map is not finite.
    """
    activations = [tensor.detach() for tensor in tensors]
    of = {name: by_name().get(name) or library.from_arrays(name) for name in names}
    # A layer that no gradient reaches has an empty map.
    by_method = {name: [torch.zeros_like(a[:, 0]) for a in activations] for name in names}

    def make(place: int, gradient: Tensor) -> None:
        with torch.autocast(outputs.device.type, enabled=False):
            for name in names:
                by_method[name][place] = of[name](activations[place], gradient)

    # A gradient is used when it arrives, while it is in the processor's cache; none is kept.
    hooks = [tensor.register_hook(partial(make, place)) for place, tensor in enumerate(tensors)]
    first = [tensor for tensor in tensors if tensor.is_leaf]
    score = outputs.gather(1, classes[:, None]).sum()
    try:
        torch.autograd.grad(score, first, retain_graph=not last, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _finite(name, tuple(maps)) for name, maps in by_method.items()}


def _finite(name: str, maps: Layers) -> Layers:
    """Returns the maps of a method unchanged.

    Raises:
        FloatingPointError: one is not finite.
    """
    if not all(bool(torch.isfinite(layer.amax((1, 2))).all()) for layer in maps):
        raise FloatingPointError(
            f"a map of {name} is not finite: the model's weights or logits overflow"
        )
    return maps


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def explain(
    model: Model,
    batch: Pixels,
    seed_classes: Labels,
    *,
    targets: Sequence[str] = (OWN, SEED),
    softmax: bool = False,
    names: Sequence[str] = (GRAD_CAM,),
) -> tuple[Logits, Maps | None, Maps | None]:
    """Returns the logits of one micro-batch and its maps for the own top class and the seed's.

    As `all_layers`, for the study's two target policies. Maps that no target requires are None,
    and so are the seed's if no image's top class differs from its seed's: they equal those of the
    own class. `names` are methods that need only this pass.
    """
    logits, tensors = model.probes(batch.detach())
    own = logits.argmax(1)
    outputs = logits.softmax(1) if softmax else logits

    def maps(names: Sequence[str], classes: Labels, *, last: bool) -> Maps:
        by_method = _maps(names, outputs, tensors, classes, last=last)
        return {name: tuple(layer.to(batch.device) for layer in m) for name, m in by_method.items()}

    differ = bool((own != seed_classes).any())
    second = SEED in targets and differ
    first = maps(names, own, last=not second) if OWN in targets or not differ else None
    if not second:
        return logits.detach(), first, None
    shared = {name: first[name] for name in names if first is not None and name in blind()}
    rest = [name for name in names if name not in shared]
    return logits.detach(), first, shared | maps(rest, seed_classes, last=True)

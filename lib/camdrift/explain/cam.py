"""Class-activation maps: raw, of every conv layer, from one forward and one backward a class."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from camdrift.explain import external
from camdrift.explain.methods import blind, by_name, library
from camdrift.models import architectures, checks, hook_points
from camdrift.models.hook_points import Tap
from camdrift.models.model import Model, padded
from camdrift.storage import OWN, SEED

Layers = tuple[Tensor, ...]  # one tensor (n, h, w) a layer, in forward order
Maps = dict[str, Layers]  # by method
GRAD_CAM = "GradCAM"
FIRST = 8  # images that are explained at once before it is known how many fit the memory
MOST = 64
# Memory that an image takes at most, in sizes of its tapped tensors: these, what lies between them,
# their gradients, and what a method makes of both.
HELD = 6


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to be explained, see `prepare`.

    traced: the network, inputs -> logits.
    taps: where its maps are taken, in forward order.
    inputs: pixels -> what the network is called with.
    """

    traced: fx.GraphModule
    taps: tuple[Tap, ...]
    inputs: Callable[[Tensor], Tensor]
    # The network as it was given, until its logits have been compared; a list, to let go of it.
    untried: list[nn.Module] = field(default_factory=list)

    @cached_property
    def _probed(self) -> fx.GraphModule:
        return hook_points.tapped(self.traced, self.taps, leaves=True)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Layers]:
        """Returns the logits and the tensor of each tap, at which the graph of gradients begins."""
        return self._probed(self.inputs(pixels))

    def compare(self, pixels: Tensor, logits: Tensor) -> None:
        """Raises UnsoundError where the network itself gives other logits than those for pixels.

        Once: a network that passed is let go of. Both are called without autocast, whose rounding
        could hide a difference.
        """
        given = self.untried[:1]  # another thread may let go of it meanwhile
        if not given:
            return
        kind = pixels.device.type
        cast = torch.is_autocast_enabled(kind)
        with (
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            if cast:
                pixels = pixels.to(next(self.traced.parameters()).dtype)
                logits = self.traced(self.inputs(pixels))
            inputs = self.inputs(pixels)
            own = given[0](inputs)
            checks.refuse_other_logits(own, logits, lambda: given[0](inputs))
        self.untried.clear()


@dataclass(frozen=True)
class Explained:
    """Maps of images, see `all_layers`.

    layers: names, in forward order.
    logits: (n, classes).
    targets: the classes that are explained, (n,), or (n, k) where several were asked for.
    maps: by method, a tensor a layer, (n, h, w) or (n, k, h, w): raw, not negative.
    """

    layers: tuple[str, ...]
    logits: Tensor
    targets: Tensor
    maps: Maps

    def scaled(self, size: int | None = None) -> Maps:
        """Returns the maps divided by their maxima, in [0, 1], and resized (bilinear) to `size` px.

        An empty map stays empty.
        """
        found = {}
        for name, maps in self.maps.items():
            tops = [layer.amax((-2, -1), keepdim=True) for layer in maps]
            shares = [m / torch.where(top > 0, top, 1) for m, top in zip(maps, tops, strict=True)]
            if size is not None:
                shares = [_resized(layer, size) for layer in shares]
            found[name] = tuple(shares)
        return found


def _resized(maps: Tensor, size: int) -> Tensor:
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, (size, size), mode="bilinear").reshape(*maps.shape[:-2], size, size)


@torch.inference_mode(False)
def prepare(model: nn.Module, *, chosen: Sequence[str | int] | None = None) -> Prepared:
    """Returns a network ready to be explained many times, which spares a call its preparation.

    A copy in eval mode, of the weights as they are now, without in-place operations and hooks,
    batch norm folded into its convs; the network is left as it is. A `Model` is frozen already and
    shares its weights.
    What is prepared can be called from several threads; preparing must not run beside another
    thread's network, since `torch.fx` changes how modules are called while it traces one.

    Args:
        model: a network, inputs -> logits, or a `Model`, pixels in [0, 1] -> logits.
        chosen: layers by name, or by place in forward order (a negative one counts from the end);
            None is all. Those before the first are not explained, and no backward goes there.

    The first call compares its logits with those of the network itself.

    Raises:
        UntraceableError: the forward cannot be traced, or there is no conv layer.
        ValueError: there is no layer of a name or at a place.
    """
    return _prepared(
        model if isinstance(model, Model) else copy.deepcopy(hook_points.frozen(model)), chosen
    )


def _prepared(
    model: nn.Module, chosen: Sequence[str | int] | None, *, compared: bool = False
) -> Prepared:
    """Returns `prepare`, of a copy that shares weights, which may have been compared before."""
    untried: list[nn.Module] = []
    if isinstance(model, Model):
        traced, taps, inputs = model.network, model.maps, model.inputs
    else:
        if not compared:
            untried.append(hook_points.frozen(model))
        traced = hook_points.trace(hook_points.frozen(model))
        if not any(weight.is_cuda for weight in traced.parameters()):
            architectures.channels_last(traced)
        taps, inputs = hook_points.map_taps(traced), _as_they_are
    if chosen is not None:
        taps = _chosen(taps, chosen)
    return Prepared(traced, taps, inputs, untried)


# Networks whose logits have been compared, each with its weights as they were then.
_compared: WeakKeyDictionary[nn.Module, list[tuple[int, int]]] = WeakKeyDictionary()


def _weights(network: nn.Module) -> list[tuple[int, int]]:
    """Returns what changes when a weight or buffer is written to or replaced."""
    tensors = [*network.parameters(), *network.buffers()]
    # Of tensors that were made in inference mode no version is kept.
    return [(id(t), 0 if t.is_inference() else t._version) for t in tensors]


def _as_they_are(pixels: Tensor) -> Tensor:
    return pixels


def _chosen(taps: tuple[Tap, ...], chosen: Sequence[str | int]) -> tuple[Tap, ...]:
    places: dict[str | int, int] = {tap.name: place for place, tap in enumerate(taps)}
    places |= {place: place % len(taps) for place in range(-len(taps), len(taps))}
    strange = [name for name in chosen if name not in places]
    if strange or not chosen:
        there = ", ".join(tap.name for tap in taps)
        fault = f"no layer {strange[0]!r}" if strange else "wanted a layer at least, got none"
        raise ValueError(f"{fault}; there are, 0 to {len(taps) - 1}: {there}")
    return tuple(taps[place] for place in sorted({places[name] for name in chosen}))


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

    One forward and, for each class of an image, one backward to the layers' tensors, whatever the
    number of methods: no gradient of a weight or of the pixels is computed. Where all images of a
    call of the network have one class twice, it is explained once. The network is left as it was,
    also after an error. Works under `torch.autocast` (maps are float32 all the same), under
    `torch.no_grad` and wherever the network lies; what is returned lies where `pixels` do. At the
    first call with a network, and again when its weights have changed, its logits are compared with
    those that the network itself gives for the first images.

    Args:
        model: a network, inputs -> logits; a `Model`; or either as `prepare` returns it, which
            spares preparation at every call and holds for the weights as they were then.
        pixels: (n, c, h, w), what the network is called with.
        targets: classes to explain: one, (n,), (n, k) for several an image, or None for each
            image's own top class.
        methods: by name, see `methods`, or classes of pytorch-grad-cam, see `external`.
        chosen: layers, as `prepare` takes them.
        softmax: whether maps explain the class's probability and not its logit.
        micro_batch: the one number of images that the network is called with, the last call padded
            by copies: results for an image do then not depend on those beside it. None: as many as
            `memory` allows; then they do, in the last digits.
        memory: bytes to use beyond what is returned; None: half of what is free.

    Raises:
        SettingsError: no method of a name.
        UntraceableError: the forward cannot be traced, or there is no conv layer.
        UnsoundError: the network itself gives other logits.
        ValueError: targets, layers, pixels or what the network returns do not fit.
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
    wanted = _targets(targets, len(pixels))
    device = next(ready.traced.parameters()).device
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
        classes = _classes(wanted, logits, start, rows)
        maps = _of_classes(ready, batch[:rows], logits, tensors, classes, methods, softmax=softmax)
        home = [value.detach()[:rows].to(pixels.device) for value in (logits, classes)]
        kept = {n: tuple(m[:rows].to(pixels.device) for m in each) for n, each in maps.items()}
        parts.append((home[0], home[1], kept))
        start += rows
        if micro_batch is None:
            held = HELD * sum(tensor.nbytes for tensor in tensors) / rows
            most = _free(device) / 2 if memory is None else memory
            size = int(min(max(1, most // held), MOST))
    logits = torch.cat([part[0] for part in parts])
    classes = torch.cat([part[1] for part in parts])
    several = wanted is not None and wanted.ndim == 2
    made = {
        name: tuple(
            torch.cat(layer) for layer in zip(*(part[2][name] for part in parts), strict=True)
        )
        for name in methods
    }
    if not several:
        classes = classes[:, 0]
        made = {name: tuple(layer[:, 0] for layer in maps) for name, maps in made.items()}
    return Explained(tuple(tap.name for tap in ready.taps), logits, classes, made)


def _targets(targets: Tensor | int | None, n: int) -> Tensor | None:
    if targets is None:
        return None
    found = torch.as_tensor(targets)
    found = found.expand(n) if found.ndim == 0 else found
    if found.ndim > 2 or len(found) != n or found.is_floating_point():
        raise ValueError(
            f"wanted targets as a class, (n,) or (n, k) whole numbers for {n} images, got "
            f"{found.dtype} {tuple(found.shape)}"
        )
    return found.long()


def _classes(wanted: Tensor | None, logits: Tensor, start: int, rows: int) -> Tensor:
    """Returns the classes of a micro-batch, (len(logits), k); padding has those of the last row."""
    if wanted is None:
        return logits.argmax(1, keepdim=True)
    classes = wanted[start : start + rows].to(logits.device)
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

    `batch` is without the padding, which what is slow does not explain.
    """
    columns = list(dict.fromkeys(tuple(column.tolist()) for column in classes.T))
    outputs = logits.softmax(1) if softmax else logits
    passed = [name for name in names if name in by_name() or name in library.FED]
    found: dict[tuple, Maps] = {}
    for i, column in enumerate(columns):
        target = torch.tensor(column, device=logits.device)
        last = i == len(columns) - 1
        found[column] = _maps(passed, outputs, tensors, target, last=last) if passed else {}
        for name in set(names).difference(passed):
            found[column][name] = _finite(name, external.through(
                name, ready.traced, ready.taps, ready.inputs(batch), target[: len(batch)],
                softmax=softmax,
            ))  # fmt: skip
    each = [found[tuple(column.tolist())] for column in classes.T]
    return {
        name: tuple(torch.stack(maps, 1) for maps in zip(*(m[name] for m in each), strict=True))
        for name in names
    }


def _maps(
    names: Sequence[str],
    outputs: Tensor,
    tensors: Layers,
    classes: Tensor,
    *,
    last: bool,
) -> Maps:
    """Returns the maps of a micro-batch for a class an image, from one backward.

    Args:
        names: of methods that need no more than tensors and gradients.
        outputs: (n, classes), of which that of the class is explained.
        tensors: of the layers.
        classes: (n,).
        last: whether no further backward follows.

    Raises:
        FloatingPointError: a map is not finite.
    """
    activations = [tensor.detach() for tensor in tensors]
    of = {name: by_name().get(name) or library.fed(name) for name in names}
    # What no gradient reaches has no map.
    found = {name: [torch.zeros_like(a[:, 0]) for a in activations] for name in names}

    def make(place: int, gradient: Tensor) -> None:
        with torch.autocast(outputs.device.type, enabled=False):
            for name in names:
                found[name][place] = of[name](activations[place], gradient)

    # As a gradient arrives it is still in the processor's cache, and no two need be held.
    hooks = [tensor.register_hook(partial(make, place)) for place, tensor in enumerate(tensors)]
    first = [tensor for tensor in tensors if tensor.is_leaf]
    score = outputs.gather(1, classes[:, None]).sum()
    try:
        torch.autograd.grad(score, first, retain_graph=not last, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _finite(name, tuple(maps)) for name, maps in found.items()}


def _finite(name: str, maps: Layers) -> Layers:
    """Returns the maps of a method as they are.

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
    batch: Tensor,
    seed_classes: Tensor,
    *,
    targets: Sequence[str] = (OWN, SEED),
    softmax: bool = False,
    names: Sequence[str] = (GRAD_CAM,),
) -> tuple[Tensor, Maps | None, Maps | None]:
    """Returns the logits of one micro-batch and its maps for the own top class and the seed's.

    As `all_layers`, for the study's two target policies. Maps that no target asks for are None,
    and so are the seed's where no image's top class differs from its seed's: they are those of the
    own class. `names` are of methods that need no more than the pass.
    """
    logits, tensors = model.probes(batch.detach())
    own = logits.argmax(1)
    outputs = logits.softmax(1) if softmax else logits

    def maps(names: Sequence[str], classes: Tensor, *, last: bool) -> Maps:
        layers_of = _maps(names, outputs, tensors, classes, last=last)
        return {name: tuple(layer.to(batch.device) for layer in m) for name, m in layers_of.items()}

    differ = bool((own != seed_classes).any())
    second = SEED in targets and differ
    first = maps(names, own, last=not second) if OWN in targets or not differ else None
    if not second:
        return logits.detach(), first, None
    shared = {name: first[name] for name in names if first is not None and name in blind()}
    rest = [name for name in names if name not in shared]
    return logits.detach(), first, shared | maps(rest, seed_classes, last=True)

"""Class-activation maps: raw, at every conv layer, from one forward and one backward a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camdrift.explain import external, prepared
from camdrift.explain.methods import blind, by_name, library
from camdrift.explain.prepared import Explaining, Layers, Prepared, Reshape, Score
from camdrift.explain.prepared import prepare as prepare
from camdrift.models.model import Model, padded
from camdrift.models.selection import Choice
from camdrift.models.tensors import Labels, Logits, Pixels
from camdrift.storage import OWN, SEED

__all__ = [
    "GRAD_CAM",
    "Explained",
    "Layers",
    "Maps",
    "Prepared",
    "all_layers",
    "explain",
    "prepare",
]

Maps = dict[str, Layers]  # by method
GRAD_CAM = "GradCAM"
FIRST = 8  # images to explain at once before their memory is known
MOST = 64
# Most memory of an image, in sizes of its hooked tensors: these, the tensors between them, their
# gradients, and a method's own tensors.
HELD = 6


@dataclass(frozen=True)
class Explained:
    """Maps of images, see `all_layers`.

    layers: names, in forward order.
    size: height and width of the images in px.
    logits: (n, classes), as the network returns them, or (n, 1): what `score` returned.
    targets: the explained classes, (n,), or (n, k) for several an image.
    maps: by method, a tensor a layer, (n, h, w) or (n, k, h, w): raw, not negative.
    """

    layers: tuple[str, ...]
    size: tuple[int, int]
    logits: Logits
    targets: Tensor
    maps: Maps

    def scaled(self, height: int | None = None, width: int | None = None) -> Maps:
        """Returns the maps divided by their maxima, in [0, 1], and resized (bilinear).

        An empty map stays empty.

        Args:
            height: in px; None: that of each map.
            width: in px; None: as the height, if the images are square.

        Raises:
            ValueError: the images are not square, and the width is missing.
        """
        if height is not None and width is None:
            if self.size[0] != self.size[1]:
                tall, wide = self.size
                raise ValueError(
                    f"wanted scaled(height, width) of images of {tall} x {wide} px, got {height} "
                    "alone"
                )
            width = height
        by_method = {}
        for name, maps in self.maps.items():
            tops = [layer.amax((-2, -1), keepdim=True) for layer in maps]
            shares = [m / torch.where(top > 0, top, 1) for m, top in zip(maps, tops, strict=True)]
            if height is not None and width is not None:
                shares = [_resize(layer, (height, width)) for layer in shares]
            by_method[name] = tuple(shares)
        return by_method


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear").reshape(*maps.shape[:-2], *size)


@torch.inference_mode(False)
@torch.enable_grad()
def all_layers(
    model: nn.Module | Prepared,
    pixels: Tensor,
    targets: Tensor | int | None = None,
    *,
    methods: Sequence[str] = (GRAD_CAM,),
    layers: Sequence[str | int] | None = None,
    hook_points: Choice = None,
    reshape: Reshape = None,
    score: Score = None,
    softmax: bool = False,
    micro_batch: int | None = None,
    memory: float | None = None,
) -> Explained:
    """Returns the maps of images by several methods at all layers, raw, at their own sizes.

    One forward and, for each class of an image, one backward to the layers' tensors, for any number
    of methods: no gradient of a weight or of the pixels is computed. If all images of a call of the
    network have one class twice, it is explained once. The network is not changed, not even after
    an error. Works in half precision and under `torch.autocast` (maps are float32 all the same),
    under `torch.no_grad` and with the network on any device; results are on the device of `pixels`.
    At the first call with a network, and again when it has changed, it is prepared, and its logits
    are compared with those that the network itself returns for the first images; its hooks after a
    forward are called for this comparison alone.

    Args:
        model: a network, inputs -> logits; a `Model`; or either as `prepare` returns it, which
            keeps the weights of that time.
        pixels: (n, c, h, w), the inputs of the network, or the pixels of a `Model`.
        targets: classes to explain: one, (n,), (n, k) for several an image, or None for each
            image's own top class. A network of a single logit has the classes 0 and 1: the logit
            is that of class 1 and, negated, that of class 0, and its sigmoid their probability.
        methods: by name, see `methods`, or classes of pytorch-grad-cam, see `external`.
        layers: to explain, as in `prepare`.
        hook_points: as in `prepare`.
        reshape: as in `prepare`.
        score: as in `prepare`; a function is explained as it is, without targets.
        softmax: whether maps explain the class's probability and not its logit.
        micro_batch: the fixed number of images in each call of the network; the last call is padded
            with copies. An image's results then do not depend on the other images in its batch.
            None: as many as `memory` allows; the last digits then depend on the other images.
        memory: bytes to use beyond the results; None: half of the free memory.

    Raises:
        SettingsError: there is no method of a name.
        UnwatchableError: the forward cannot be watched, or there is no hook point.
        UnsoundError: the network itself returns other logits.
        ValueError: targets, layers, pixels or the network's output do not fit.
        FloatingPointError: a map is not finite.
    """
    explaining = prepared.explaining(layers, hook_points, reshape, score)
    if isinstance(model, Prepared) and explaining != Explaining():
        raise ValueError(
            "wanted layers, hook_points, reshape and score when the network is prepared, got them "
            "with a prepared one"
        )
    if pixels.ndim != 4 or not len(pixels):
        raise ValueError(f"wanted pixels (n, c, h, w) of an image at least, got {pixels.shape}")
    ready = model if isinstance(model, Prepared) else prepared.recall(model, explaining)
    if callable(ready.explaining.score) and (targets is not None or softmax):
        raise ValueError("wanted a score function without targets and softmax, got both")
    aims = _targets(targets, len(pixels))
    device = next(ready.network.parameters(), pixels).device
    parts: list[tuple[Tensor, Tensor, Maps]] = []
    size, start = micro_batch or (FIRST if memory is None else 1), 0
    while start < len(pixels):
        batch = pixels[start : start + size].detach().clone()  # a forward may write into it
        rows = len(batch)
        if micro_batch:
            batch = padded(batch, micro_batch)
        batch = batch.to(device)
        logits, tensors = ready(batch)
        if ready.untried:
            ready.compare(batch, logits.detach())
        outputs = logits if callable(ready.explaining.score) else _outputs(logits, softmax=softmax)
        classes = _classes(aims, outputs, start, rows)
        maps = _of_classes(ready, batch[:rows], outputs, tensors, classes, methods, softmax=softmax)
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
    names = tuple(point.name for point in ready.watch(pixels[:1].to(device))[1])
    height, width = pixels.shape[-2:]
    return Explained(names, (height, width), logits, classes, by_method)


def _outputs(logits: Logits, *, softmax: bool) -> Tensor:
    """Returns what is explained of each class: logits, of which a single one has two, or shares."""
    if logits.shape[1] > 1:
        return logits.softmax(1) if softmax else logits
    return torch.cat([-logits, logits], 1).sigmoid() if softmax else torch.cat([-logits, logits], 1)


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


def _classes(aims: Tensor | None, outputs: Tensor, start: int, rows: int) -> Tensor:
    """Returns the classes of a micro-batch, (len(outputs), k); padding repeats the last row's."""
    if aims is None:
        return outputs.argmax(1, keepdim=True)
    classes = aims[start : start + rows].to(outputs.device)
    classes = classes[:, None] if classes.ndim == 1 else classes
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= outputs.shape[1]:
        raise ValueError(
            f"wanted targets from 0 to {outputs.shape[1] - 1}, got {low if low < 0 else high}"
        )
    return padded(classes, len(outputs))


def _of_classes(
    ready: Prepared,
    batch: Tensor,
    outputs: Tensor,
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
    reshape = ready.explaining.reshape
    shared = [name for name in names if name in by_name() or name in library.FROM_ARRAYS]
    maps_of: dict[tuple, Maps] = {}
    for i, column in enumerate(columns):
        target = torch.tensor(column, device=outputs.device)
        last = i == len(columns) - 1
        maps_of[column] = (
            _maps(shared, outputs, tensors, target, last=last, reshape=reshape) if shared else {}
        )
        for name in set(names).difference(shared):
            maps_of[column][name] = _finite(name, external.through(
                name, ready, batch, target[: len(batch)], softmax=softmax
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
    reshape: Reshape = None,
) -> Maps:
    """Returns the maps of a micro-batch for a class an image, from one backward.

    Args:
        names: methods that need only tensors and gradients.
        outputs: that of the class is explained.
        tensors: of the layers.
        classes: one an image.
        last: whether this is the last backward.
        reshape: as in `prepare`.

    Raises:
        FloatingPointError: a map is not finite.
    """
    shaped = (lambda tensor: tensor) if reshape is None else reshape
    activations = [shaped(tensor.detach()) for tensor in tensors]
    of = {name: by_name().get(name) or library.from_arrays(name) for name in names}
    # A layer that no gradient reaches has an empty map.
    by_method = {name: [torch.zeros_like(a[:, 0]) for a in activations] for name in names}

    def make(place: int, gradient: Tensor) -> None:
        with torch.autocast(outputs.device.type, enabled=False):
            for name in names:
                by_method[name][place] = of[name](activations[place], shaped(gradient))

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
    """Returns the logits of one micro-batch and its maps for the top and the seed classes.

    Like `all_layers`, for the study's two target policies. An image's seed class is the prediction
    on its clean image. Maps of a policy that `targets` lacks are None. The maps of the seed classes
    are also None if they equal those of the top classes, because all classes agree. `names` are
    methods that need only this pass.
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

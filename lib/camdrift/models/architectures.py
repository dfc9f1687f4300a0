"""Networks: builds one by name, replaces its head, slims it."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camdrift.models.calls import tensors_in
from camdrift.models.logits import class_logits
from camdrift.settings import SettingsError, imports
from camdrift.settings.section import in_words, nearest, sides


class RefusedError(SettingsError):
    """A network or weights file that camdrift cannot use; the message says why."""


# Prefixes of the auxiliary heads' parameters, by architecture.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def channels_last(network: nn.Module) -> None:
    """Stores the weights with channels last, which is a third faster on a CPU."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:  # `Module.to` would convert five dimensions, too, and raise
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def build(
    *,
    architecture: str,
    width: float,
    head: str,
    classes: int,
    size: int | Sequence[int],
    initialised: bool,
    channels: int = 3,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Returns an untrained network.

    Args:
        architecture: a torchvision classifier by name, `timm:<name>`, or `package.module:function`,
            which returns a network, and is called with `classes` if it takes them.
        width: factor on the channels of every Conv2d, BatchNorm2d and Linear; 1 keeps them.
        head: `torchvision` keeps the network's head; `pooled` is global average pooling and one
            linear layer; `sigmoid` keeps it, too, with a single logit for two classes, see
            `logits.class_logits`.
        classes: their number.
        size: of the input in px, a side, or height and width, at which the network is run once.
        initialised: False leaves the weights of a full-width network on torch's meta device, for a
            state dict to assign; drawing those of a VGG takes seconds. A network with tensors that
            no state dict holds is built on the CPU.
        channels: of the input, 3 or 1. For 1, timm's networks are built with `in_chans`, the conv
            of a torchvision network that takes 3 is replaced by one whose weights are its sums over
            channels, and the user's own function must return a network that takes 1.
        arguments: further ones of the function that builds the network, by name.

    Raises:
        RefusedError: there is no such architecture, or it does not run when slimmed.
    """
    if head == "sigmoid" and classes != 2:
        raise RefusedError(f"head: sigmoid has a single logit: wanted 2 classes, got {classes}")
    place = "cpu" if is_own(architecture) or (initialised and width == 1) else "meta"
    full = partial(_full_network, architecture, classes, head, channels, arguments or {})
    network = full(place)
    if place == "meta" and _has_more_than_its_state(network):
        place = "cpu"
        network = full(place)
    try:
        if width != 1:
            _slim(network, width, _logits(head, classes), channels)
            place = "cpu"
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, channels, *sides(size), device=place))
    except Exception as fault:  # a network's forward may raise anything
        grey = "" if channels == 3 else f" with {channels} channel"
        slim = (
            " whose forward survives scaled channels (VGG, ResNet, Inception, Xception do)"
            if width != 1 else ""
        )  # fmt: skip
        first = next(iter(str(fault).splitlines()), type(fault).__name__)
        raise RefusedError(
            f"{architecture} does not run at width {width} and {in_words(size)}{grey}: {first}. "
            f"Wanted a network{slim} that takes such images, another `size:` or `arguments:`"
        ) from fault
    if not isinstance(logits, Tensor):
        raise RefusedError(
            f"{architecture} returns a {type(logits).__name__}, wanted a tensor of logits alone"
        )
    if class_logits(logits).shape != (1, classes):
        raise RefusedError(
            f"{architecture} returns {tuple(logits.shape)} for one image, wanted (1, {classes}): a "
            "logit for each class (`classes:` of the model, or those of its set)"
        )
    return network


def _full_network(
    architecture: str,
    classes: int,
    head: str,
    channels: int,
    arguments: Mapping[str, Any],
    place: str,
) -> nn.Module:
    """Returns a network of full width on a device."""
    with torch.device(place), _Undrawn():
        if is_own(architecture):
            network = _user_network(architecture, classes, arguments)
        else:
            builder = _builder(architecture)
            timm = architecture.startswith("timm:")
            if channels == 1 and timm:
                arguments = {"in_chans": 1} | dict(arguments)
            try:
                network = builder(_logits(head, classes), arguments)
            except (TypeError, ValueError) as fault:
                if not arguments:
                    raise
                raise RefusedError(
                    f"{architecture} does not take the arguments {dict(arguments)}: {fault}"
                ) from fault
            if channels == 1 and not timm:
                _make_grey(network, architecture)
        if head == "pooled":
            _pool_head(network, architecture, classes)
    return network


def _logits(head: str, classes: int) -> int:
    return 1 if head == "sigmoid" else classes


class _Undrawn(TorchFunctionMode):
    """A context in which weights on the meta device, which have no values, are not initialised.

    PyTorch's own draws there load its compiler, which takes as long as torch itself.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Calls the function, unless it would initialise such a tensor, which it then returns."""
        kwargs = kwargs or {}
        if function in DRAWS or getattr(function, "__module__", "") == nn.init.__name__:
            first = args[0] if args else kwargs.get("tensor")
            if isinstance(first, Tensor) and first.is_meta:
                return first
        return function(*args, **kwargs)


DRAWS = (Tensor.normal_, Tensor.uniform_)


def _make_grey(network: nn.Module, architecture: str) -> None:
    """Replaces the one conv that takes 3 channels by one that takes 1, in place.

    Its weights are the sums of the old ones over channels, so that a grey image gives what its copy
    in three equal channels gave.

    Raises:
        RefusedError: not just one conv takes 3 channels.
    """
    convs = [
        (name, module)
        for name, module in network.named_modules()
        if type(module) is nn.Conv2d and module.in_channels == 3
    ]
    if len(convs) != 1:
        raise RefusedError(
            f"{architecture}: wanted one conv of 3 channels, to make it take grey images, got "
            f"{len(convs)}; take another network, timm:<name>, or `channels: 3` of the set"
        )
    ((name, old),) = convs
    new = nn.Conv2d(
        1,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device=old.weight.device,
    )
    new.weight = nn.Parameter(old.weight.detach().sum(1, keepdim=True))
    new.bias = old.bias
    parent, _, key = name.rpartition(".")
    setattr(network.get_submodule(parent), key, new)


def _has_more_than_its_state(network: nn.Module) -> bool:
    """Returns whether modules of a network hold tensors that its state dict does not.

    Such tensors are non-persistent buffers (a blur's kernel, a table of positions), or plain
    attributes.
    """
    state = network.state_dict(keep_vars=True)
    state_ids = {id(tensor) for tensor in state.values()}
    return any(
        id(tensor) not in state_ids
        for module in network.modules()
        for tensor in tensors_in(vars(module).values())
    )


def is_own(architecture: str) -> bool:
    """Returns whether an architecture is the user's own function, `package.module:function`."""
    return ":" in architecture and not architecture.startswith("timm:")


def _builder(architecture: str) -> Callable[[int, Mapping[str, Any]], nn.Module]:
    """Returns a function: classes and further arguments -> a network of torchvision or timm."""
    if architecture.startswith("timm:"):
        return _timm_builder(architecture.removeprefix("timm:"))
    return _torchvision_builder(architecture)


def _torchvision_builder(name: str) -> Callable[[int, Mapping[str, Any]], nn.Module]:
    from camdrift.pipeline.vision import torchvision

    try:
        builder = torchvision.models.get_model_builder(name)
    except ValueError as fault:
        near = nearest(name, torchvision.models.list_models())
        raise RefusedError(
            f"no architecture '{name}' in torchvision.models{near}; wanted one of these, "
            "`timm:<name>`, or a function of your own, `module:function`"
        ) from fault
    # These two go without auxiliary heads, which require large images and which no map needs.
    extra: dict[str, Any] = {}
    if name in AUXILIARY:
        extra = {"init_weights": True, "aux_logits": False}
    return lambda classes, more: builder(weights=None, num_classes=classes, **extra, **more)


def _timm_builder(name: str) -> Callable[[int, Mapping[str, Any]], nn.Module]:
    importlib.import_module("camdrift.pipeline.vision")  # timm imports torchvision, too
    timm = importlib.import_module("timm")
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise RefusedError(f"no architecture '{name}' in timm{near}; see timm.list_models()")
    return lambda classes, more: timm.create_model(
        name, pretrained=False, num_classes=classes, **more
    )


def _user_network(path: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    importlib.import_module("camdrift.pipeline.vision")  # the user's module may import torchvision
    build = imports.function(path, "architecture")
    first, named = _arguments(build, classes, arguments)
    try:
        network = build(*first, **named)
    except Exception as fault:  # it may raise anything
        called = ", ".join([*map(repr, first), *(f"{k}={v!r}" for k, v in named.items())])
        raise RefusedError(
            f"'{path}', called with {called or 'nothing'}, raised {imports.message(fault)}. Wanted "
            "a function that returns a network, called with the number of classes where it takes "
            "`classes`, `num_classes` or a first argument without a default, and with `arguments:`"
        ) from fault
    if not isinstance(network, nn.Module):
        raise RefusedError(f"wanted a network from '{path}', got a {type(network).__name__}")
    return network


def _arguments(
    build: Callable[..., Any], classes: int, arguments: Mapping[str, Any]
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Returns the arguments of the user's function, by place and by name.

    The number of classes is among them if the function has an argument `classes` or `num_classes`,
    or a first one without a default, unless `arguments` have it.
    """
    try:
        parameters = inspect.signature(build).parameters
    except (TypeError, ValueError):  # of a function in C
        return (classes,), dict(arguments)
    name = next((name for name in ("classes", "num_classes") if name in parameters), None)
    if name is not None and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY:
        return (), {name: classes} | dict(arguments)
    first = next(iter(parameters.values()), None)
    if first is None or first.default is not first.empty or first.name in arguments:
        return (), dict(arguments)
    plain = first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    return (classes,) if plain else (), dict(arguments)


def _pool_head(network: nn.Module, architecture: str, classes: int) -> None:
    """Replaces the dense layers of a VGG or AlexNet by global pooling and one linear layer."""
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if len(dense) == 1:
        return
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not all(hasattr(network, part) for part in ("features", "avgpool", "classifier")):
        raise RefusedError(
            f"{architecture} has {len(dense)} dense layers and no features/avgpool/classifier; "
            "head: pooled knows VGG, AlexNet and networks that pool already. Use head: torchvision"
        )
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Linear(convs[-1].out_channels, classes)


def dense_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Returns the beginnings of the names of a network's dense layers in its state dict."""
    return tuple(f"{n}." for n, m in network.named_modules() if isinstance(m, nn.Linear))


def with_own_head(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict for the network: its own tensors where the given ones do not fit."""
    own = network.state_dict()
    fits = {n: v for n, v in state.items() if n in own and v.shape == own[n].shape}
    return own | fits


SLIMMED = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def _slim(network: nn.Module, width: float, classes: int, image: int = 3) -> None:
    """Scales the channels of every Conv2d, BatchNorm2d and Linear in place, with fresh weights.

    The channels of an `image` and the number of logits stay the same.
    """

    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            fresh: nn.Module
            kind = type(module)
            if isinstance(module, SLIMMED) and kind not in SLIMMED:
                # For example timm's norm with its activation, or its convs with other padding.
                raise ValueError(f"{kind.__name__} is more than a {kind.__bases__[0].__name__}")
            if isinstance(module, nn.Conv2d):
                depthwise = module.groups == module.in_channels > 1
                fresh = conv = nn.Conv2d(
                    image if module.in_channels == image else scaled(module.in_channels),
                    scaled(module.out_channels),
                    module.kernel_size,  # type: ignore[arg-type]
                    module.stride,  # type: ignore[arg-type]
                    module.padding,  # type: ignore[arg-type]
                    module.dilation,  # type: ignore[arg-type]
                    scaled(module.in_channels) if depthwise else module.groups,
                    module.bias is not None,
                    module.padding_mode,
                    device="cpu",
                )
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
            elif isinstance(module, nn.BatchNorm2d):
                fresh = nn.BatchNorm2d(
                    scaled(module.num_features), module.eps, module.momentum, device="cpu"
                )
            elif isinstance(module, nn.Linear):
                last = module.out_features == classes
                fresh = nn.Linear(
                    scaled(module.in_features),
                    classes if last else scaled(module.out_features),
                    module.bias is not None,
                    device="cpu",
                )
            else:
                continue
            setattr(parent, name, fresh)

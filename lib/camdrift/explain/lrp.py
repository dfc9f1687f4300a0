"""Relevance: the places of the input behind a logit, by LRP preset A flat, through zennit.

Layer-wise relevance propagation (Bach et al. 2015, doi:10.1371/journal.pone.0130140) passes a logit
back from layer to layer, each neuron's share to the neurons that fed it. Preset A flat is
iNNvestigate's `LRPSequentialPresetAFlat`, which klawikowska2020 used:

| layer | rule |
|---|---|
| dense | epsilon, Bach et al. 2015, equation 58, with 0.1 |
| conv | alpha1-beta0, equation 60, the whole bias in the denominator |
| the one that the input enters | flat, Lapuschkin et al. 2019, supplementary note 2 |
| average pooling, residual addition | in proportion to each input's contribution |
| max-pooling, concatenation, reshaping | along the gradient: the winner takes all |
| activation, of any kind | passed on unchanged |

Relevance is conserved with three exceptions. A bias takes its share, which is dropped; a negative
bias in a conv passes on more than it received. Epsilon takes a share. And where nothing contributes
positively to a conv's output, the relevance of that output is lost. A denominator of exactly 0
counts as 1e-7. Batch norm is part of its conv, see `engine.Watched`.
"""

import copy
import operator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from camdrift.models import devices, graph
from camdrift.models.architectures import RefusedError
from camdrift.models.logits import class_logits
from camdrift.models.model import Model, padded
from camdrift.models.tensors import Heatmaps, Pixels
from camdrift.pipeline.vision import torchvision  # noqa: F401  must load before zennit's

# isort: split
from zennit.core import Composite, Hook
from zennit.layer import Sum
from zennit.rules import Epsilon, Flat, Norm, Pass

EPSILON = 0.1
ZERO = 1e-7

AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
AVERAGE_FUNCTIONS = {F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean"}
RESHAPES = (nn.Flatten, *graph.IDENTITIES)
RESHAPE_FUNCTIONS = {
    torch.flatten, getattr, *graph.IDENTITY_FUNCTIONS,
    "flatten", "view", "reshape", "contiguous", "size",
}  # fmt: skip
ROUTES = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)
ROUTE_FUNCTIONS = {
    F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, operator.getitem, *graph.CONCATS,
}  # fmt: skip
# Functions in place of tensor methods, so that a module can hold them.
METHODS = {"mean": torch.mean, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


@devices.exactly()
def relevance(model: Model, pixels: Pixels, classes: Tensor | None = None) -> Heatmaps:
    """Returns each image's relevance map: raw and signed, summed over channels.

    Propagation starts from the logit itself. In the last dense layer, where most networks end, it
    cancels except for the epsilon, so a map's sign does not show the logit's. Alpha1-beta0 and flat
    assign no share against the sign that they receive: only dense layers do, and a network with one
    dense layer may have maps of one sign everywhere.

    The map has the sides of the network's input, `model.sides`. The flat rule uses no value of the
    input, so the relevance of pixels equals that of normalised pixels.

    Args:
        model: the explained model; it is not changed, not even after an error.
        pixels: in [0, 1].
        classes: (n,), the classes of the explained logits; None for each image's own top class.

    Raises:
        RefusedError: the network holds a layer that no rule treats.
        ValueError: `classes` are not one an image.
    """
    return relevance_and_last_layer(model, pixels, classes)[0]


@devices.exactly()
def relevance_and_last_layer(
    model: Model, pixels: Pixels, classes: Tensor | None = None
) -> tuple[Heatmaps, Tensor]:
    """Returns relevance maps, as `relevance` does, and the relevance of the last layer's inputs.

    The last layer is the last that has weights, in most networks the dense one that computes the
    logits. One pass gives both: the maps, and (n, inputs). Those of a conv are flattened, channel
    by channel.

    Args and errors are those of `relevance`.
    """
    if classes is not None and classes.shape != pixels.shape[:1]:
        raise ValueError(f"wanted {len(pixels)} classes, one an image, got {tuple(classes.shape)}")
    network, rules = _with_own_modules(model.graph)
    weighted = [name for name, rule in rules.items() if isinstance(rule, Flat | AlphaOne | Epsilon)]
    last = network.get_submodule(weighted[-1]) if weighted else network
    maps, units = [], []
    start = 0
    with Composite(lambda _, name, __: rules.get(name)).context(network):
        for batch, rows in model.batches(pixels.detach()):
            targets = None
            if classes is not None:
                targets = padded(classes[start : start + rows], len(batch)).to(model.device)
            parts = _propagate(network, last, model.inputs(batch), targets)
            maps.append(parts[0][:rows].to(pixels.device))
            units.append(parts[1][:rows].to(pixels.device))
            start += rows
    return torch.cat(maps), torch.cat(units)


def _propagate(
    network: nn.Module, last: nn.Module, inputs: Tensor, classes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns the relevance of one micro-batch: maps, and that of the last layer's inputs.

    The rules replace the gradients.
    """
    inputs = inputs.detach().requires_grad_()
    entered: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor]) -> None:
        entered.append(args[0])

    # Before the rule's own hook: the gradient of what enters there is what the rule returns.
    handle = last.register_forward_pre_hook(keep, prepend=True)
    logits = network(inputs)
    handle.remove()
    shown = class_logits(logits.detach())
    place = (shown.argmax(1) if classes is None else classes)[:, None]
    start = shown.gather(1, place)
    if logits.shape[1] > 1:
        start = torch.zeros_like(logits).scatter(1, place, start)
    gradient, deep = torch.autograd.grad(logits, [inputs, entered[0]], start)
    return gradient.sum(1), deep.flatten(1)


def _nonzero(denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, ZERO, denominator)


class AlphaOne(Hook):
    """The alpha1-beta0 rule with the whole bias: R x+ w+ / z and R x- w- / z.

    z = sum(x+ w+) + sum(x- w-) + b. As in iNNvestigate, which adds b's positive part to w+ and its
    negative part to w-; zennit's `ZPlus` has the positive part alone. So z may be 0 or negative if
    the bias is very negative.
    """

    def forward(self, module: nn.Module, input: tuple[Tensor], output: Tensor) -> None:
        """Keeps the layer's input."""
        self.stored_tensors["input"] = input[0].detach()

    def backward(
        self, module: nn.Conv2d, grad_input: tuple, grad_output: tuple[Tensor]
    ) -> tuple[Tensor]:
        """Returns the relevance of the layer's input from that of its output."""
        x, w = self.stored_tensors["input"], module.weight
        parts = [(x.clamp(min=0), w.clamp(min=0), module.bias)]
        # After a ReLU there are none, and convolving zeros would double the time. Zeros change no
        # bit, so an image's map does not depend on the signs of other images.
        if (x < 0).any():
            parts.append((x.clamp(max=0), w.clamp(max=0), None))
        inputs = [values.requires_grad_() for values, _, _ in parts]
        with torch.enable_grad():
            outputs = [_conv(module, *part) for part in parts]
        share = grad_output[0] / _nonzero(_sum([output.detach() for output in outputs]))
        gradients = torch.autograd.grad(outputs, inputs, [share] * len(parts))
        return (_sum([a.detach() * b for a, b in zip(inputs, gradients, strict=True)]),)


def _sum(tensors: list[Tensor]) -> Tensor:
    return sum(tensors[1:], start=tensors[0])


def _conv(module: nn.Conv2d, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    settings: Any = module.stride, module.padding, module.dilation, module.groups
    return F.conv2d(values, weight, bias, *settings)


class _Call(nn.Module):
    """A function of one tensor as a module, since zennit's rules apply to modules."""

    def __init__(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, *self.args, **self.kwargs)


def _stack(*tensors: Tensor) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise RefusedError(f"relevance cannot share an addition of {shapes}; wanted equal shapes")
    return torch.stack(tensors, dim=-1)


def _with_own_modules(traced: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Hook]]:
    """Returns a network that shares the weights alone, and the rule of each of its modules.

    Every call has its own module, also the second call of one ReLU, because a rule remembers its
    module's tensors. The model's own modules get no hooks.
    """
    built = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    modules: dict[str, nn.Module] = {}
    rules: dict[str, Hook] = {}
    for node in traced.graph.nodes:
        rule = _rule(node, traced)
        if rule is not None:
            rules[node.name] = rule
        if rule is None and node.op != "call_module":
            copies[node] = built.node_copy(node, copies.__getitem__)
            continue
        if node.op == "call_module":
            modules[node.name] = _sharing(traced.get_submodule(node.target))
            inputs = tuple(copies[source] for source in node.args)
        elif node.target in graph.ADDS:
            modules[node.name] = Sum(dim=-1)
            inputs = (built.call_function(_stack, tuple(copies[term] for term in node.args)),)
        else:
            function = METHODS.get(node.target, node.target)
            modules[node.name] = _Call(function, node.args[1:], dict(node.kwargs))
            inputs = (copies[node.args[0]],)
        copies[node] = built.call_module(node.name, inputs)
    return fx.GraphModule(modules, built).eval(), rules


def _sharing(module: nn.Module) -> nn.Module:
    """Returns a copy of a module, without its hooks, that shares its tensors."""
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _rule(node: fx.Node, traced: fx.GraphModule) -> Hook | None:
    """Returns the rule of a node, None where the gradient is the rule.

    Raises:
        RefusedError: no rule treats it.
    """
    if node.op in ("placeholder", "output"):
        return None
    module = graph.module_of(node, traced)
    if graph.matches(node, traced, RESHAPES + ROUTES, RESHAPE_FUNCTIONS | ROUTE_FUNCTIONS):
        return None
    if graph.matches(node, traced, (), graph.ADDS):
        if not node.kwargs and all(isinstance(term, fx.Node) for term in node.args):
            return Norm(stabilizer=_nonzero)
    elif node.all_input_nodes == list(node.args[:1]):  # it has one tensor as input, once
        if isinstance(module, nn.Conv2d | nn.Linear) and _enters(node, traced):
            return Flat(stabilizer=_nonzero)
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            return AlphaOne()
        if isinstance(module, nn.Linear):
            return Epsilon(epsilon=EPSILON)
        if graph.matches(node, traced, AVERAGES, AVERAGE_FUNCTIONS):
            return Norm(stabilizer=_nonzero)
        if graph.is_activation(node, traced):
            return Pass()
    name = module if module is not None else getattr(node.target, "__name__", node.target)
    raise RefusedError(
        f"relevance has no rule for {name} ('{node.name}'). Wanted Conv2d with zero padding, "
        "batch norm right behind one, Linear, activations, max and average pooling, addition of "
        "two tensors, concatenation, flattening, dropout"
    )


def _enters(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Returns whether the network's input enters a layer directly, or only reshaped."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.op != "placeholder":
        if not graph.matches(source, traced, RESHAPES, RESHAPE_FUNCTIONS):
            return False
        source = source.args[0]
    return True

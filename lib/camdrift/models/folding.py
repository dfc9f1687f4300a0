"""Folding: batch norm becomes part of the conv before it."""

import copy
from collections import Counter

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from camdrift.models.calls import CONVS, NORMS, Recording


class Folded(nn.BatchNorm2d):
    """A norm that is part of the conv before it, with all its attributes."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns its input."""
        return input


def fold_norms(network: nn.Module, recording: Recording) -> None:
    """Folds each BatchNorm2d into the Conv2d before it, where nothing else uses that conv.

    The conv is called once, its output goes to that norm alone, the norm normalises that output
    alone, no other call reads their parameters, none is replaced or overwritten in the forward, and
    neither has a hook. Other pairs stay unfolded.
    """
    calls = recording.calls
    modules = dict(network.named_modules())
    called = Counter(call.module for call in calls if call.function in CONVS | NORMS)
    read = Counter(weight for call in calls for weight in call.weights)
    changed = {name.rpartition(".")[0] for name in recording.changed}
    pairs = []
    for place, conv_call in enumerate(calls):
        conv = modules.get(conv_call.module)
        if (
            type(conv) is not nn.Conv2d
            or conv_call.function not in CONVS
            or len(conv_call.users) != 1
            or not conv_call.matters
            or place in recording.ends
        ):
            continue
        norm_call = calls[conv_call.users[0]]
        norm = modules.get(norm_call.module)
        weights = [*conv.parameters(), *(norm.parameters() if norm is not None else ())]
        if (
            type(norm) is nn.BatchNorm2d
            and norm_call.function is F.batch_norm
            and norm.running_mean is not None
            and called[conv_call.module] == called[norm_call.module] == 1
            and not {conv_call.module, norm_call.module} & changed
            and all(read[id(weight)] == 1 for weight in weights)
            and not any(_is_hooked(module) for module in (conv, norm))
        ):
            pairs.append((conv, norm))
    instead: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs:
        instead[conv], instead[norm] = _fused(conv, norm), copy.copy(norm)
        instead[norm].__class__ = Folded
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if module in instead:
            network.set_submodule(path, instead[module])


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Returns a conv that does what two layers do; it shares the conv's attributes."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    fused = copy.copy(conv)
    fused._parameters = {"weight": weight, "bias": bias}
    return fused


def _is_hooked(module: nn.Module) -> bool:
    """Returns whether calling a module does more than its forward."""
    return any(
        (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
         module._backward_pre_hooks)
    )  # fmt: skip

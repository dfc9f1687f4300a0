"""Smoothing: rectifiers computed as softplus, so that gradients have derivatives everywhere.

The gradient of a network of ReLUs is constant in pieces: its own derivative is zero almost
everywhere, and no map that rests on it can be moved along its gradient. With softplus in their
place it can, and the larger beta is, the nearer is the network to its own (Dombrowski et al. 2019,
"Explanations can be manipulated and geometry is to blame", section 2.2). Other activations of
straight pieces are made of ReLUs, and smoothed in the same way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from camdrift.models.calls import Call
from camdrift.settings import SettingsError


class _Softplus(torch.autograd.Function):
    """Softplus whose first and second derivatives share one sigmoid; PyTorch's take it anew."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, beta: float) -> Tensor:
        slope = (tensor * beta).sigmoid_()
        ctx.save_for_backward(tensor, slope)
        ctx.beta = beta
        return F.softplus(tensor, beta=beta)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _SoftplusBackward.apply(gradient, *ctx.saved_tensors, ctx.beta), None


class _SoftplusBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, tensor: Tensor, slope: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(gradient, slope)
        ctx.beta = beta
        return gradient * slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gradient, slope = ctx.saved_tensors
        by_gradient = second * slope
        by_tensor = torch.addcmul(by_gradient, by_gradient, slope, value=-1)
        return by_gradient, by_tensor.mul_(gradient).mul_(ctx.beta), None, None


def softplus(tensor: Tensor, beta: float) -> Tensor:
    """Returns log(1 + exp(beta x)) / beta, with two derivatives."""
    return _Softplus.apply(tensor, beta)


def _relu(beta: float, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return softplus(tensor, beta)


def _relu6(beta: float, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return _hardtanh(beta, tensor, 0.0, 6.0)


def _hardtanh(
    beta: float, tensor: Tensor, min_val: float = -1.0, max_val: float = 1.0, *_: Any, **__: Any
) -> Tensor:
    rise, rest = (softplus(tensor - bound, beta) for bound in (min_val, max_val))
    return min_val + rise - rest


def _hardsigmoid(beta: float, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return _relu6(beta, tensor + 3) / 6


def _hardswish(beta: float, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor * _hardsigmoid(beta, tensor)


def _leaky(beta: float, tensor: Tensor, negative_slope: float = 0.01, *_: Any, **__: Any) -> Tensor:
    return negative_slope * tensor + (1 - negative_slope) * softplus(tensor, beta)


SMOOTH: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.relu: _relu, torch.relu: _relu, torch.relu_: _relu, Tensor.relu: _relu,
    Tensor.relu_: _relu, F.relu6: _relu6, F.hardtanh: _hardtanh, F.hardtanh_: _hardtanh,
    F.hardsigmoid: _hardsigmoid, F.hardswish: _hardswish, F.leaky_relu: _leaky,
    F.leaky_relu_: _leaky,
}  # fmt: skip
# Activations of straight pieces for which there is no smooth form here.
ANGULAR: dict[Callable[..., Any], str] = {
    F.prelu: "prelu",
     torch.prelu: "prelu", F.rrelu: "rrelu",
    F.rrelu_: "rrelu", F.threshold: "threshold", F.softshrink: "softshrink",
    F.hardshrink: "hardshrink",
}  # fmt: skip


class Smooth(TorchFunctionMode):
    """A context in which rectifiers are computed as softplus.

    Args:
        beta: of softplus, log(1 + exp(beta x)) / beta: it differs from ReLU by log(2) / beta at
            most.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Calls the function, or the smooth one in its place."""
        kwargs = kwargs or {}
        smooth = SMOOTH.get(function)
        if smooth is None:
            return function(*args, **kwargs)
        tensor, *others = args or (kwargs.pop("input"),)
        return smooth(self.beta, tensor, *others, **kwargs)


def check(calls: Sequence[Call]) -> None:
    """Checks that the rectifiers of a recorded forward can be smoothed.

    Raises:
        SettingsError: one cannot.
    """
    for call in calls:
        if call.function in ANGULAR:
            raise SettingsError(
                f"'{call.module or call.name}' computes {ANGULAR[call.function]}, which has no "
                "smooth form here, and attacks on maps follow second derivatives; wanted a network "
                "of ReLU, ReLU6, leaky ReLU or smooth activations such as GELU and SiLU"
            )

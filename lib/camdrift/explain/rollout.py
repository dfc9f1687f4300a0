"""Attention rollout, and its form weighted by gradients: one map an image, of all blocks together.

For networks with a class token and global attention, such as ViT, DeiT and BEiT. The weights of the
attention, which PyTorch's own function does not return, are computed from queries and keys here, so
these maps cost more than those of `cam`: attention is no longer fused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from camdrift.models import blocks, copies
from camdrift.models.calls import SOFTMAXES, UnwatchableError
from camdrift.models.hook_points import Grid
from camdrift.models.recorder import record
from camdrift.models.tensors import Heatmaps, Labels

FRAME = "wanted a network with a class token in whose blocks every token attends to every other"


def attention_rollout(network: nn.Module, pixels: Tensor) -> Heatmaps:
    """Returns how much of each place of the image reaches the class token, block after block.

    Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3: the product of
    the blocks' weights, mean over heads, each with the identity added for the residual connection
    and its rows scaled to add up to 1.

    Args:
        network: inputs -> logits; it is left as it is.
        pixels: (n, c, h, w), its inputs.

    Raises:
        UnwatchableError: the network has no class token, or its attention is not global.
    """
    with torch.no_grad():
        weights, grid, _ = _run(network, pixels)
    rolled = torch.eye(weights[0].shape[-1], device=pixels.device)
    for part in weights:
        heads = part.float().unflatten(0, (len(pixels), -1)).flatten(1, -3)
        mean = heads.mean(1) + torch.eye(part.shape[-1], device=part.device)
        rolled = mean / mean.sum(-1, keepdim=True) @ rolled
    return _of_class_token(rolled, grid)


def weighted_rollout(
    network: nn.Module, pixels: Tensor, targets: Labels | int | None = None
) -> Heatmaps:
    """Returns how much each place of the image supports a class, block after block.

    Chefer, Gur and Wolf 2021, "Generic Attention-Model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", equations 5 and 6: R grows by A R in each block, where A is the
    mean over heads of the positive part of the weights times their gradient.

    Args:
        network: inputs -> logits; it is left as it is.
        pixels: (n, c, h, w), its inputs.
        targets: the classes to explain, one or (n,); None: each image's own top class.

    Raises:
        UnwatchableError: the network has no class token, or its attention is not global.
    """
    with torch.inference_mode(False), torch.enable_grad():
        weights, grid, logits = _run(network, pixels.detach().clone().requires_grad_())
        if logits.ndim == 2 and logits.shape[1] == 1:  # of two classes, as in `cam.all_layers`
            logits = torch.cat([-logits, logits], 1)
        classes = logits.argmax(1) if targets is None else torch.as_tensor(targets)
        classes = classes.to(logits.device).expand(len(logits))
        if logits.ndim != 2 or not bool(((classes >= 0) & (classes < logits.shape[1])).all()):
            raise ValueError(
                f"wanted targets among the classes of logits {tuple(logits.shape)}, got {classes}"
            )
        score = logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, weights)
    rolled = torch.eye(weights[0].shape[-1], device=pixels.device)
    for part, gradient in zip(weights, gradients, strict=True):
        product = (part.detach() * gradient).float().unflatten(0, (len(pixels), -1))
        rolled = rolled + product.relu().flatten(1, -3).mean(1) @ rolled
    return _of_class_token(rolled, grid)


def _of_class_token(rolled: Tensor, grid: Grid) -> Heatmaps:
    """Returns the row of the class token, the first, as maps."""
    return rolled[:, 0, grid.extra :].unflatten(1, (grid.height, grid.width))


def _run(network: nn.Module, pixels: Tensor) -> tuple[list[Tensor], Grid, Tensor]:
    """Returns the weights of each attention, the grid of tokens, and the logits.

    Weights are (n, heads, t, t) or (n heads, t, t).
    """
    frozen = copies.frozen(network)
    pixels = pixels.clone()  # a forward may write into it
    points = blocks.block_points(record(frozen, pixels[:1]))
    grids = {point.grid for point in points}
    (grid, *others) = grids or {None}
    if others or grid is None or grid.extra == 0:
        raise UnwatchableError(f"{FRAME}; got {len(points)} blocks of tokens on {len(grids)} grids")
    with _Weights() as run:
        logits = frozen(pixels)
    count = grid.height * grid.width + grid.extra
    shapes = [tuple(part.shape) for part in run.weights]
    if len(shapes) != len(points) or any(shape[-2:] != (count, count) for shape in shapes):
        raise UnwatchableError(f"{FRAME}, {count} of them; got weights of {shapes}")
    return run.weights, grid, logits


class _Weights(TorchFunctionMode):
    """Keeps the weights of each attention, from which its result is then computed."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if function is F.multi_head_attention_forward:
            apart = {"need_weights": True, "average_attn_weights": False}
            result, weights = function(*args, **kwargs | apart)
            # It returns a view of the weights that its result is computed from.
            self.weights.append(weights if weights._base is None else weights._base)
            if not kwargs.get("need_weights", True):
                return result, None
            return result, weights.mean(1) if kwargs.get("average_attn_weights", True) else weights
        result = function(*args, **kwargs)
        if function in SOFTMAXES and isinstance(result, Tensor) and result.ndim == 4:
            self.weights.append(result)
        return result

    def _attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if is_causal or enable_gqa:
            raise UnwatchableError(f"{FRAME}; got causal or grouped attention")
        products = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            masked = attn_mask.dtype is torch.bool
            products = products.masked_fill(~attn_mask, -torch.inf) if masked else (
                products + attn_mask
            )  # fmt: skip
        self.weights.append(products.softmax(-1))
        return self.weights[-1] @ v

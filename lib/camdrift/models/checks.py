"""Whether a network can be explained: its logits are numbers, and of each image by itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from camdrift.settings import SettingsError, imports

RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
# Each has an argument `training`.
RANDOM_FUNCTIONS = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    F.rrelu,
}  # fmt: skip

# What rounding does to logits, as a share of the largest: beside other images, and where batch norm
# is folded. Of twenty networks with random weights the most was 0 and 2.5e-5.
ROUNDING, FOLDING = 1e-4, 1e-3
RANDOMLY = (
    "asked twice for the same images, the network gives other logits: something in it is drawn at "
    "random, or remembers; wanted a forward without either in eval mode"
)


class UnsoundError(SettingsError):
    """A network whose logits are not numbers, or not of each image by itself."""


def refuse_training(traced: fx.GraphModule) -> None:
    """Raises UnsoundError where a network in eval mode calls something in training mode.

    Batch norm then takes its statistics from the images of a batch, and dropout draws anew.
    """
    for node in traced.graph.nodes:
        wanted = None
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.training:
                    wanted = "a train() that leaves it in eval mode when the network is"
                elif module.running_mean is None:
                    wanted = "track_running_stats=True"
            elif isinstance(module, RANDOM) and module.training:
                wanted = "a train() that leaves it in eval mode when the network is"
            what = f"{type(module).__name__} '{node.target}'"
        elif node.op == "call_function" and node.kwargs.get("training"):
            if node.target is F.batch_norm or node.target in RANDOM_FUNCTIONS:
                wanted = "training=self.training"
            what = f"{getattr(node.target, '__name__', '')}(training=True)"
        if wanted:
            raise UnsoundError(
                f"in eval mode, too, {what} works as in training: an image's logits would depend "
                f"on the images beside it, or on chance; wanted {wanted}"
            )


def refuse_dependence(
    call: Callable[[Tensor], Any], pixels: Tensor, *, classes: int, finite: bool = True
) -> None:
    """Raises UnsoundError where the logits of an image depend on more than the image.

    A few images are asked for beside their copies, again, and beside harsh ones. What depends on
    its neighbours by less than rounding does, or in other ways than these show, is not noticed.

    Args:
        call: pixels -> logits, for any number of images.
        pixels: (n, 3, h, w) of which the first two are tried, made pale; none are no fault.
        classes: the number of logits that is wanted.
        finite: whether logits that are not are refused; before training they may be.
    """
    if not len(pixels):
        return
    # Pale against black and white, so that extremes over a batch, too, are others beside those.
    pale = pixels[:2] * 0.5 + 0.25
    harsh = (pale <= pale.mean()).float()
    number = 2 * len(pale)
    beside = (pale, pale, harsh)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            copies, again, other = (call(torch.cat([pale, images])) for images in beside)
    except Exception as fault:  # a network's forward may raise anything
        raise UnsoundError(
            f"the network does not run on {number} images: {imports.message(fault)}"
        ) from fault
    if copies.shape != (number, classes):
        raise UnsoundError(
            f"the network returns {tuple(copies.shape)} for {number} images, wanted "
            f"({number}, {classes})"
        )
    if not (copies < float("inf")).all():  # of NaN, too
        if finite:
            raise UnsoundError(not_numbers(copies))
        return
    if differ(copies, again):
        raise UnsoundError(RANDOMLY)
    alone = copies[: len(pale)]
    if differ(alone, copies[len(pale) :]) or differ(alone, other[: len(pale)]):
        raise UnsoundError(
            "the logits of an image depend on the images beside it in a batch; wanted a forward "
            "that treats each image by itself in eval mode"
        )


def refuse_other_logits(own: Tensor, prepared: Tensor, again: Callable[[], Tensor]) -> None:
    """Raises UnsoundError where a prepared network gives other logits than the network itself.

    Logits that are not finite are left to those that explain them.

    Args:
        own: of the network, for some images.
        prepared: of what stands for it, for the same images.
        again: calls the network once more, to tell chance from a difference.
    """
    if not bool(own.isfinite().all()) or not differ(own, prepared, FOLDING):
        return
    if differ(own, again(), FOLDING):
        raise UnsoundError(RANDOMLY)
    raise UnsoundError(
        "prepared for its maps, the network gives other logits, by up to "
        f"{float((own - prepared).abs().max()):.2g}: something in its forward is drawn, counted or "
        "decided anew in each call, or camdrift misreads it; wanted a forward that gives the same "
        "for the same image in eval mode"
    )


def differ(first: Tensor, second: Tensor, share: float = ROUNDING) -> bool:
    """Returns whether logits are further apart than a share of the largest."""
    finite = first[first.isfinite()].abs()
    allowed = share * float(finite.max()) if finite.numel() else 0.0
    return not torch.allclose(first, second, rtol=0, atol=allowed)


def not_numbers(logits: Tensor) -> str:
    """Returns what is said of logits of which some are NaN or infinite."""
    bad = int((~(logits < float("inf")).all(1)).sum())
    return (
        f"the network returns NaN or infinite logits for {bad} of {len(logits)} images. Wanted the "
        "mean and std that its weights were trained with, or a lower learning_rate where it is "
        "trained here"
    )

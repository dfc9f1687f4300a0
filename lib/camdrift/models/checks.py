"""Checks that a network can be explained: its logits are finite and depend on one image alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from camdrift.models.calls import Call, Recording, suspects
from camdrift.settings import SettingsError, imports

# Largest error of logits by rounding, as a share of the largest logit: in batches of other images,
# and with folded batch norm. The largest in twenty networks with random weights: 0 and 2.5e-5.
ROUNDING, FOLDING = 1e-4, 1e-3
RANDOMLY = (
    "asked twice for the same images, the network gives other logits: something in it is drawn at "
    "random, or remembers{}; wanted a forward without either in eval mode"
)


class UnsoundError(SettingsError):
    """A network whose logits are not finite, or depend on more than one image."""


def refuse_training(calls: Sequence[Call]) -> None:
    """Raises UnsoundError where a network in eval mode calls something as in training.

    Batch norm then takes its statistics from the images of a batch, and dropout draws anew.
    """
    for call in calls:
        if call.training and call.matters:
            name = f"{call.kind} '{call.module}'" if call.module else call.kind
            raise UnsoundError(
                f"in eval mode, too, {name} works as in training: an image's logits would depend "
                f"on the images beside it, or on chance; wanted {call.remedy}"
            )


def refuse_dependence(
    call: Callable[[Tensor], Any], pixels: Tensor, *, classes: int, finite: bool = True
) -> None:
    """Raises UnsoundError where the logits of an image depend on more than the image.

    A few images are evaluated with their copies, once more, and with harsh images. A dependence
    smaller than rounding, or of a kind that these batches do not show, goes unnoticed.

    Args:
        call: pixels -> logits, for any number of images.
        pixels: (n, c, h, w), of which pale versions of the first two are used; n may be 0.
        classes: the number of logits that the network must return.
        finite: whether to refuse logits that are not finite; before training they may occur.
    """
    if not len(pixels):
        return
    # Pale images with black and white ones: extremes over the batch differ, too.
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
        raise UnsoundError(RANDOMLY.format(""))
    alone = copies[: len(pale)]
    if differ(alone, copies[len(pale) :]) or differ(alone, other[: len(pale)]):
        raise UnsoundError(
            "the logits of an image depend on the images beside it in a batch; wanted a forward "
            "that treats each image by itself in eval mode"
        )


def refuse_other_logits(
    own: Tensor, prepared: Tensor, again: Callable[[], Tensor], recording: Recording
) -> None:
    """Raises UnsoundError where a prepared network gives other logits than the network itself.

    Logits that are not finite pass: the code that explains them reports them.

    Args:
        own: the network's logits for some images.
        prepared: the prepared network's logits for the same images.
        again: calls the network once more, to tell chance from a difference.
        recording: of the network's forward.
    """
    if not bool(own.isfinite().all()) or not differ(own, prepared, FOLDING):
        return
    if differ(own, again(), FOLDING):
        raise UnsoundError(RANDOMLY.format(suspects(recording)))
    raise UnsoundError(
        "prepared for its maps, the network gives other logits, by up to "
        f"{float((own - prepared).abs().max()):.2g}: a forward hook changes a result, something in "
        "the forward is drawn, counted or decided anew in each call, or camdrift misreads it; "
        "wanted a module in place of such a hook, and a forward that gives the same for the same "
        "image in eval mode"
    )


def differ(first: Tensor, second: Tensor, share: float = ROUNDING) -> bool:
    """Returns whether logits differ by more than a share of the largest."""
    finite = first[first.isfinite()].abs()
    allowed = share * float(finite.max()) if finite.numel() else 0.0
    return not torch.allclose(first, second, rtol=0, atol=allowed)


def not_numbers(logits: Tensor) -> str:
    """Returns the message about logits of which some are NaN or infinite."""
    bad = int((~(logits < float("inf")).all(1)).sum())
    return (
        f"the network returns NaN or infinite logits for {bad} of {len(logits)} images. Wanted the "
        "mean and std that its weights were trained with, or a lower learning_rate where it is "
        "trained here"
    )

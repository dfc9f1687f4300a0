"""Training a network from pixels and labels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camdrift.models import architectures, checks, devices, gradients
from camdrift.models.logits import class_logits
from camdrift.models.model import inputs
from camdrift.models.tensors import Labels, Mask, PerImage, Pixels
from camdrift.settings import Descent, SettingsError

# (network on pixels, pixels, labels) -> attacked pixels to train on.
Adversary = Callable[[Callable[[Tensor], Tensor], Pixels, Labels], Pixels]


def adversary(settings: Descent) -> Adversary:
    """Returns the attack of adversarial training: projected gradient descent in L-infinity.

    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1,
    without its random start.
    """

    def attack(network: Callable[[Tensor], Tensor], pixels: Pixels, labels: Labels) -> Pixels:
        def look(images: Pixels, places: PerImage, gradient: bool) -> tuple[Pixels, Mask]:
            images.requires_grad_()
            loss = F.cross_entropy(network(images), labels, reduction="sum")
            (rising,) = torch.autograd.grad(loss, images)
            images.requires_grad_(False)
            return rising, torch.zeros(len(images), dtype=torch.bool, device=images.device)

        sizes = [settings.step] * settings.steps
        change, _ = gradients.ascend(look, pixels, sizes, eps=settings.eps)
        return (pixels + change).clamp(0, 1)

    return attack


class DivergedError(SettingsError, FloatingPointError):
    """The loss of training is not finite."""


def train(
    network: nn.Module,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | Sequence[int],
    layers: str,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    shift: int,
    flip: bool,
    seed: int,
    optimiser: str = "adamw",
    momentum: float = 0.0,
    decay: float = 0.0,
    adversary: Adversary | None = None,
    progress: Callable[[Any], Any] = lambda epochs: epochs,
) -> list[dict]:
    """Trains a network in place; keeps the weights of the epoch with the best validation accuracy.

    The network is moved to the current device and stays there. `training` and `validation` are
    pixels and labels. Cross-entropy, batches without replacement; AdamW with a one-cycle learning
    rate, or, if `optimiser` is 'sgd', gradient descent with `momentum` and the learning rate over
    1 + `decay` times the steps so far, as Keras has it. Each image is shifted by up to `shift` px
    (edges repeated), mirrored at random if `flip`, then resized to the input's `size`. An
    `adversary` replaces each batch by its attack on the network at that step, in eval mode. With
    `layers` 'dense', all other layers stay unchanged, and so do the statistics of norms.

    Returns:
        The curve: `epoch` (from 1), `loss` (mean over the epoch), `validation_accuracy` in [0, 1].

    Raises:
        DivergedError: the loss is not finite.
        RefusedError: `layers` is 'dense' and the network has no dense layer.
    """
    pixels, labels = training
    generator = torch.Generator().manual_seed(seed)
    device = devices.current()
    architectures.channels_last(network.to(device))
    centre, spread = (torch.tensor(value).view(1, -1, 1, 1).to(device) for value in (mean, std))
    module = network if layers == "all" else _dense(network)
    network.requires_grad_(layers == "all")
    module.requires_grad_()

    def inside(images: Tensor) -> Tensor:
        output = network(inputs(images, size=size, mean=centre, std=spread))
        # The first of several outputs: others are an auxiliary head's.
        return class_logits(output if isinstance(output, Tensor) else output[0])

    steps = max(1, len(pixels) // batch)
    common: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if device.type == "cpu":
        # One call for all parameters takes the least time; and it alone takes no square root by
        # MKL, whose last digits depend on the processor.
        common["fused"] = True
    descent: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    if optimiser == "sgd":
        descent = torch.optim.SGD(module.parameters(), momentum=momentum, **common)
        schedule = torch.optim.lr_scheduler.LambdaLR(descent, lambda step: 1 / (1 + decay * step))
    else:
        descent = torch.optim.AdamW(module.parameters(), **common)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            descent, learning_rate, total_steps=epochs * steps
        )
    curve, best, best_state = [], -1.0, {}
    for epoch in progress(range(1, epochs + 1)):
        network.eval()
        module.train()
        order = torch.randperm(len(pixels), generator=generator)
        total = 0.0
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            images = _augment(pixels[rows], shift, flip, generator).to(device)
            targets = labels[rows].to(device)
            if adversary is not None:
                network.eval()
                images = adversary(inside, images, targets)
                module.train()
            loss = F.cross_entropy(inside(images), targets)
            descent.zero_grad(set_to_none=True)
            loss.backward()
            descent.step()
            schedule.step()
            total += float(loss.detach())
        if not total < float("inf"):
            raise DivergedError(
                f"the loss is {total} in epoch {epoch}; lower learning_rate in params.yaml"
            )
        reached = accuracy(network, *validation, mean=mean, std=std, size=size)
        if not len(validation[1]):
            reached = float("nan")
        curve.append({"epoch": epoch, "loss": total / steps, "validation_accuracy": reached})
        if not reached <= best:  # NaN without validation images, which keeps the last epoch
            best = reached
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best_state)
    return curve


def _dense(network: nn.Module) -> nn.Module:
    """Returns the dense and the dropout layers of a network, in a list.

    Raises:
        RefusedError: there are none.
    """
    kinds = (nn.Linear, nn.modules.dropout._DropoutNd)
    layers = [module for module in network.modules() if isinstance(module, kinds)]
    if not any(isinstance(module, nn.Linear) for module in layers):
        raise architectures.RefusedError(
            f"{type(network).__name__} has no dense layer to train; wanted training.layers: all"
        )
    return nn.ModuleList(layers)


def _augment(images: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    if shift:
        height, width = images.shape[-2:]
        padded = F.pad(images, (shift,) * 4, mode="replicate")
        corners = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=generator).tolist()
        images = torch.stack(
            [
                each[:, y : y + height, x : x + width]
                for each, (y, x) in zip(padded, corners, strict=True)
            ]
        )
    if flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return images


def accuracy(
    network: nn.Module,
    pixels: Pixels,
    labels: Labels,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | Sequence[int],
) -> float:
    """Returns the share of images that a bare network classifies correctly, in [0, 1].

    Raises:
        UnsoundError: logits are NaN or infinite.
    """
    device = next(network.parameters()).device
    centre, spread = (torch.tensor(value).view(1, -1, 1, 1).to(device) for value in (mean, std))
    network.eval()
    right = 0
    with torch.no_grad():
        for images, classes in zip(pixels.split(128), labels.split(128), strict=True):
            prepared = inputs(images.to(device), size=size, mean=centre, std=spread)
            logits = class_logits(network(prepared))
            if not (logits < float("inf")).all():  # also for NaN, whose argmax is a class
                raise checks.UnsoundError(checks.not_numbers(logits))
            right += int((logits.argmax(1).cpu() == classes).sum())
    return right / max(1, len(labels))

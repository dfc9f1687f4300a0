"""The model: pixels -> logits, with hook points at its layers and neurons.

A `Model` takes pixels in [0, 1] and returns logits. It is frozen, in eval mode, without in-place
operations, with normalisation inside, and it calls its network at one fixed batch size, so that an
image's logits do not depend on the images beside it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from camdrift.models import checks, copies, devices, engine, graph, hook_points, selection
from camdrift.models.hook_points import HookPoint
from camdrift.models.logits import class_logits
from camdrift.models.tensors import Activations, Inputs, Logits, Pixels
from camdrift.settings.section import in_words, sides


def padded(values: Tensor, count: int) -> Tensor:
    """Returns (n, ...) values with copies of the last behind them, `count` in all."""
    return torch.cat([values, values[-1:].expand(count - len(values), *values.shape[1:])])


def inputs(pixels: Pixels, *, size: int | Sequence[int], mean: Tensor, std: Tensor) -> Inputs:
    """Returns the inputs of a network: pixels resized to its size (bilinear) and normalised.

    Pixels that have that size already are not resized.

    Args:
        pixels: (n, c, height, width), in [0, 1].
        size: a side in px, or height and width.
        mean: (1, c, 1, 1), as `std`.
        std: of each channel.

    Raises:
        ValueError: the pixels have other channels than the mean.
    """
    if pixels.shape[1] != mean.shape[1]:  # those of one channel would be broadcast
        raise ValueError(
            f"wanted images with {mean.shape[1]} channels, as many as the model's mean has "
            f"numbers, got {pixels.shape[1]}"
        )
    shape = sides(size)
    if tuple(pixels.shape[-2:]) != shape:
        pixels = F.interpolate(pixels, shape, mode="bilinear", antialias=False)
    return (pixels - mean) / std


class Model(nn.Module):
    """Pixels -> logits, with hook points at its layers and neurons.

    A network of a single logit is a model of two classes, see `class_logits`.

    Args:
        network: the network, normalised inputs -> logits.
        mean: of each channel, subtracted from the pixels; its length is the number of channels.
        std: of each channel, by which the difference is divided.
        size: of the input in px, a side, or height and width; pixels of another size are resized
            (bilinear) inside.
        micro_batch: the one batch size at which the network is called.
        precision: of its arithmetic.

    Pixels may lie on any device: logits return to it, tensors of hook points stay with the network.

    Raises:
        UnwatchableError: the forward cannot be watched, or there is no hook point.
        UnsoundError: for an image of noise, the watched network returns other logits than the
            network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | Sequence[int],
        micro_batch: int,
        precision: devices.Precision = "float32",
    ) -> None:
        super().__init__()
        self.sides = sides(size)
        self.micro_batch = micro_batch
        self.precision = precision
        first = next(network.parameters())
        place = first.device
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1).to(place))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1).to(place))
        network.eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, *self.shape, generator=generator).to(place, first.dtype.to_real())
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self._watched = engine.watch(network, noise)
            self._plain = self._watched.network
            checks.refuse_other_logits(
                network(noise),
                self._plain(noise),
                lambda: network(noise),
                self._watched.recording,
            )
        self.maps: tuple[HookPoint, ...] = selection.select(self._watched.recording)
        self.neurons: tuple[HookPoint, ...] = hook_points.neuron_points(self._watched.calls)
        self.eval()

    def forward(self, pixels: Pixels) -> Logits:
        """Returns the logits of any number of images."""
        return torch.cat(
            [self._call(self._plain, part)[0][:rows] for part, rows in self.batches(pixels)]
        )

    def batches(self, pixels: Pixels) -> list[tuple[Tensor, int]]:
        """Returns micro-batches and their numbers of images, the last one padded with copies."""
        parts = []
        for part in pixels.split(self.micro_batch):
            parts.append((padded(part, self.micro_batch), len(part)))
        return parts

    def activations(self, batch: Pixels) -> tuple[Logits, tuple[Tensor, ...]]:
        """Returns the logits of one micro-batch and the tensor of each map.

        Gradients reach the tensors and, if the batch requires them, the pixels.
        """
        logits, tensors = self._call(partial(self._watched, points=self.maps), batch)
        return logits, tensors

    def probes(self, batch: Pixels) -> tuple[Logits, tuple[Tensor, ...]]:
        """Returns the logits of one micro-batch and the tensor of each map.

        Gradients reach the tensors and stop at the first, the cheapest way to obtain all of them.
        """
        points = partial(self._watched, points=self.maps, leaves=True)
        logits, tensors = self._call(points, batch)
        return logits, tensors

    def probe(self, place: int) -> Callable[[Pixels], tuple[Logits, Activations]]:
        """Returns a function: a micro-batch -> its logits and the tensor of the map at `place`.

        Gradients reach the tensor and stop there. A negative place counts from the end, as in a
        list.
        """
        network = partial(self._watched, points=[self.maps[place]], leaves=True)

        def call(batch: Pixels) -> tuple[Logits, Activations]:
            logits, (tensor,) = self._call(network, batch)
            return logits, tensor

        return call

    def excitations(self, batch: Pixels) -> tuple[Logits, tuple[Tensor, ...]]:
        """Returns the logits of one micro-batch and the tensor of each neuron."""
        logits, tensors = self._call(partial(self._watched, points=self.neurons), batch)
        return logits, tensors

    def weight_of(self, name: str) -> Tensor | None:
        """Returns the weight of the network's module of that name, None where it has none."""
        module = dict(self._plain.named_modules()).get(name)
        return getattr(module, "weight", None)

    @property
    def network(self) -> nn.Module:
        """The frozen network, `inputs` -> logits; callers must copy it before changing it."""
        return self._plain

    @property
    def watched(self) -> engine.Watched:
        """The frozen network with the calls of its forward."""
        return self._watched

    @cached_property
    def graph(self) -> fx.GraphModule:
        """The network's graph; raises as `graph.trace` does."""
        return graph.trace(copies.frozen(self._plain))

    def inputs(self, pixels: Pixels) -> Inputs:
        """Returns the network's inputs on its device: pixels of its size, normalised."""
        moved = pixels.to(self.device)
        return inputs(moved, size=self.sides, mean=self.mean, std=self.std)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width in px of one input."""
        return (self.mean.shape[1], *self.sides)

    @property
    def size(self) -> int:
        """The side of a square input in px.

        Raises:
            ValueError: the input is not square; `sides` has both.
        """
        height, width = self.sides
        if height != width:
            raise ValueError(f"wanted a model of square inputs, got {in_words(self.sides)}")
        return height

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return self.mean.device

    def _call(self, network: Callable[[Inputs], Any], pixels: Pixels) -> tuple[Logits, Any]:
        """Returns the logits, on the pixels' device, and the rest of the network's output."""
        with devices.computing(self.device, self.precision):
            output = network(self.inputs(pixels))
        logits, rest = output if isinstance(output, tuple) else (output, None)
        if self.precision == "bfloat16":
            logits = logits.float()
        logits = class_logits(logits)
        return logits.to(pixels.device), rest

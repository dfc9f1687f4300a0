"""Incremental evaluation: logits of images with one changed pixel, at the cost of a window.

Every layer's output for the clean image is kept. A changed pixel then affects only a window of each
layer's output, which grows from layer to layer; the rest is the clean image's.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from tqdm import tqdm

from camdrift.models.graph import UntraceableError
from camdrift.models.logits import class_logits
from camdrift.models.model import Model
from camdrift.models.tensors import Logits, PerImage, Pixels

CHUNK = 64  # changed images evaluated at once; 32 is slower, 128 hardly faster for twice the memory
POINTWISE = (
    nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.ELU, nn.GELU, nn.Hardswish, nn.Identity,
    nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip


def painted(pixels: Pixels, places: Tensor, values: Tensor) -> Pixels:
    """Returns images in which pixels are replaced; of two at the same place the last one counts.

    Args:
        pixels: images, not modified.
        places: row and column of each replaced pixel, int64 (n, k, 2).
        values: their new values, (n, k, channels).
    """
    changed = pixels.clone()
    image = torch.arange(len(pixels), device=pixels.device)
    for place, value in zip(places.unbind(1), values.unbind(1), strict=True):
        changed[image, :, place[:, 0], place[:, 1]] = value
    return changed


@dataclass(frozen=True)
class _Stage:
    """A layer whose output depends on a neighbourhood, and the pointwise ones after it.

    reach: px of its input, in a row, on which one place of its output depends. sides: height and
    width of its input, in px, padded by `padding` on all sides with `fill`. window: px of its
    output, in a row, that the changed pixel can affect, wherever it lies. out: height and width of
    its whole output.
    """

    layer: nn.Conv2d | nn.MaxPool2d
    after: tuple[nn.Module, ...]
    reach: int
    stride: int
    padding: int
    fill: float
    sides: tuple[int, int]
    window: int
    out: tuple[int, int]

    @property
    def crop(self) -> int:
        """Px of the padded input, in a row, on which the window depends."""
        return (self.window - 1) * self.stride + self.reach

    def padded(self, clean: Tensor) -> Tensor:
        """Returns clean inputs with their border, as rows of channels: (n * h * w, c)."""
        bordered = F.pad(clean, [self.padding] * 4, value=self.fill)
        return bordered.permute(0, 2, 3, 1).reshape(-1, bordered.shape[1])

    def whole(self, clean: Tensor) -> Tensor:
        """Returns the output for whole inputs."""
        return self._pointwise(self.layer(clean))

    def output(self, crop: Tensor) -> Tensor:
        """Returns the output for crops that include their border, (n, c, crop, crop)."""
        if isinstance(self.layer, nn.MaxPool2d):
            pool = self.layer
            output = F.max_pool2d(crop, pool.kernel_size, self.stride, 0, pool.dilation)
        else:
            conv = self.layer
            output = F.conv2d(
                crop, conv.weight, conv.bias, self.stride, 0, conv.dilation, conv.groups
            )
        return self._pointwise(output)

    def _pointwise(self, output: Tensor) -> Tensor:
        for module in self.after:
            output = module(output)
        return output


class Incremental:
    """Logits of images with changed pixels, from the layers' outputs for their clean images.

    From the input on, convs, max-pooling and pointwise layers are recomputed around a changed pixel
    only, as long as they form a chain and the window is smaller than the layer's output. From the
    first other layer, branch (an addition or concatenation follows one) or full window on, the
    network runs on whole tensors; a network that begins with such a layer does so throughout. So
    does any network for several changed pixels an image, whose windows would cover most of the
    early layers, and for images that the model resizes.

    Every layer is called at one fixed batch size, so the logits of a changed image do not depend on
    the others. They agree with `model`'s up to rounding: a conv may add the same products in
    another order. A network that torch.fx cannot trace runs on whole tensors, too. The
    kept tensors take as much memory as a gradient for as many images, on the
    model's device. In half precision the network runs on whole tensors, as the model itself does.

    Args:
        model: the model; its weights must not change while this is in use.
        pixels: the clean images.
    """

    def __init__(self, model: Model, pixels: Pixels) -> None:
        self._model = model
        self._home = pixels.device
        self._pixels = pixels = pixels.to(model.device)
        self._stages: list[_Stage] = []
        fits = tuple(pixels.shape[1:]) == model.shape
        if not fits or model.precision == "bfloat16":
            return
        try:
            traced = model.graph
        except UntraceableError as fault:
            tqdm.write(f"changed pixels are evaluated on whole images, which is slower: {fault}")
            return
        self._stages, start = _stages(traced, model.sides)
        if self._stages:
            self._rest = _rest(traced, start)
            self._keep(pixels)

    @torch.no_grad()
    def logits(self, images: PerImage, places: Tensor, values: Tensor) -> Logits:
        """Returns the logits of changed images; n and k are at least 1.

        Args:
            images: index of the clean image behind each, int64.
            places: row and column of each changed pixel, int64 (n, k, 2).
            values: of the changed pixels, (n, k, channels), in [0, 1] or outside.
        """
        windowed = self._stages and places.shape[1] == 1
        size = CHUNK if windowed else self._model.micro_batch
        parts = []
        for start in range(0, len(images), size):
            rows = torch.arange(start, start + size).clamp(max=len(images) - 1)
            part = [tensor[rows].to(self._model.device) for tensor in (images, places, values)]
            output = self._windowed(*part) if windowed else self._full(*part)
            parts.append(output[: len(images) - start].to(self._home))
        return torch.cat(parts)

    def _full(self, images: Tensor, places: Tensor, values: Tensor) -> Tensor:
        return self._model(painted(self._pixels[images], places, values))

    def _windowed(self, images: Tensor, places: Tensor, values: Tensor) -> Tensor:
        model = self._model
        patch = (values[..., None] - model.mean[:, :, 0]) / model.std[:, :, 0]
        patch = patch.view(len(images), -1, 1, 1)
        origin = places[:, 0]
        for stage, clean, buffer in zip(self._stages, self._clean, self._buffers, strict=False):
            first = -((stage.reach - 1 - stage.padding - origin) // stage.stride)
            along = zip(first.unbind(1), stage.out, strict=True)
            moved = torch.stack([at.clamp(0, side - stage.window) for at, side in along], dim=1)
            corner = moved * stage.stride
            height, width = (side + 2 * stage.padding for side in stage.sides)
            square = (stage.crop, stage.crop)
            crop = _crop(clean, (height, width), images, corner, square, buffer)
            _paste(buffer, square, origin + stage.padding - corner, patch)
            patch, origin = stage.output(crop), moved
        out = self._stages[-1].out
        corner = torch.zeros_like(origin)
        whole = _crop(self._clean[-1], out, images, corner, out, self._buffers[-1])
        _paste(self._buffers[-1], out, origin, patch)
        return class_logits(
            self._rest(whole)
        ).clone()  # a rest that only flattens returns the buffer itself

    @torch.no_grad()
    def _keep(self, pixels: Tensor) -> None:
        """Keeps the clean images' tensors, and allocates memory for the crops of a chunk."""
        model = self._model
        tensors: list[list[Tensor]] = [[] for _ in range(len(self._stages) + 1)]
        for part, rows in model.batches(pixels):
            tensor = (part - model.mean) / model.std
            for places, stage in zip(tensors, self._stages, strict=False):
                places.append(stage.padded(tensor[:rows]))
                tensor = stage.whole(tensor)
            channels = tensor.shape[1]
            tensors[-1].append(tensor[:rows].permute(0, 2, 3, 1).reshape(-1, channels))
        self._clean = [torch.cat(parts) for parts in tensors]
        places_of = [stage.crop**2 for stage in self._stages] + [math.prod(self._stages[-1].out)]
        shapes = [
            (CHUNK * count + 1, clean.shape[1])  # the last row takes values outside a crop
            for clean, count in zip(self._clean, places_of, strict=True)
        ]
        # Allocated once: for a large tensor, allocation takes longer than filling it.
        room = self._clean[0].new_empty(max(places * channels for places, channels in shapes))
        self._buffers = [room[: rows * columns].view(rows, columns) for rows, columns in shapes]


def _crop(
    clean: Tensor,
    sides: tuple[int, int],
    images: Tensor,
    corner: Tensor,
    crop: tuple[int, int],
    buffer: Tensor,
) -> Tensor:
    """Returns a crop of a kept tensor for each of `images`, (n, c, *crop), in `buffer`.

    Args:
        clean: rows of channels, (images * height * width, c).
        sides: height and width of the kept tensor in px.
        images: int64 (n,).
        corner: row and column of each crop's first place, int64 (n, 2).
        crop: height and width of a crop in px.
        buffer: (n * the places of a crop + 1, c).
    """
    height, width = sides
    rows, columns = _places(corner, crop)
    index = (images[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
    torch.index_select(clean, 0, index.flatten(), out=buffer[:-1])
    return buffer[:-1].view(len(images), *crop, -1).permute(0, 3, 1, 2)


def _places(corner: Tensor, sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns the rows, (n, height), and the columns, (n, width), of areas from corners (n, 2)."""
    rows, columns = (torch.arange(side, device=corner.device) for side in sides)
    return corner[:, :1] + rows, corner[:, 1:] + columns


def _paste(buffer: Tensor, crop: tuple[int, int], corner: Tensor, patch: Tensor) -> None:
    """Pastes a patch, (n, c, h, w), into each crop in `buffer`, at `corner`: int64 (n, 2)."""
    height, width = crop
    rows, columns = _places(corner, (patch.shape[-2], patch.shape[-1]))
    number = torch.arange(len(patch), device=patch.device)[:, None, None]
    index = (number * height + rows[:, :, None]) * width + columns[:, None, :]
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    index = torch.where(inside, index, len(buffer) - 1)
    flat = patch.permute(0, 2, 3, 1).reshape(-1, patch.shape[1])
    buffer.index_copy_(0, index.flatten(), flat)


def _stages(traced: fx.GraphModule, sides: tuple[int, int]) -> tuple[list[_Stage], fx.Node]:
    """Returns the stages from the input on, and the node whose tensor they end with."""
    stages: list[_Stage] = []
    node = next(node for node in traced.graph.nodes if node.op == "placeholder")
    patch = 1
    while True:
        following = _follower(node, traced)
        if following is None:
            return stages, node
        follower, layer = following
        if isinstance(layer, POINTWISE):
            if not stages:
                return stages, node
            last = stages.pop()
            stages.append(replace(last, after=(*last.after, layer)))
        else:
            stage = _stage(layer, patch, sides)
            if stage is None or stage.window == min(stage.out):
                return stages, node
            stages.append(stage)
            patch, sides = stage.window, stage.out
        node = follower


def _follower(node: fx.Node, traced: fx.GraphModule) -> tuple[fx.Node, nn.Module] | None:
    """Returns the only user of a node, if the node is its only input, and its module; else None."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.op != "call_module" or user.args != (node,) or user.kwargs:
        return None
    return user, traced.get_submodule(str(user.target))


def _stage(layer: nn.Module, patch: int, sides: tuple[int, int]) -> _Stage | None:
    """Returns the stage of a layer, None where the layer is unknown or its kernel is not square."""
    if type(layer) not in (nn.Conv2d, nn.MaxPool2d):
        return None
    assert isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    shape = [layer.kernel_size, layer.stride, layer.padding, layer.dilation]
    pairs = [value if isinstance(value, tuple) else (value, value) for value in shape]
    if any(pair[0] != pair[1] or isinstance(pair[0], str) for pair in pairs):
        return None
    kernel, stride, padding, dilation = (int(pair[0]) for pair in pairs)
    if isinstance(layer, nn.Conv2d):
        supported, fill = layer.padding_mode == "zeros", 0.0
    else:
        supported, fill = not (layer.ceil_mode or layer.return_indices), float("-inf")
    reach = (kernel - 1) * dilation + 1
    height, width = ((side + 2 * padding - reach) // stride + 1 for side in sides)
    window = min(height, width, (patch + reach - 2) // stride + 1)
    stage = _Stage(layer, (), reach, stride, padding, fill, sides, window, (height, width))
    return stage if supported else None


def _rest(traced: fx.GraphModule, start: fx.Node) -> fx.GraphModule:
    """Returns a network that shares the weights: the tensor of `start` -> logits.

    The nodes from the input to `start` are a chain that no other node uses.
    """
    graph = fx.Graph()
    begin = graph.placeholder("tensor")
    copies, node = {start: begin}, start
    while node.op != "placeholder":
        (node,) = node.all_input_nodes
        copies[node] = begin
    graph.output(graph.graph_copy(traced.graph, copies))
    return fx.GraphModule(traced, graph)

"""Behaviour deviation and NoiseCAM against the way they are written down."""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.cluster import DBSCAN
from torch import Tensor, nn

from camdrift.detectors import behaviour, noisecam
from camdrift.explain.methods import grad_cam
from camdrift.models import architectures
from camdrift.models.model import Model
from races import Race

COPIES, RADIUS, NEIGHBOURS = 50, 2, 3
HALVES = [0.5] * 3


def network(width: float) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(
        architecture="vgg16", width=width, head="pooled", classes=18, size=64, initialised=True
    )


def plain(copies: Tensor, net: nn.Module, layer: nn.Module) -> Tensor:
    """Grad-CAMs of copies as they are usually made: hooks, forward, `loss.backward()`, each."""
    tensors = {}
    handle = layer.register_forward_hook(lambda *call: tensors.update(a=call[-1]))
    back = layer.register_full_backward_hook(lambda *call: tensors.update(g=call[-1][0]))
    maps = []
    for copy in copies:
        logits = net((copy[None] - 0.5) / 0.5)
        net.zero_grad()
        logits.max().backward()
        maps.append(grad_cam.maps(tensors["a"].detach(), tensors["g"]))
    handle.remove()
    back.remove()
    return torch.cat(maps)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def races() -> Iterator[Race]:
    """Yields the races of the detectors, a place at a time."""
    # At full width and 224 px the other way takes minutes a round.
    for width, sizes, target in ((0.25, (64, 112, 224), 2.0), (1.0, (64, 112), 2.7)):
        for size in sizes:
            yield _behaviour(width, size, target)
    for size in (64, 112, 224):
        yield _noise_cam(size)
        yield _clusters(size)


def _behaviour(width: float, size: int, target: float) -> Race:
    net = network(width).eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    model = Model(network(width), mean=HALVES, std=HALVES, size=size, micro_batch=25)
    probe = model.probe(-3)
    layer = net.get_submodule("features.25")  # the ReLU of block5_conv1
    copies = torch.rand(COPIES, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Race(
        "Behaviour deviation, maps of 50 copies", "forward and loss.backward() of each",
        {"px": size, "width": width},
        lambda: behaviour.maps(model, probe, iter(copies)), lambda: plain(copies, net, layer),
        close, target, rounds=2,
    )  # fmt: skip


def _lit(maps: Tensor, size: int) -> np.ndarray:
    return noisecam.normalise(maps.detach(), size=size).numpy() > 0.5


def _counted(lit: np.ndarray) -> np.ndarray:
    counts = []
    for one in lit:
        points = np.argwhere(one)
        labels = (
            DBSCAN(eps=RADIUS, min_samples=NEIGHBOURS).fit(points).labels_ if len(points) else []
        )
        counts.append(len(set(labels) - {-1}))
    return np.array(counts)


def _noise_cam(size: int) -> Race:
    """NoiseCAM, clusters and all, may take 1.3 times a Grad-CAM plus DBSCAN: a ratio of 0.77."""
    model = Model(network(1.0), mean=HALVES, std=HALVES, size=size, micro_batch=8)
    probe = model.probe(2)
    pixels = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(1))
    reading = "printed_logits"

    def ours() -> np.ndarray:
        raw = noisecam.raw_maps(*probe(pixels), readings=[reading])[reading]
        return noisecam.clusters(_lit(raw, size), radius=RADIUS, neighbours=NEIGHBOURS)

    def theirs() -> np.ndarray:
        logits, activations = probe(pixels)
        (gradients,) = torch.autograd.grad(logits.amax(1).sum(), activations)
        return _counted(_lit(grad_cam.maps(activations, gradients), size))

    def counted(ours: np.ndarray, theirs: np.ndarray) -> None:
        assert ours.shape == theirs.shape  # of other maps: that counts agree is the next race

    return Race("NoiseCAM and its clusters, block2_conv1", "one Grad-CAM and DBSCAN",
                {"px": size, "width": 1.0, "batch": 8}, ours, theirs, counted, 1 / 1.3)  # fmt: skip


def _clusters(size: int) -> Race:
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.random((8, 1, size // 4, size // 4)))
    lit = _lit(smooth[:, 0], size)
    return Race(
        "Counting clusters of bright pixels", "scikit-learn's DBSCAN", {"px": size, "batch": 8},
        lambda: noisecam.clusters(lit, radius=RADIUS, neighbours=NEIGHBOURS),
        lambda: _counted(lit), np.testing.assert_array_equal, 1.0,
    )  # fmt: skip

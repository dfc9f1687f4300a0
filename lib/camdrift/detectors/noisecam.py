"""NoiseCAM: the map of an image's noise, and the clusters of its bright pixels.

tan2023, section III-E. The paper leaves open what its gradients are of: NoiseCAM has four readings,
the printed equations or the public code's, of the logits or of the probabilities.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from camdrift.detectors.names import READINGS
from camdrift.explain.methods import noise_cam
from camdrift.models.model import Model

# exp() of a larger score overflows; there the map is that of its first term to all digits.
LARGEST_SCORE = 300.0


def raw(
    logits: Tensor,
    activations: Tensor,
    *,
    readings: Sequence[str] = READINGS,
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """Returns the raw maps (n, h, w) of some readings, for the own top class, in float64.

    Two backward passes to `activations`, one for the logits and one for the probabilities, or the
    one that the readings want.
    """
    top = logits.argmax(1, keepdim=True)
    kinds = sorted({reading.rpartition("_")[2] for reading in readings})
    found = {}
    for kind in kinds:
        outputs = logits if kind == "logits" else logits.softmax(1)
        scores = outputs.gather(1, top)[:, 0]
        (gradients,) = torch.autograd.grad(
            scores.sum(), activations, retain_graph=kind != kinds[-1] or create_graph,
            create_graph=create_graph,
        )  # fmt: skip
        a, g = activations.double(), gradients.double()
        bounded = scores.double().clamp_max(LARGEST_SCORE).to(a.device)
        if f"printed_{kind}" in readings:
            found[f"printed_{kind}"] = noise_cam.maps(a, g)
        if f"code_{kind}" in readings:
            found[f"code_{kind}"] = noise_cam.maps_of_code(a, g, bounded)
    return found


def normalised(maps: Tensor, *, size: int) -> Tensor:
    """Returns maps at the input's size, from 0 to almost 1 each: (n, size, size).

    As the public code: 1e-7 is added to what is divided by, so that a map of tiny values stays
    dark. Enlarged bilinearly, half-pixel centres (the code's corners lie on corners).
    """
    large = F.interpolate(maps[:, None], (size, size), mode="bilinear")[:, 0]
    low = large.amin((1, 2), keepdim=True)
    high = large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low + 1e-7)


def clusters(lit: np.ndarray, *, radius: int, neighbours: int) -> np.ndarray:
    """Returns the number of clusters that DBSCAN finds among the lit pixels of each map: (n,).

    Ester et al. 1996, as `sklearn.cluster.DBSCAN(eps=radius, min_samples=neighbours)` on the
    pixels' coordinates: a pixel with `neighbours` lit pixels within `radius`, itself included, is
    a core, and clusters are the connected cores. Counted on the grid, all maps at once.

    Args:
        lit: bool (n, h, w).
        radius: Euclidean, in px.
        neighbours: least number of lit pixels around a core.
    """
    count, height, width = lit.shape
    reach = range(-radius, radius + 1)
    offsets = [(y, x) for y in reach for x in reach if y * y + x * x <= radius * radius]
    padded = np.pad(lit, ((0, 0), (radius, radius), (radius, radius))).view(np.uint8)
    near = np.zeros(lit.shape, dtype=np.int16)
    for y, x in offsets:
        near += padded[:, radius + y : radius + y + height, radius + x : radius + x + width]
    # Cores that touch are of one cluster; a graph joins groups of them that lie further apart.
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = ndimage.generate_binary_structure(2, 2 if (1, 1) in offsets else 1)
    group, groups = ndimage.label(lit & (near >= neighbours), structure=touching)
    pairs = [np.zeros((2, 0), dtype=int)]
    for y, x in offsets:
        reached = max(y, abs(x)) == 1 or y >= height or abs(x) >= width
        if (y, x) <= (0, 0) or reached:  # each pair of pixels once
            continue
        here = group[:, : height - y, max(0, -x) : width - max(0, x)]
        there = group[:, y:, max(0, x) : width - max(0, -x)]
        apart = (here != there) & (here > 0) & (there > 0)
        pairs.append(np.stack([here[apart], there[apart]]))
    rows, columns = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=[groups + 1] * 2)
    _, cluster = connected_components(graph, directed=False)
    image = np.zeros(groups + 1, dtype=int)
    core = group > 0
    image[group[core]] = np.nonzero(core)[0]
    _, first = np.unique(cluster[1:], return_index=True)
    return np.bincount(image[1:][first], minlength=count)


def maps(model: Model, pixels: Tensor, *, place: int) -> Iterator[dict[str, Tensor]]:
    """Yields the normalised maps of every reading, a micro-batch at a time.

    Args:
        model: the model under attack.
        pixels: (n, 3, h, w), in [0, 1].
        place: of the layer among the model's maps, from 0, or from the end if negative.
    """
    probe = model.probe(place)
    for batch, rows in model.batches(pixels):
        found = raw(*probe(batch))
        yield {name: normalised(m[:rows], size=model.size) for name, m in found.items()}


def measure(
    model: Model,
    pixels: Tensor,
    *,
    place: int,
    thresholds: list[float],
    radius: int,
    neighbours: int,
) -> dict[str, np.ndarray]:
    """Returns what NoiseCAM sees of each image: arrays (n,) by name.

    mass_<reading>: mean of the normalised map.
    clusters_<reading>_<i>: number of clusters above the i-th of `thresholds`, in (0, 1).
    """
    parts: list[dict[str, np.ndarray]] = []
    for found in maps(model, pixels, place=place):
        part = {}
        for reading in READINGS:
            values = found[reading].detach().cpu().numpy()
            part[f"mass_{reading}"] = values.mean((1, 2))
            for i, threshold in enumerate(thresholds):
                part[f"clusters_{reading}_{i}"] = clusters(
                    values > threshold, radius=radius, neighbours=neighbours
                )
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

"""NoiseCAM: the map of an image's noise, and the clusters of its bright pixels.

Tan et al. 2023, "NoiseCAM", section III-E. The paper does not say which quantity is
differentiated, so there are four readings: by the printed equations or the public code, with
gradients of the logits or of the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import Field, field_validator
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from camdrift.detectors.detector import Detector, UnfitError
from camdrift.settings.detection import Layer, place
from camdrift.settings.section import Count, Section, sides
from camdrift.storage import arrays

if TYPE_CHECKING:
    from torch import Tensor

    from camdrift.features.images import Columns, Images, Objective
    from camdrift.models.model import Model
    from camdrift.models.tensors import Activations, Heatmaps, Logits, PerImage, Pixels

READINGS = ("printed_logits", "printed_softmax", "code_logits", "code_softmax")
NAMES = tuple(f"noisecam_{reading}" for reading in READINGS)
LAYERS = ("layer",)
# exp() of a larger score overflows; the map then equals that of its first term to all digits.
LARGEST_SCORE = 300.0


class Settings(Section):
    """The layer of the map, and the definitions of a bright pixel and of a cluster.

    layer: counted from 1, or from the end if negative.
    brightness: candidate thresholds, above which a pixel of the map is bright.
    radius, neighbours: of DBSCAN, in px and in number of pixels.
    clusters: the largest number of clusters of a benign image.
    """

    layer: Layer
    brightness: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    radius: Count
    neighbours: Count
    clusters: Annotated[int, Field(ge=0)]

    @field_validator("brightness")
    @classmethod
    def _rises(cls, values: list[float]) -> list[float]:
        if sorted(set(values)) != values:
            raise ValueError(f"wanted thresholds that rise, got {values}")
        return values


def raw_maps(
    logits: Logits,
    activations: Activations,
    *,
    readings: Sequence[str] = READINGS,
    create_graph: bool = False,
) -> dict[str, Heatmaps]:
    """Returns the raw maps of some readings, for the image's own top class, in float64.

    There is one backward pass to `activations` for the logits and one for the probabilities, as far
    as the readings require them.
    """
    import torch

    from camdrift.explain.methods import noise_cam

    top = logits.argmax(1, keepdim=True)
    kinds = sorted({reading.rpartition("_")[2] for reading in readings})
    heat = {}
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
            heat[f"printed_{kind}"] = noise_cam.maps(a, g)
        if f"code_{kind}" in readings:
            heat[f"code_{kind}"] = noise_cam.maps_of_code(a, g, bounded)
    return heat


def normalise(maps: Heatmaps, *, size: int | Sequence[int]) -> Tensor:
    """Returns maps at the input's size, each scaled from 0 to almost 1: (n, height, width).

    `size` is a side in px, or height and width.

    As in the public code, 1e-7 is added to the divisor, so that a map of tiny values stays dark.
    Maps are enlarged bilinearly with half-pixel centres (the code aligns the corners).
    """
    from torch.nn.functional import interpolate

    large = interpolate(maps[:, None], sides(size), mode="bilinear")[:, 0]
    low = large.amin((1, 2), keepdim=True)
    high = large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low + 1e-7)


def clusters(bright: np.ndarray, *, radius: int, neighbours: int) -> arrays.PerImage:
    """Returns the number of clusters that DBSCAN finds among the bright pixels of each map.

    Ester et al. 1996, as `sklearn.cluster.DBSCAN(eps=radius, min_samples=neighbours)` on the
    pixels' coordinates: a pixel with `neighbours` bright pixels within `radius`, itself included,
    is a core, and clusters are the connected cores. They are counted on the grid, for all maps
    together.

    Args:
        bright: bool (n, h, w).
        radius: Euclidean, in px.
        neighbours: smallest number of bright pixels around a core.
    """
    count, height, width = bright.shape
    reach = range(-radius, radius + 1)
    offsets = [(y, x) for y in reach for x in reach if y * y + x * x <= radius * radius]
    padded = np.pad(bright, ((0, 0), (radius, radius), (radius, radius))).view(np.uint8)
    near = np.zeros(bright.shape, dtype=np.int16)
    for y, x in offsets:
        near += padded[:, radius + y : radius + y + height, radius + x : radius + x + width]
    # Adjacent cores form a group; a graph joins groups that are within the radius.
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = ndimage.generate_binary_structure(2, 2 if (1, 1) in offsets else 1)
    group, groups = ndimage.label(bright & (near >= neighbours), structure=touching)
    pairs = [np.zeros((2, 0), dtype=int)]
    for y, x in offsets:
        direct = max(y, abs(x)) == 1 or y >= height or abs(x) >= width
        if (y, x) <= (0, 0) or direct:  # each pair of pixels once
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


def passes(settings: Settings) -> int:
    """Returns the number of forward passes of the model for each image."""
    return 1


def measure(images: Images, settings: Settings) -> Columns:
    """Returns the features of NoiseCAM for each image.

    mass_<reading>: mean of the normalised map.
    raw_mass_<reading>: mean of the map as it is, at its own size.
    clusters_<reading>_<i>: number of clusters above the i-th of the brightnesses.
    """
    model, parts = images.model, []
    probe = model.probe(place(settings.layer))
    for batch, rows in model.batches(images.pixels):
        heat = {name: heat[:rows].detach() for name, heat in raw_maps(*probe(batch)).items()}
        part: Columns = {}
        for reading in READINGS:
            values = normalise(heat[reading], size=model.sides).cpu().numpy()
            part[f"mass_{reading}"] = values.mean((1, 2))
            part[f"raw_mass_{reading}"] = heat[reading].mean((1, 2)).cpu().numpy()
            for i, threshold in enumerate(settings.brightness):
                part[f"clusters_{reading}_{i}"] = clusters(
                    values > threshold, radius=settings.radius, neighbours=settings.neighbours
                )
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class NoiseCam(Detector):
    """tan2023, section III-E: more than 3 clusters of bright pixels are adversarial.

    The paper does not define a bright pixel: the threshold is the candidate with the highest
    balanced accuracy on the calibration images.

    Args:
        reading: of `READINGS`.
        thresholds: number of candidate thresholds.
        limit: largest number of clusters of a benign image.
    """

    own_rule = True
    trained_on = "attacked"  # the brightness is chosen by them

    def __init__(self, reading: str, thresholds: int, limit: int = 3) -> None:
        self.reading = reading
        self.thresholds = thresholds
        self.limit = limit

    def learn(self, features: pd.DataFrame, adversarial: arrays.Mask) -> None:
        """Chooses the brightness."""
        if not adversarial.any():
            raise UnfitError("no adversarial image to choose the brightness by")
        rates = []
        for i in range(self.thresholds):
            alarms = self._clusters(features, i) > self.limit
            rates.append((alarms[adversarial].mean() + (~alarms[~adversarial]).mean()) / 2)
        self.place_ = int(np.argmax(rates))

    def _clusters(self, features: pd.DataFrame, place: int) -> arrays.PerImage:
        return features[f"clusters_{self.reading}_{place}"].to_numpy(dtype=float)

    def score_samples(self, features: pd.DataFrame) -> arrays.PerImage:
        """Returns the number of clusters."""
        return self._clusters(features, self.place_)

    def predict(self, features: pd.DataFrame) -> arrays.Mask:
        """Returns whether there are more clusters than the limit."""
        return self.score_samples(features) > self.limit


def readings(settings: Settings) -> dict[str, Detector]:
    """Returns the detectors by their names in tables."""
    count, limit = len(settings.brightness), settings.clusters
    return {f"noisecam_{reading}": NoiseCam(reading, count, limit) for reading in READINGS}


def surrogate(detector: NoiseCam, model: Model, settings: Settings) -> Objective:
    """Returns the length of the edge of the bright area.

    The number of clusters has no gradient; the length of their outline has one.
    """
    threshold, reading = settings.brightness[detector.place_], detector.reading

    def score(batch: Pixels) -> tuple[Logits, PerImage]:
        logits, activations = model.activations(batch)
        tensor = activations[place(settings.layer)]
        heat = raw_maps(logits, tensor, readings=[reading], create_graph=True)[reading]
        bright = (20 * (normalise(heat, size=model.sides) - threshold)).sigmoid()
        down, across = bright.diff(dim=1).abs(), bright.diff(dim=2).abs()
        return logits, (down.mean((1, 2)) + across.mean((1, 2))).float().to(batch.device)

    return score

"""The experiment on detectors: which images take part, their splits, and what is done to them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from camdrift import storage
from camdrift.detectors import behaviour, noisecam
from camdrift.detectors.families import PLACE, Family, families, with_layer
from camdrift.evaluation import measuring, sensitivity, training
from camdrift.explain.methods import grad_cam_plus_plus, layer_cam
from camdrift.features.reference import Reference
from camdrift.models.logits import top_logit
from camdrift.models.model import Model
from camdrift.perturbations import size
from camdrift.perturbations.variants import Variant, read, shown
from camdrift.pipeline import randomness
from camdrift.settings import Cell, DetectionSettings, Protocol, SettingsError
from camdrift.settings.detection import place
from camdrift.settings.section import size_of
from camdrift.storage import (
    ADVERSARIAL,
    CLEAN,
    NOISE,
    NON_ADAPTIVE,
    Detected,
    Seen,
    Sensitivity,
)
from camdrift.storage.pixels import to_8bit

METHODS = ("grad_cam_plus_plus", "layer_cam", *noisecam.READINGS)  # of the maps shown in figures
EXAMPLES = 4
# In seeds, variants keep their first names: others would draw other numbers.
SEED_NAMES = {NON_ADAPTIVE: "oblivious"}
SPLITS = ("calibrate", "choose", "test")


def select_images(images: pd.DataFrame, settings: DetectionSettings, *, seed: int) -> pd.DataFrame:
    """Returns the images that take part: `image, split, source, label, clean, success`.

    The draw depends on the images' ids alone, so cells that attack the same images of a set have
    the same ones in the same splits. A cell that attacks fewer draws them in the same way. All
    images of a source picture are in one split: they are not independent. The index is each image's
    row in `images`, in ascending order.
    """
    # "trial" is part of the seed, here and in the attack: another word would draw other images.
    sample = images.iloc[randomness.sample(images["id"], settings.images, seed, "trial")]
    table = sample[["image", "source", "label", "clean", "success"]].sort_index()
    counts = table["source"].value_counts()
    counts = counts.loc[sorted(counts.index, key=partial(randomness.entropy, seed, "split"))]
    middle = (counts.cumsum() - counts / 2) / len(table)
    shares = settings.shares
    ends = np.cumsum([shares.calibrate, shares.choose])
    split = pd.Series(np.array(SPLITS)[np.digitize(middle, ends)], counts.index)
    table.insert(1, "split", split.loc[table["source"]].to_numpy())
    return table


def select_variants(cell_variants: Sequence[Variant], strengths: Sequence[float]) -> list[Variant]:
    """Returns the variants that detectors see: clean, attacked, and the first draw of noise."""
    recipe = next(v.table["recipe"].iloc[0] for v in cell_variants if v.name == ADVERSARIAL)
    selected = []
    for variant in cell_variants:
        table = variant.table
        changed = variant.name in (ADVERSARIAL, NOISE)
        there = changed and table["strength"].iloc[0] in strengths and table["draw"].iloc[0] == 0
        if variant.name == CLEAN or (there and table["recipe"].iloc[0] == recipe):
            selected.append(variant)
    return selected


def blur_images(pixels: Tensor, *, radius: float) -> Tensor:
    """Returns images after a Gaussian blur; `radius` is its standard deviation in px."""
    smooth = gaussian_filter(pixels.numpy(), (0, 0, radius, radius), mode="nearest")
    return torch.from_numpy(smooth)


@dataclass(frozen=True)
class Part:
    """Images of a cell in its evaluation.

    images: as `select_images` returns them.
    settings: of the detection.
    seed: of all draws.
    classes: pairs of the number and the name of each class.
    size: of the images in px, see `settings.section.sides`.
    layers: as `Sensitivity` has them, None before they are measured.
    reference: the training images, None for none.
    """

    cell: Cell
    name: str
    protocol: Protocol
    images: pd.DataFrame
    settings: DetectionSettings
    seed: int
    classes: list[tuple[int, str]]
    size: int | list[int]
    layers: pd.DataFrame | None = None
    reference: Reference | None = None

    @property
    def test_images(self) -> pd.DataFrame:
        """The images of the test split."""
        return self.images[self.images["split"] == "test"]

    def variants(self, images: pd.DataFrame) -> list[Variant]:
        """Returns the variants of some of the images that detectors see."""
        _, cell_variants = read(self.cell, self.name, [self.protocol], images.index.to_numpy())
        return select_variants(cell_variants, self.cell.detect)


def load_part(
    model: Model,
    cell: Cell,
    name: str,
    protocol: Protocol,
    settings: DetectionSettings,
    seed: int,
    sensed: Iterable[Sensitivity] = (),
) -> Part:
    """Returns the images of a cell that take part, as its attack left them.

    If the layers' sensitivity is known, the most sensitive one is a number in the part's settings.

    Raises:
        SettingsError: the model lacks a layer that a detector reads.
    """
    layers, reference = None, None
    for known in sensed:
        layers, reference = known.layers, training.read(known)
        settings = with_layer(settings, sensitivity.most_sensitive(layers))
    for family in families(settings):
        for setting, number in family.layers.items():
            if abs(number) > len(model.maps):
                raise SettingsError(
                    f"{PLACE}.{family.name}.{setting}: wanted one of the {len(model.maps)} layers "
                    f"of '{cell.model}', got {number}"
                )
    folder = storage.cell_folder(cell.study, name, "attack")
    attacked = storage.read(storage.Attacked, folder)
    images = attacked.images
    names = images.drop_duplicates("label").set_index("label")["class_name"].to_dict()
    selected = select_images(images, settings, seed=seed)
    sides = size_of(*attacked.perturbation.shape[-2:])
    classes = list(names.items())
    return Part(cell, name, protocol, selected, settings, seed, classes, sides, layers, reference)


def sense(model: Model, part: Part) -> Sensitivity:
    """Returns the sensitivity of the model's layers, and the activations of training images."""
    known = training.measure(model, part.cell.set, part.settings, seed=part.seed)
    return Sensitivity(_sensitivity(model, part), *known)


def _sensitivity(model: Model, part: Part) -> pd.DataFrame:
    """Returns the sensitivity of the model's layers, under the cell's attack at strength 1."""
    images = sensitivity.select(part.images)
    if not len(images):  # few pictures: all are in other splits
        return sensitivity.unknown(model)
    by_name = {
        variant.name: torch.from_numpy(variant.pixels())
        for variant in part.variants(images)
        if variant.table["strength"].iloc[0] in (0.0, 1.0)
    }
    clean, attacked, noisy = (by_name[name] for name in (CLEAN, ADVERSARIAL, NOISE))
    return sensitivity.measure(model, clean, attacked, noisy, images)


def measure(model: Model, part: Part, places: slice) -> Seen:
    """Returns the detectors' features of some images: clean, attacked and noisy.

    Args:
        model: the model under attack.
        part: the images that take part.
        places: indices of the images among them.
    """
    table = part.images.iloc[places]
    variants = part.variants(table)
    rows = table.reset_index(drop=True)
    clean = torch.from_numpy(next(v for v in variants if v.name == CLEAN).pixels())
    parts, seconds = [], []
    for variant in variants:
        strength = float(variant.table["strength"].iloc[0])
        pixels = torch.from_numpy(variant.pixels())
        rows_of, variant_seconds = features(
            model, pixels, clean, rows, variant.name, strength, families(part.settings), part,
        )  # fmt: skip
        parts.append(rows_of)
        seconds.append(variant_seconds)
    count = len(table) * len(variants)
    mean = {name: sum(part[name] for part in seconds) / count for name in seconds[0]}
    return Seen(pd.concat(parts, ignore_index=True), mean)


def join(*steps: Sequence[Seen]) -> pd.DataFrame:
    """Returns the rows of all steps, grouped by variant in the order of first occurrence."""
    columns, tables = ["variant", "strength", "against"], []
    for parts in filter(None, steps):
        whole = pd.concat([part.features for part in parts], ignore_index=True)
        place = whole.groupby(columns, sort=False).ngroup()
        tables.append(whole.iloc[np.argsort(place, kind="stable")])
    return pd.concat(tables, ignore_index=True)


def mean_seconds(parts: Sequence[Seen]) -> dict[str, float]:
    """Returns the mean seconds per image by detector; parts have about the same size."""
    return {
        name: round(float(np.mean([part.seconds[name] for part in parts])), 4)
        for name in parts[0].seconds
    }


def features(
    model: Model,
    pixels: Tensor,
    clean: Tensor,
    table: pd.DataFrame,
    variant: str,
    strength: float,
    detectors: Sequence[Family],
    part: Part,
    against: str = "",
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns the features of a variant of images, and the seconds of each detector.

    Args:
        model: the model under attack.
        pixels: of the variant, in [0, 1].
        clean: as they are without it.
        table: a row for each image, as `select_images` returns it.
        variant: its name.
        strength: of the attack.
        detectors: that see them.
        part: whose images they are.
        against: the detector that the variant is an attack on, "" for none.
    """

    def streams(name: str) -> list[np.random.Generator]:
        # "detect" is part of the seed, too.
        word = SEED_NAMES.get(variant, variant)
        parts: list[int | str] = [part.seed, "detect", part.name, word, repr(strength), against]
        parts += [name] * bool(name)
        return [randomness.generator(*parts, int(image)) for image in table["image"]]

    measured, seconds = measuring.measure_images(model, pixels, streams, detectors, part.reference)
    with torch.no_grad():
        blurred = model(blur_images(pixels, radius=part.settings.blur)).argmax(1).numpy()
    facts = {
        "image": table["image"].to_numpy(), "variant": variant, "strength": strength,
        "against": against, "blurred": blurred, "rms": size.rms(pixels - clean).numpy(),
    }  # fmt: skip
    return pd.concat([pd.DataFrame(facts), measured], axis=1), seconds


def empty() -> Detected:
    """Returns the result of a cell without detectors."""
    blank, table = np.zeros(0, dtype=np.uint8), pd.DataFrame()
    return Detected(table, table, table, blank, blank, table, {})


def collect(model: Model, part: Part, features: pd.DataFrame) -> Detected:
    """Returns the features of all images that take part, and maps and pictures of some.

    The part has its `layers`.
    """
    detectors, count = families(part.settings), len(model.maps)
    read = [place(family.layers["probe"]) % count for family in detectors
            if family.module is behaviour]  # fmt: skip
    layers = pd.DataFrame(part.layers).assign(behaviour=np.isin(np.arange(count), read))
    facts = {
        "methods": list(METHODS),
        "passes": {family.name: family.passes for family in detectors},
        "classes": part.classes,
        "size": part.size,
    }
    images = part.images.reset_index(drop=True)
    shown_at = [family.layers["layer"] for family in detectors if family.module is noisecam]
    if not shown_at:
        return replace(empty(), features=features, images=images, layers=layers, facts=facts)
    some = part.images.iloc[np.sort(shown(part.images, count=EXAMPLES))]
    order = shown(some, count=EXAMPLES)
    maps, pictures, examples = _examples(model, part.variants(some), order, shown_at[0])
    return Detected(features, images, layers, maps, pictures, examples, facts)


def _examples(
    model: Model, variants: Sequence[Variant], order: np.ndarray, layer: int
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Returns maps, pictures and rows of the images `order`, for each variant at strength 1."""
    probe = model.probe(place(layer))
    maps, pictures, rows = [], [], []
    for variant in variants:
        if variant.table["strength"].iloc[0] not in (0.0, 1.0):
            continue
        pixels, image = variant.pixels()[order], variant.table["image"].to_numpy()[order]
        batches = [
            _maps_and_classes(model, *probe(batch), count)
            for batch, count in model.batches(torch.from_numpy(pixels))
        ]
        maps.append(torch.cat([each for each, _ in batches]).half().numpy())
        pictures.append(to_8bit(pixels))
        classes = torch.cat([each for _, each in batches]).numpy()
        rows.append(pd.DataFrame({"image": image, "variant": variant.name, "prediction": classes}))
    names = pd.concat([part.iloc[[i]] for i in range(len(image)) for part in rows])
    return np.stack(maps, axis=1), np.stack(pictures, axis=1), names.reset_index(drop=True)


def _maps_and_classes(
    model: Model, logits: Tensor, activations: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Returns maps of every method (n, methods, h, w) and classes, of the first `count` images."""
    (gradient,) = torch.autograd.grad(top_logit(logits).sum(), activations, retain_graph=True)
    maps = noisecam.raw_maps(logits, activations)
    maps["grad_cam_plus_plus"] = grad_cam_plus_plus.maps(activations, gradient)
    maps["layer_cam"] = layer_cam.maps(activations, gradient)
    stack = [noisecam.normalise(maps[name], size=model.sides) for name in METHODS]
    return torch.stack(stack, dim=1)[:count].detach().cpu(), logits.argmax(1)[:count]

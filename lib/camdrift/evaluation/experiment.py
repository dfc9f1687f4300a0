"""The experiment on detectors: which images take part, their splits, and what is done to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from camdrift import storage
from camdrift.detectors import noisecam
from camdrift.detectors.families import PLACE, Family, families
from camdrift.evaluation import adaptive, evaluation, measuring
from camdrift.explain.methods import grad_cam_plus_plus, layer_cam
from camdrift.features.images import Objective
from camdrift.models.logits import top_logit
from camdrift.models.model import Model
from camdrift.perturbations import changes
from camdrift.perturbations.variants import Variant, read, shown
from camdrift.pipeline import randomness
from camdrift.settings import Cell, DetectionSettings, Protocol, SettingsError
from camdrift.settings.detection import place
from camdrift.settings.section import size_of
from camdrift.storage import ADAPTIVE, ADVERSARIAL, CLEAN, NOISE, NON_ADAPTIVE, Detected, Seen
from camdrift.storage.pixels import to_8bit

METHODS = ("grad_cam_plus_plus", "layer_cam", *noisecam.READINGS)  # of the maps shown in figures
EXAMPLES = 4
# In seeds, variants keep their first names: others would draw other numbers.
SEED_NAMES = {NON_ADAPTIVE: "oblivious"}
SPLITS = ("calibrate", "choose", "test")


def select_images(images: pd.DataFrame, settings: DetectionSettings, *, seed: int) -> pd.DataFrame:
    """Returns the images that take part: `image, split, source, label, clean, success`.

    The draw depends on the images' ids alone, so cells of one set have the same images in the same
    splits. All images of a source picture are in one split: they are not independent. The index is
    each image's row in `images`, in ascending order.
    """
    # "trial" is part of the seed: another word would draw other images.
    key = [randomness.entropy(seed, "trial", name) for name in images["id"]]
    sample = images.iloc[np.argsort(key)[: settings.images]]
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
    classes: pairs of the number and the name of each class.
    size: of the images in px, see `settings.section.sides`.
    """

    cell: Cell
    name: str
    protocol: Protocol
    images: pd.DataFrame
    classes: list[tuple[int, str]]
    size: int | list[int]

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
    *,
    seed: int,
) -> Part:
    """Returns the images of a cell that take part, as its attack left them.

    Raises:
        SettingsError: the model lacks a layer that a detector reads.
    """
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
    size = size_of(*attacked.perturbation.shape[-2:])
    return Part(cell, name, protocol, selected, list(names.items()), size)


def measure(
    model: Model, part: Part, settings: DetectionSettings, places: slice, *, key: str, seed: int
) -> Seen:
    """Returns the detectors' features of some images: clean, attacked and noisy.

    Args:
        model: the model under attack.
        part: the images that take part.
        settings: of the detection.
        places: indices of the images among them.
        key: the cell's name, part of the seed.
        seed: of the draws.
    """
    table = part.images.iloc[places]
    variants = part.variants(table)
    rows = table.reset_index(drop=True)
    parts, seconds = [], []
    for variant in variants:
        strength = float(variant.table["strength"].iloc[0])
        pixels = torch.from_numpy(variant.pixels())
        features, variant_seconds = _features(
            model, pixels, rows, variant.name, strength, families(settings), key, seed,
            blur=settings.blur,
        )  # fmt: skip
        parts.append(features)
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


def _features(
    model: Model,
    pixels: Tensor,
    table: pd.DataFrame,
    variant: str,
    strength: float,
    detectors: Sequence[Family],
    key: str,
    seed: int,
    against: str = "",
    *,
    blur: float,
) -> tuple[pd.DataFrame, dict[str, float]]:
    def streams(name: str) -> list[np.random.Generator]:
        # "detect" is part of the seed, too.
        word = SEED_NAMES.get(variant, variant)
        parts: list[int | str] = [seed, "detect", key, word, repr(strength), against]
        parts += [name] * bool(name)
        return [randomness.generator(*parts, int(image)) for image in table["image"]]

    features, seconds = measuring.measure_images(model, pixels, streams, detectors)
    with torch.no_grad():
        blurred = model(blur_images(pixels, radius=blur)).argmax(1).numpy()
    facts = {"image": table["image"].to_numpy(), "variant": variant, "strength": strength,
             "against": against, "blurred": blurred}  # fmt: skip
    return pd.concat([pd.DataFrame(facts), features], axis=1), seconds


def adapt(
    model: Model,
    part: Part,
    settings: DetectionSettings,
    places: slice,
    features: pd.DataFrame,
    *,
    key: str,
    seed: int,
    quantise: str,
) -> Seen:
    """Returns features of some test images under the non-adaptive and the adaptive attacks.

    Args:
        model: the model under attack.
        part: the images that take part.
        settings: of the detection.
        places: indices of the images in the test split.
        features: of all images that take part; detectors are fitted on them.
        key: the cell's name, part of the seed.
        seed: of the draws.
        quantise: of the cell's protocol, for the attacked images.
    """
    test_images = part.test_images.iloc[places]
    original = next(v for v in part.variants(test_images) if v.name == CLEAN)
    clean = torch.from_numpy(original.pixels())
    labels = torch.from_numpy(test_images["clean"].to_numpy(copy=True))
    budget = settings.adaptive.model_dump()
    images = part.images.reset_index(drop=True)

    def attack(score: Objective | None) -> Tensor:
        pixels = adaptive.perturb(model, clean, labels, score, **budget)
        return torch.from_numpy(changes.stored(pixels.numpy(), quantise=quantise))

    def features_of(
        pixels: Tensor, variant: str, detectors: Sequence[Family], name: str = ""
    ) -> pd.DataFrame:
        rows = test_images.reset_index(drop=True)
        return _features(
            model, pixels, rows, variant, 1.0, detectors, key, seed, name, blur=settings.blur
        )[0]

    detectors = families(settings)
    fitted_detectors = evaluation.fit_detectors(features, images, 1.0, detectors)
    parts = [features_of(attack(None), NON_ADAPTIVE, detectors)]
    for family in detectors:
        family_pixels = None
        for name in family.readings():
            if not family.has_surrogate or fitted_detectors[name].unfit:
                continue
            pixels = family_pixels
            if pixels is None:
                pixels = attack(family.surrogate(fitted_detectors[name], model))
            family_pixels = pixels if family.shares_surrogate else None
            parts.append(features_of(pixels, ADAPTIVE, [family], name))
    return Seen(pd.concat(parts, ignore_index=True), {})


def empty() -> Detected:
    """Returns the result of a cell without detectors."""
    blank, table = np.zeros(0, dtype=np.uint8), pd.DataFrame()
    return Detected(table, table, blank, blank, table, {})


def collect(
    model: Model, part: Part, features: pd.DataFrame, settings: DetectionSettings
) -> Detected:
    """Returns the features of all images that take part, and maps and pictures of some."""
    detectors = families(settings)
    facts = {
        "methods": list(METHODS),
        "passes": {family.name: family.passes for family in detectors},
        "classes": part.classes,
        "size": part.size,
    }
    images = part.images.reset_index(drop=True)
    layers = [family.layers["layer"] for family in detectors if family.module is noisecam]
    if not layers:
        return replace(empty(), features=features, images=images, facts=facts)
    some = part.images.iloc[np.sort(shown(part.images, count=EXAMPLES))]
    order = shown(some, count=EXAMPLES)
    maps, pictures, examples = _examples(model, part.variants(some), order, layers[0])
    return Detected(features, images, maps, pictures, examples, facts)


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

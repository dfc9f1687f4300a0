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
from camdrift.models.model import Model, top_logit
from camdrift.perturbations import changes
from camdrift.perturbations.variants import Variant, of_cell, shown
from camdrift.pipeline import randomness
from camdrift.settings import Cell, DetectionSettings, Protocol, SettingsError
from camdrift.settings.detection import place
from camdrift.storage import ADAPTIVE, ADVERSARIAL, CLEAN, NOISE, NON_ADAPTIVE, Detected, Seen
from camdrift.storage.pixels import to_8bit

METHODS = ("grad_cam_plus_plus", "layer_cam", *noisecam.READINGS)  # of the maps to look at
EXAMPLES = 4
# In seeds, variants keep their first names: others would draw other numbers.
SEED_NAMES = {NON_ADAPTIVE: "oblivious"}
SPLITS = ("calibrate", "choose", "test")


def chosen(images: pd.DataFrame, settings: DetectionSettings, *, seed: int) -> pd.DataFrame:
    """Returns the images that take part: `image, split, source, label, clean, success`.

    Images are drawn by their id alone, so cells of one set have the same images in the same
    splits. A source picture's images are in one split: they are not independent. The index is each
    image's row in `images`, and rises.
    """
    # "trial" is part of the seed: another word would draw other images.
    key = [randomness.entropy(seed, "trial", name) for name in images["id"]]
    drawn = images.iloc[np.argsort(key)[: settings.images]]
    table = drawn[["image", "source", "label", "clean", "success"]].sort_index()
    counts = table["source"].value_counts()
    counts = counts.loc[sorted(counts.index, key=partial(randomness.entropy, seed, "split"))]
    middle = (counts.cumsum() - counts / 2) / len(table)
    shares = settings.shares
    ends = np.cumsum([shares.calibrate, shares.choose])
    split = pd.Series(np.array(SPLITS)[np.digitize(middle, ends)], counts.index)
    table.insert(1, "split", split.loc[table["source"]].to_numpy())
    return table


def variants(made: Sequence[Variant], strengths: Sequence[float]) -> list[Variant]:
    """Returns those of a cell's variants that detectors see: clean, attacked, its first noise."""
    recipe = next(v.table["recipe"].iloc[0] for v in made if v.name == ADVERSARIAL)
    wanted = []
    for variant in made:
        table = variant.table
        changed = variant.name in (ADVERSARIAL, NOISE)
        there = changed and table["strength"].iloc[0] in strengths and table["draw"].iloc[0] == 0
        if variant.name == CLEAN or (there and table["recipe"].iloc[0] == recipe):
            wanted.append(variant)
    return wanted


def blurred(pixels: Tensor, *, radius: float) -> Tensor:
    """Returns images blurred by a Gaussian of that standard deviation in px; edges are repeated."""
    smooth = gaussian_filter(pixels.numpy(), (0, 0, radius, radius), mode="nearest")
    return torch.from_numpy(smooth)


@dataclass(frozen=True)
class Part:
    """What takes part in a cell's evaluation: see `chosen` for `images`, whose index are places."""

    cell: Cell
    name: str
    protocol: Protocol
    images: pd.DataFrame

    @property
    def tested(self) -> pd.DataFrame:
        """The images of the test split."""
        return self.images[self.images["split"] == "test"]

    def variants(self, images: pd.DataFrame) -> list[Variant]:
        """Returns what detectors see of some of the images."""
        _, made = of_cell(self.cell, self.name, [self.protocol], images.index.to_numpy())
        return variants(made, self.cell.detect)


def taking_part(
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
        SettingsError: the model has not the layers that are to be looked at.
    """
    for family in families(settings):
        for setting, number in family.layers.items():
            if abs(number) > len(model.maps):
                raise SettingsError(
                    f"{PLACE}.{family.name}.{setting}: wanted one of the {len(model.maps)} layers "
                    f"of '{cell.model}', got {number}"
                )
    folder = storage.cell_folder(cell.study, name, "attack")
    images = storage.read(storage.Attacked, folder).images
    return Part(cell, name, protocol, chosen(images, settings, seed=seed))


def see(
    model: Model, part: Part, settings: DetectionSettings, places: slice, *, key: str, seed: int
) -> Seen:
    """Returns what detectors see of some images: clean, attacked and noisy.

    Args:
        model: the model under attack.
        part: the images that take part.
        settings: of the detection.
        places: of the images among them.
        key: the cell's name, part of the seed.
        seed: of the draws.
    """
    table = part.images.iloc[places]
    made = part.variants(table)
    rows = table.reset_index(drop=True)
    parts, seconds = [], []
    for variant in made:
        strength, pixels = float(variant.table["strength"].iloc[0]), variant.pixels()
        features, took = _features(
            model, pixels, rows, variant.name, strength, families(settings), key, seed,
            blur=settings.blur,
        )  # fmt: skip
        parts.append(features)
        seconds.append(took)
    taken = len(table) * len(made)
    mean = {name: sum(took[name] for took in seconds) / taken for name in seconds[0]}
    return Seen(pd.concat(parts, ignore_index=True), mean)


def in_order(*steps: Sequence[Seen]) -> pd.DataFrame:
    """Returns the rows of steps, each variant after variant in the order of its first part."""
    columns, tables = ["variant", "strength", "against"], []
    for parts in filter(None, steps):
        whole = pd.concat([part.features for part in parts], ignore_index=True)
        place = whole.groupby(columns, sort=False).ngroup()
        tables.append(whole.iloc[np.argsort(place, kind="stable")])
    return pd.concat(tables, ignore_index=True)


def seconds(parts: Sequence[Seen]) -> dict[str, float]:
    """Returns the mean of parts' seconds an image, by detector; parts are of a size."""
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

    features, seconds = measuring.of_images(model, pixels, streams, detectors)
    with torch.no_grad():
        smooth = model(blurred(pixels, radius=blur)).argmax(1).numpy()
    facts = {"image": table["image"].to_numpy(), "variant": variant, "strength": strength,
             "against": against, "blurred": smooth}  # fmt: skip
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
        places: of the images among those of the test split.
        features: of all that take part, on which detectors are fitted.
        key: the cell's name, part of the seed.
        seed: of the draws.
        quantise: of the cell's protocol: these attacks are stored as the others.
    """
    tested = part.tested.iloc[places]
    clean = next(v for v in part.variants(tested) if v.name == CLEAN).pixels()
    labels = torch.from_numpy(tested["clean"].to_numpy(copy=True))
    budget = settings.adaptive.model_dump()
    images = part.images.reset_index(drop=True)

    def attacked(score: Objective | None) -> Tensor:
        pixels = adaptive.perturb(model, clean, labels, score, **budget)
        return changes.stored(pixels, quantise=quantise)

    def seen(
        pixels: Tensor, variant: str, detectors: Sequence[Family], name: str = ""
    ) -> pd.DataFrame:
        rows = tested.reset_index(drop=True)
        return _features(
            model, pixels, rows, variant, 1.0, detectors, key, seed, name, blur=settings.blur
        )[0]

    tried = families(settings)
    fitted = evaluation.fitted(features, images, 1.0, tried)
    parts = [seen(attacked(None), NON_ADAPTIVE, tried)]
    for family in tried:
        shared = None
        for name in family.readings():
            if not family.has_surrogate or fitted[name].unfit:
                continue
            pixels = shared
            if pixels is None:
                pixels = attacked(family.surrogate(fitted[name], model))
            shared = pixels if family.shares_surrogate else None
            parts.append(seen(pixels, ADAPTIVE, [family], name))
    return Seen(pd.concat(parts, ignore_index=True), {})


def nothing() -> Detected:
    """Returns what detectors see where none is tried."""
    blank, table = np.zeros(0, dtype=np.uint8), pd.DataFrame()
    return Detected(table, table, blank, blank, table, {})


def detected(
    model: Model, part: Part, features: pd.DataFrame, settings: DetectionSettings
) -> Detected:
    """Returns the features of all that take part, with maps and pictures of some to look at."""
    tried = families(settings)
    facts = {"methods": list(METHODS), "passes": {family.name: family.passes for family in tried}}
    images = part.images.reset_index(drop=True)
    layers = [family.layers["layer"] for family in tried if family.module is noisecam]
    if not layers:
        return replace(nothing(), features=features, images=images, facts=facts)
    some = part.images.iloc[np.sort(shown(part.images, count=EXAMPLES))]
    order = shown(some, count=EXAMPLES)
    maps, pictures, examples = _examples(model, part.variants(some), order, layers[0])
    return Detected(features, images, maps, pictures, examples, facts)


def _examples(
    model: Model, made: Sequence[Variant], order: np.ndarray, layer: int
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Returns maps, pictures and their rows of images in some order, each variant at strength 1."""
    probe = model.probe(place(layer))
    maps, pictures, rows = [], [], []
    for variant in made:
        if variant.table["strength"].iloc[0] not in (0.0, 1.0):
            continue
        pixels, image = variant.pixels()[order], variant.table["image"].to_numpy()[order]
        looks = [_looks(model, *probe(batch), count) for batch, count in model.batches(pixels)]
        maps.append(torch.cat([each for each, _ in looks]).half().numpy())
        pictures.append(to_8bit(pixels))
        own = torch.cat([classes for _, classes in looks]).numpy()
        rows.append(pd.DataFrame({"image": image, "variant": variant.name, "prediction": own}))
    names = pd.concat([part.iloc[[i]] for i in range(len(image)) for part in rows])
    return np.stack(maps, axis=1), np.stack(pictures, axis=1), names.reset_index(drop=True)


def _looks(model: Model, logits: Tensor, activations: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the first `count` images' maps of every method (n, methods, h, w), and classes."""
    (gradient,) = torch.autograd.grad(top_logit(logits).sum(), activations, retain_graph=True)
    maps = noisecam.raw(logits, activations)
    maps["grad_cam_plus_plus"] = grad_cam_plus_plus.maps(activations, gradient)
    maps["layer_cam"] = layer_cam.maps(activations, gradient)
    stack = [noisecam.normalised(maps[name], size=model.size) for name in METHODS]
    return torch.stack(stack, dim=1)[:count].detach().cpu(), logits.argmax(1)[:count]

"""Who takes part in the detectors' trial: images, their splits, and what is done to them."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm import tqdm

from camdrift import adaptive, changes, detection, methods, randomness
from camdrift.artifacts import ADAPTIVE, ADVERSARIAL, CLEAN, NOISE, OBLIVIOUS, Detected
from camdrift.detectors import BEHAVIOUR, CHANCE, NOISECAM
from camdrift.features import measure, noisecam
from camdrift.features.names import READINGS
from camdrift.models import Model
from camdrift.pixels import to_8bit
from camdrift.settings import Cell, DetectionSettings, SettingsError
from camdrift.variants import Variant

METHODS = ("grad_cam_plus_plus", "layer_cam", *READINGS)  # of the maps to look at
EXAMPLES = 4
# The group of features that each detector reads.
GROUP_OF = (
    dict.fromkeys(BEHAVIOUR, "behaviour")
    | dict.fromkeys(NOISECAM, "noisecam")
    | dict.fromkeys(("confidence", "energy", "squeezing"), "confidence")
    | dict.fromkeys(("logistic", "mahalanobis"), "profile")
    | {"residual": "residual"}
)

SPLITS = ("calibrate", "choose", "test")


def chosen(images: pd.DataFrame, settings: DetectionSettings, *, seed: int) -> pd.DataFrame:
    """Returns the images that take part: `image, split, source, label, clean, success`.

    Images are drawn by their id alone, so cells of one set have the same images in the same
    splits. A source picture's images are in one split: they are not independent. The index is each
    image's row in `images`, and rises.
    """
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


def see(
    model: Model,
    made: Sequence[Variant],
    table: pd.DataFrame,
    cell: Cell,
    settings: DetectionSettings,
    *,
    key: str,
    seed: int,
    quantise: str = "none",
) -> tuple[Detected, dict[str, float]]:
    """Returns what detectors see of a cell's images, and seconds an image by group of features.

    Nothing where the cell names no strength for them.

    Args:
        model: the model under attack.
        made: the variants of the images that take part.
        table: those images, see `chosen`.
        cell: its settings.
        settings: of the detection.
        key: the cell's name, part of the seed.
        seed: of the draws.
        quantise: of the cell's protocol; attacks that know a detector are stored as the others.

    Raises:
        SettingsError: the model has no such layer.
    """
    if not cell.detect:
        nothing, blank = pd.DataFrame(), np.zeros(0, dtype=np.uint8)
        return Detected(nothing, nothing, blank, blank, nothing, {}), {}
    for name, number in (("probe", settings.probe), ("layer", settings.layer)):
        if abs(number) > len(model.maps):
            raise SettingsError(
                f"detection.{name}: wanted one of the {len(model.maps)} layers of '{cell.model}', "
                f"got {number}"
            )
    table = table.reset_index(drop=True)
    shown = variants(made, cell.detect)
    parts, seconds = [], []
    for variant in tqdm(shown, desc="features", unit="variant"):
        pixels = variant.pixels()
        strength = float(variant.table["strength"].iloc[0])
        part, took = _features(model, pixels, table, variant.name, strength, settings, key, seed)
        parts.append(part)
        seconds.append(took)
    whole = pd.concat(parts, ignore_index=True)
    if cell.adaptive:
        clean = next(v for v in shown if v.name == CLEAN).pixels()
        against = _adaptive(model, clean, table, whole, settings, key, seed, quantise)
        whole = pd.concat([whole, *against], ignore_index=True)
    maps, pictures, examples = _examples(model, shown, table, settings)
    taken = len(table) * len(shown)
    mean = {group: sum(took[group] for took in seconds) / taken for group in seconds[0]}
    facts = {"methods": list(METHODS), "evaluations": evaluations(settings)}
    detected = Detected(whole, table, maps, pictures, examples, facts)
    return detected, mean


def evaluations(settings: DetectionSettings) -> dict[str, int]:
    """Returns the forward passes of the model that an image costs, by group of features."""
    return {"confidence": 3, "residual": 0, "profile": 1, "noisecam": 1,
            "behaviour": settings.copies + 2, "chance": 0}  # fmt: skip


def _features(
    model: Model,
    pixels: Tensor,
    table: pd.DataFrame,
    variant: str,
    strength: float,
    settings: DetectionSettings,
    key: str,
    seed: int,
    against: str = "",
) -> tuple[pd.DataFrame, dict[str, float]]:
    parts: tuple[int | str, ...] = (seed, "detect", key, variant, repr(strength), against)
    generators = [randomness.generator(*parts, int(image)) for image in table["image"]]
    groups = {"confidence", GROUP_OF[against]} if against else set(measure.GROUPS)
    found, seconds = measure.of_images(model, pixels, generators, settings, groups=sorted(groups))
    with torch.no_grad():
        smooth = model(blurred(pixels, radius=settings.blur)).argmax(1).numpy()
    facts = {"image": table["image"].to_numpy(), "variant": variant, "strength": strength,
             "against": against, "blurred": smooth}  # fmt: skip
    return pd.concat([pd.DataFrame(facts), found], axis=1), seconds


def _adaptive(
    model: Model,
    clean: Tensor,
    table: pd.DataFrame,
    features: pd.DataFrame,
    settings: DetectionSettings,
    key: str,
    seed: int,
    quantise: str,
) -> list[pd.DataFrame]:
    """Returns features of the test images attacked with and without knowing each detector."""
    test = np.flatnonzero(table["split"] == "test")
    labels = torch.from_numpy(table["clean"].to_numpy(copy=True))[test]
    budget = settings.adaptive.model_dump()
    tested = table.iloc[test]

    def attacked(score: adaptive.Objective | None) -> Tensor:
        pixels = adaptive.perturb(model, clean[test], labels, score, **budget)
        return changes.stored(pixels, quantise=quantise)

    def seen(pixels: Tensor, variant: str, name: str) -> pd.DataFrame:
        return _features(model, pixels, tested, variant, 1.0, settings, key, seed, name)[0]

    found = [seen(attacked(None), OBLIVIOUS, "")]
    known: dict[str, Tensor] = {}
    fitted = detection.fitted(features, table, 1.0, settings)
    for name, detector in tqdm(fitted.items(), desc="adaptive attack", unit="detector"):
        if isinstance(detector, str) or name == CHANCE:
            continue
        # Behaviour deviation's rules have one surrogate, so one attack knows them all.
        group = "behaviour" if name in BEHAVIOUR else name
        if group not in known:
            known[group] = attacked(adaptive.objective(detector, model, settings))
        found.append(seen(known[group], ADAPTIVE, name))
    return found


def _examples(
    model: Model, shown: Sequence[Variant], table: pd.DataFrame, settings: DetectionSettings
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Returns maps, pictures and their rows: of some flipped images, each variant at strength 1."""
    order = np.argsort(~table["success"].to_numpy(), kind="stable")[:EXAMPLES]
    image = table["image"].to_numpy()[order]
    probe = model.probe(settings.place("layer"))
    maps, pictures, examples = [], [], []
    for variant in shown:
        if variant.table["strength"].iloc[0] not in (0.0, 1.0):
            continue
        pixels = variant.pixels()[order]
        found = [_looks(model, *probe(batch), count) for batch, count in model.batches(pixels)]
        maps.append(torch.cat([looks for looks, _ in found]).half().numpy())
        pictures.append(to_8bit(pixels))
        top = torch.cat([classes for _, classes in found]).numpy()
        examples.append(pd.DataFrame({"image": image, "variant": variant.name, "prediction": top}))
    names = pd.concat([part.iloc[[i]] for i in range(len(order)) for part in examples])
    return np.stack(maps, axis=1), np.stack(pictures, axis=1), names.reset_index(drop=True)


def _looks(model: Model, logits: Tensor, activations: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the first `count` images' maps of every method (n, methods, h, w), and classes."""
    top = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
    (gradient,) = torch.autograd.grad(top, activations, retain_graph=True)
    found = noisecam.raw(logits, activations)
    found["grad_cam_plus_plus"] = methods.grad_cam_plus_plus(activations, gradient)
    found["layer_cam"] = methods.layer_cam(activations, gradient)
    stack = [noisecam.normalised(found[name], size=model.size) for name in METHODS]
    return torch.stack(stack, dim=1)[:count].detach(), logits.argmax(1)[:count]

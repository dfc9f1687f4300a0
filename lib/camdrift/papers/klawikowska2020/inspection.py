"""Inspection: LRP maps and signatures of clean and attacked images, model by model.

klawikowska2020, section 4.1, figures 3-6.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.explain import lrp
from camdrift.models.model import Model
from camdrift.models.tensors import Heatmaps, Labels, PerImage, Pixels
from camdrift.papers.klawikowska2020 import signatures
from camdrift.papers.klawikowska2020.controls import control
from camdrift.settings import EXTENDING, SignatureSettings
from camdrift.storage import BASELINE, CLEAN, Retrained, Signatures, attack_of, controlled
from camdrift.storage.arrays import Images8
from camdrift.storage.pixels import from_8bit, to_8bit

# Which model explains which images: as they are ('clean'), or as an attack on the baseline model
# left them.
SHOWN = (
    (BASELINE, CLEAN), (BASELINE, "fgsm"), (BASELINE, "one_pixel"), ("fgsm", "fgsm"),
    ("one_pixel", "one_pixel"), ("pgd", "fgsm"), ("retrained", "fgsm"), ("retrained", "one_pixel"),
)  # fmt: skip
MODELS = tuple(dict.fromkeys(model for model, _ in SHOWN))
# The control with a pixel at a random place, and the models that also explain it beside the
# baseline model.
DISPLACED, AT_DISPLACED = controlled("one_pixel", "displaced"), ("one_pixel", "retrained")
# Which class the maps of a reading explain: each map's own top class; the one of the clean image,
# also after an attack; and the one that the attack leads to, on the clean image.
OWN, SAME_CLASS, SWAPPED = "", "_same_class", "_swapped"
# Further signatures: relevance at the last layer, and values of maps without their places.
LAST, SORTED = "_last", "_sorted"


@dataclass(frozen=True)
class Explained:
    """A model's relevance on images that something was done to.

    top: the model's classes of the images.
    maps: by the class that they explain, see `OWN`.
    last: (n, inputs), relevance at the last layer, of each image's own top class.
    """

    top: Labels
    maps: dict[str, Heatmaps]
    last: Tensor


def inspect(
    load: Callable[[str], Model],
    pictures: Images8,
    retrained: Retrained,
    settings: SignatureSettings,
    *,
    controls: Mapping[str, Sequence[str]],
    name: str,
    seed: int,
) -> Signatures:
    """Returns the maps, signatures and planes of a retraining's test images.

    A map explains its image's top class, and another class has another map. An attack changes the
    class, so its effect on maps is told from that of the class in two ways: on the clean image, by
    the map of the class that the attack leads to; after the attack, by that of the clean image's
    class.

    Args:
        load: returns the model of a kind, one of `MODELS`.
        pictures: the test images as they are.
        retrained: the retrained models' results.
        settings: those of signatures.
        controls: names of those that each attack is compared with, by attack.
        name: of the retraining.
        seed: of UMAP, of the folds and of the controls.
    """
    clean = torch.from_numpy(from_8bit(pictures))
    models = {kind: load(kind) for kind in MODELS}
    changed = {
        kind: torch.from_numpy(retrained.changed[i].copy()) for i, kind in enumerate(EXTENDING)
    }
    sets = {CLEAN: clean} | changed
    ids = retrained.tests["id"].to_list()
    for attack, attacked in changed.items():
        key = f"{name} {BASELINE} {attack}"
        for kind in controls[attack]:
            pixels = control(kind, clean, attacked, ids, seed=seed, key=key)
            sets[controlled(attack, kind)] = pixels
    shown = [*SHOWN, *((BASELINE, on) for on in sets if on not in (CLEAN, *EXTENDING))]
    shown += [(kind, DISPLACED) for kind in AT_DISPLACED if DISPLACED in sets]
    explained: dict[tuple[str, str], Explained] = {}
    for kind, on in shown:
        first = explained.get((BASELINE, CLEAN))
        explained[kind, on] = _explain(models[kind], sets[on], clean, kind, on, first)
    base = explained[BASELINE, CLEAN].maps[OWN]
    tests = retrained.tests[["image", "source", "label"]]
    parts = []
    for (kind, on), each in explained.items():
        table = tests.assign(model=kind, on=on, prediction=each.top.numpy())
        for reading, heats in each.maps.items():
            table[f"correlation{reading}"] = correlation(base, heats).numpy()
        if attack_of(on) == "one_pixel":
            place = moved(changed_pixel(clean, sets[on]), clean.shape[-2:], base.shape[-2:])
            for reading, heats in [*each.maps.items(), ("_before", base)]:
                share = window_share(heats, place, size=settings.window)
                table[f"window{reading}"] = share.numpy()
        parts.append(table)
    points, masks = _points(retrained)
    own = {on: explained[BASELINE, on] for on in masks}
    spaces = {
        OWN: {on: each.maps[OWN] for on, each in own.items()},
        SAME_CLASS: {on: each.maps.get(SAME_CLASS, each.maps[OWN]) for on, each in own.items()},
        LAST: {on: each.last[:, None] for on, each in own.items()},
    }
    points, numbers = _signed(points, spaces, masks, settings, seed=seed)
    numbers["negative relevance"] = negative_share(base)
    facts = {"shown": [list(pair) for pair in shown], "numbers": _finite(numbers)}
    own_maps = [each.maps[OWN] for each in explained.values()]
    heats = torch.stack([m / m.abs().amax((1, 2), keepdim=True).clamp_min(1e-12) for m in own_maps])
    images, rounded = pd.concat(parts, ignore_index=True), _rounded(models, changed, tests)
    return Signatures(heats.half().numpy(), images, points, rounded, facts, pictures)


def _explain(
    model: Model, pixels: Pixels, clean: Pixels, kind: str, on: str, first: Explained | None
) -> Explained:
    """Returns how a model of a kind explains images, see `inspect`.

    Args:
        model: that explains.
        pixels: the images.
        clean: as they are.
        kind: of the model.
        on: what was done to the images.
        first: the baseline model's, of the clean images; None for these themselves.
    """
    top = _top(model, pixels)
    own, last = lrp.relevance_and_last_layer(model, pixels)
    maps = {OWN: own}
    if first is not None and on in EXTENDING:
        maps[SAME_CLASS] = _of_classes(model, pixels, first.top, own, top)
        if kind == BASELINE:
            maps[SWAPPED] = _of_classes(model, clean, top, first.maps[OWN], first.top)
    return Explained(top, maps, last)


def _of_classes(
    model: Model, pixels: Pixels, classes: Labels, own: Heatmaps, top: Labels
) -> Heatmaps:
    """Returns maps of the given classes; the own ones where these are the top class."""
    maps, others = own.clone(), classes != top
    if others.any():
        maps[others] = lrp.relevance(model, pixels[others], classes[others])
    return maps


def _top(model: Model, pixels: Pixels) -> Labels:
    with torch.no_grad():
        return model(pixels).argmax(1)


def _rounded(
    models: Mapping[str, Model], changed: Mapping[str, Pixels], tests: pd.DataFrame
) -> pd.DataFrame:
    """Returns what each model predicts of attacked images of 256 levels, see `Signatures`."""
    parts = []
    for on, pixels in changed.items():
        levels = torch.from_numpy(from_8bit(to_8bit(pixels.numpy())))
        for kind, model in models.items():
            parts.append(tests.assign(model=kind, on=on, prediction=_top(model, levels).numpy()))
    return pd.concat(parts, ignore_index=True)


def _points(retrained: Retrained) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Returns a row for each of the baseline model's signatures, and which images have one.

    These are all clean images and all successes of each attack. Columns: `image, source, on,
    label`, `after` (the baseline model's prediction) and, of each clean image, whether each attack
    succeeds. Masks (n,) are by `on`, in the order of the rows.
    """
    tested = retrained.attacks.query("model == @BASELINE and split == 'test'")
    parts, masks = [], {}
    for on in (CLEAN, *EXTENDING):
        attack = tested[tested["attack"] == (EXTENDING[0] if on == CLEAN else on)]
        table = attack[["image", "source", "label"]].reset_index(drop=True).assign(on=on)
        after = attack["clean" if on == CLEAN else "adversarial"]
        table["after"] = after.to_numpy()
        table["right"] = attack["right"].to_numpy()
        for kind in EXTENDING:
            successes = tested.loc[tested["attack"] == kind, "success"].to_numpy()
            table[f"success_{kind}"] = successes
        masks[on] = np.ones(len(table), bool) if on == CLEAN else attack["success"].to_numpy()
        parts.append(table[masks[on]])
    return pd.concat(parts, ignore_index=True), masks


def _signed(
    points: pd.DataFrame,
    spaces: Mapping[str, Mapping[str, Heatmaps]],
    masks: Mapping[str, np.ndarray],
    settings: SignatureSettings,
    *,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns points with what signatures tell of them, and the numbers of all together.

    Args:
        points: as `_points` returns them.
        spaces: relevance by kind of signature, then by what was done to the images.
        masks: which images have a signature, as `_points` returns them.
        settings: of signatures.
        seed: of UMAP and of the folds.
    """
    kinds, sources = points["on"].to_numpy(), points["source"].to_numpy()
    clean = kinds == CLEAN
    truth = points.loc[clean, "label"].to_numpy()
    numbers = {"chance of agreement": signatures.chance_agreement(truth).mean()}
    vectors = {
        space: np.concatenate([signatures.vectors(heats[on])[mask] for on, mask in masks.items()])
        for space, heats in spaces.items()
    }
    for space, words in ((OWN, ""), (LAST, " of the last layer")):
        plane = np.full((len(points), 2), np.nan)
        try:
            plane = signatures.embedding(vectors[space], seed=seed, **settings.umap.model_dump())
            numbers[f"trustworthiness{words}"] = signatures.trustworthiness(
                vectors[space], plane, neighbours=settings.umap.neighbours
            )
        except signatures.TooFewError as fault:
            tqdm.write(f"no plane of signatures: {fault}")
        points = points.assign(**{f"x{space}": plane[:, 0], f"y{space}": plane[:, 1]})
        for column, where, place in (
            ("distance", " in the whole space", vectors[space]), ("distance_plane", "", plane)
        ):  # fmt: skip
            if np.isfinite(place[clean]).all():
                points.loc[clean, f"{column}{space}"] = signatures.distance_to_other_class(
                    place[clean], truth
                )
                numbers[f"agreement{words}{where}"] = signatures.label_agreement(
                    place[clean], truth, neighbours=settings.agreement
                ).mean()
            else:
                points[f"{column}{space}"] = np.nan
    vectors[SORTED] = signatures.without_places(vectors[OWN])
    for space, signs in vectors.items():
        guesses = signatures.guesses(signs, kinds, sources, seed=seed)
        hits = np.where(guesses == None, np.nan, guesses == kinds)  # noqa: E711
        points[f"identified{space}"] = hits
    return points, numbers


def _finite(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(float(n), 6) for name, n in numbers.items() if np.isfinite(n)}


def correlation(first: Heatmaps, second: Heatmaps) -> PerImage:
    """Returns Pearson's correlation of the maps of each image; NaN where one is flat."""
    a, b = (m.double().flatten(1) for m in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 0, (a * b).sum(1) / norms, torch.nan)


def negative_share(maps: Heatmaps) -> float:
    """Returns how much of all relevance is below 0: the mean over maps that are not empty."""
    strength = maps.double().abs().sum((1, 2))
    share = maps.double().clamp(max=0).abs().sum((1, 2)) / strength
    return float(share[strength > 0].mean())


def changed_pixel(clean: Pixels, changed: Pixels) -> Tensor:
    """Returns the row and column of each image's most changed pixel: (n, 2); -1 where none is."""
    change = (changed - clean).abs().sum(1)
    place = change.flatten(1).argmax(1)
    where = torch.stack([place // change.shape[2], place % change.shape[2]], dim=1)
    return torch.where((change.amax((1, 2)) > 0)[:, None], where, -1)


def moved(place: Tensor, sides: Sequence[int], to: Sequence[int]) -> Tensor:
    """Returns the places of a map that lie at the centres of pixels of an image of other sides.

    Args:
        place: row and column in the image, int64 (n, 2); negative ones stay negative.
        sides: height and width of the image.
        to: height and width of the map.
    """
    own, other = torch.tensor(sides), torch.tensor(to)
    return torch.div((2 * place + 1) * other, 2 * own, rounding_mode="floor")


def window_share(maps: Heatmaps, place: Tensor, *, size: int) -> PerImage:
    """Returns the share of absolute relevance in a window around a place of each map.

    A window at an edge is cut off there. NaN where the map is empty or there is no place.
    """
    n, height, width = maps.shape
    reach = size // 2
    rows, columns = torch.arange(height), torch.arange(width)
    near = ((rows - place[:, :1]).abs() <= reach)[:, :, None] & (
        (columns - place[:, 1:]).abs() <= reach
    )[:, None, :]
    strength = maps.double().abs()
    share = (strength * near).sum((1, 2)) / strength.sum((1, 2))
    return torch.where(place[:, 0] >= 0, share, torch.nan)

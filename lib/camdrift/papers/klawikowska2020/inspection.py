"""Inspection: LRP maps and signatures of clean and attacked images, model by model.

klawikowska2020, section 4.1, figures 3-6.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.explain import lrp
from camdrift.models.model import Model
from camdrift.models.tensors import Heatmaps, PerImage, Pixels
from camdrift.papers.klawikowska2020 import signatures
from camdrift.papers.klawikowska2020.controls import control
from camdrift.settings import EXTENDING, SignatureSettings
from camdrift.storage import BASELINE, CLEAN, Retrained, Signatures, attack_of, controlled
from camdrift.storage.arrays import Images8
from camdrift.storage.pixels import from_8bit

# Which model explains which images: as they are ('clean'), or as an attack on the baseline model
# left them.
SHOWN = (
    (BASELINE, CLEAN), (BASELINE, "fgsm"), (BASELINE, "one_pixel"), ("fgsm", "fgsm"),
    ("one_pixel", "one_pixel"), ("pgd", "fgsm"), ("retrained", "fgsm"), ("retrained", "one_pixel"),
)  # fmt: skip
MODELS = tuple(dict.fromkeys(model for model, _ in SHOWN))


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
    """Returns the maps, signatures and their plane of a retraining's test images.

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
    with torch.no_grad():
        before = models[BASELINE](clean).argmax(1)
    maps, parts = [], []
    for kind, on in shown:
        model, pixels = models[kind], sets[on]
        with torch.no_grad():
            top = model(pixels).argmax(1)
        maps.append(lrp.relevance(model, pixels))
        table = retrained.tests[["image", "source", "label"]]
        table = table.assign(model=kind, on=on, prediction=top.numpy())
        table["correlation"] = correlation(maps[0], maps[-1]).numpy()
        if kind == BASELINE and on in EXTENDING:
            same = lrp.relevance(model, pixels, before)
            table["correlation_same_class"] = correlation(maps[0], same).numpy()
        if attack_of(on) == "one_pixel":
            place = moved(changed_pixel(clean, pixels), clean.shape[-2:], maps[-1].shape[-2:])
            table["window"] = window_share(maps[-1], place, size=settings.window).numpy()
            table["window_before"] = window_share(maps[0], place, size=settings.window).numpy()
        parts.append(table)
    images = pd.concat(parts, ignore_index=True)
    points, vectors = _points(dict(zip(shown, maps, strict=True)), retrained)
    own = (points["on"] == CLEAN).to_numpy()
    truth = points.loc[own, "label"].to_numpy()
    plane = np.full((len(points), 2), np.nan)
    numbers = {"negative relevance": negative_share(maps[0])}
    try:
        plane = signatures.embedding(vectors, seed=seed, **settings.umap.model_dump())
        numbers |= {
            "trustworthiness": signatures.trustworthiness(
                vectors, plane, neighbours=settings.umap.neighbours
            ),
            "agreement": signatures.label_agreement(
                plane[own], truth, neighbours=settings.agreement
            ).mean(),
            "chance of agreement": signatures.chance_agreement(truth).mean(),
        }
    except signatures.TooFewError as fault:
        tqdm.write(f"no plane of signatures: {fault}")
    points = points.assign(x=plane[:, 0], y=plane[:, 1])
    for column, space in (("distance", vectors), ("distance_plane", plane)):
        known = np.isfinite(space[own]).all()
        points.loc[own, column] = (
            signatures.distance_to_other_class(space[own], truth) if known else np.nan
        )
    kinds = points["on"].to_numpy()
    guesses = signatures.guesses(vectors, kinds, points["source"].to_numpy(), seed=seed)
    points["identified"] = np.where(guesses == None, np.nan, guesses == kinds)  # noqa: E711
    heats = torch.stack([m / m.abs().amax((1, 2), keepdim=True).clamp_min(1e-12) for m in maps])
    facts = {"shown": [list(pair) for pair in shown], "numbers": _finite(numbers)}
    return Signatures(heats.half().numpy(), images, points, facts, pictures)


def _points(
    maps: dict[tuple[str, str], Heatmaps], retrained: Retrained
) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns the baseline model's signatures: of all clean images and of all successes.

    Columns: `image, source, on, label`, `after` (the baseline model's prediction) and, of each
    clean image, whether each attack succeeds.
    """
    tested = retrained.attacks.query("model == @BASELINE and split == 'test'")
    parts, rows = [], []
    for on in (CLEAN, *EXTENDING):
        attack = tested[tested["attack"] == (EXTENDING[0] if on == CLEAN else on)]
        table = attack[["image", "source", "label"]].reset_index(drop=True).assign(on=on)
        after = attack["clean" if on == CLEAN else "adversarial"]
        table["after"] = after.to_numpy()
        table["right"] = attack["right"].to_numpy()
        for kind in EXTENDING:
            successes = tested.loc[tested["attack"] == kind, "success"].to_numpy()
            table[f"success_{kind}"] = successes
        mask = np.ones(len(table), bool) if on == CLEAN else attack["success"].to_numpy()
        parts.append(table[mask])
        rows.append(signatures.vectors(maps[BASELINE, on])[mask])
    return pd.concat(parts, ignore_index=True), np.concatenate(rows)


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
    own, wanted = torch.tensor(sides), torch.tensor(to)
    return torch.div((2 * place + 1) * wanted, 2 * own, rounding_mode="floor")


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

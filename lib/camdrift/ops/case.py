"""One image of a cell, to look at: its pixels, maps, classes and scores, as the stages left them.

Without torch: artefacts are read in part, and the images are composed as the stages compose them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.perturbations import variants
from camdrift.perturbations.variants import Variant
from camdrift.scores import by_name
from camdrift.settings import Cell, Protocol
from camdrift.storage import (
    ADVERSARIAL,
    CLEAN,
    NOISE,
    OWN,
    Artefact,
    Attacked,
    ImageSet,
    Maps,
    Noise,
    Scores,
)

ARMS = (CLEAN, ADVERSARIAL, NOISE)


@dataclass(frozen=True)
class Case:
    """What the stages of a cell wrote, in which single images are looked up.

    first: the protocol that decides the cell's tables.
    """

    study: str
    name: str
    cell: Cell
    first: Protocol
    images: ImageSet
    attacked: Attacked
    noise: Noise
    maps: Maps

    @property
    def strengths(self) -> list[float]:
        """Strengths of the attack, rising."""
        return sorted(float(s) for s in self.noise.scales["strength"].unique())

    def place(self, image: int) -> int:
        """Returns the row of an image among those that the attack was made on."""
        return int(np.flatnonzero(self.attacked.images["image"] == image)[0])

    def names(self) -> dict[int, str]:
        """Returns the names of classes by number, of those that the set has."""
        rows = self.images.index.drop_duplicates("label")
        return rows.set_index("label")["class_name"].to_dict()


def read(study: str, name: str, cell: Cell, first: Protocol) -> Case:
    """Returns a cell's artefacts; arrays stay on the disk until a part of them is wanted.

    Raises:
        FileNotFoundError: one is missing; the message says what to run.
    """

    def part(kind: type[Artefact], stage: str) -> Artefact:
        # Sizes alone are checked: a page reads some rows of arrays that may have gigabytes.
        return storage.read(kind, storage.cell_folder(study, name, stage), check=False)

    images = storage.read(ImageSet, storage.set_folder(cell.set), check=False)
    parts = part(Attacked, "attack"), part(Noise, "noise"), part(Maps, "cam")
    return Case(study, name, cell, first, images, *parts)


def pixels(
    case: Case, image: int, strength: float, *, arms: Sequence[str] = ARMS
) -> dict[str, np.ndarray]:
    """Returns the clean, attacked and noisy image, float32 (h, w, c) in [0, 1], by variant.

    Under the cell's first protocol, noise of its first draw. `arms` are the variants, without those
    that the cell does not have at this strength.
    """
    every = _composed(case, [image], strength, arms)
    return {variant.name: np.moveaxis(variant.pixels()[0], 0, -1) for variant in every}


def pictures(
    case: Case, images: Sequence[int], strength: float, *, arm: str = ADVERSARIAL
) -> list[np.ndarray]:
    """Returns images of one variant, float32 (h, w, c) in [0, 1], under the first protocol.

    Raises:
        ValueError: the cell has no such strength.
    """
    if strength not in case.strengths:
        raise ValueError(f"wanted one of the strengths {case.strengths}, got {strength}")
    (variant,) = _composed(case, images, strength, [arm])
    known = dict(zip(variant.table["image"], variant.pixels(), strict=True))
    return [np.moveaxis(known[image], 0, -1) for image in images]


def _composed(
    case: Case, images: Sequence[int], strength: float, arms: Sequence[str]
) -> list[Variant]:
    """Returns variants of some images at a strength, rising by image, noise of its first draw."""
    places = np.sort([case.place(image) for image in images])
    parts = case.attacked.only(places), case.noise.only(places)
    return [
        variant
        for variant in variants.compose(case.images, *parts, [case.first])
        if variant.name in arms
        and variant.table["strength"].iloc[0] in (0.0, strength)
        and variant.table["draw"].iloc[0] == 0
    ]


def rows(
    case: Case, image: int, strength: float, *, method: str, target: str,
    arms: Sequence[str] = ARMS,
) -> pd.DataFrame:  # fmt: skip
    """Returns the rows of `Maps.rows` of an image by variant; the clean one explains its own class.

    Under the first protocol, noise of the first draw; without a variant that has no map. `arms` as
    of `pixels`.
    """
    table = case.maps.select(method)
    table = table[(table["image"] == image) & (table["draw"] == 0)]
    clean = table[(table["variant"] == CLEAN) & (table["target"] == OWN)]
    changed = table[(table["strength"] == strength) & (table["recipe"] == case.first.recipe)]
    changed = changed[changed["variant"].isin(set(arms) - {CLEAN}) & (changed["target"] == target)]
    return pd.concat([clean, changed]).set_index("variant")


def maps(case: Case, rows: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Returns the maps of `rows` by variant, an array (h, w) in [0, 1] a layer."""
    arrays = {}
    for variant, place in rows["map"].items():
        flat = np.asarray(case.maps.values[place], dtype=np.float32)
        arrays[str(variant)] = [
            flat[layer.start : layer.start + layer.height * layer.width].reshape(
                layer.height, layer.width
            )
            for layer in case.maps.layers.itertuples()
        ]
    return arrays


def scores(study: str, name: str, **equal: Any) -> pd.DataFrame:
    """Returns the scores of a cell whose columns have these values, see `storage.rows`."""
    return storage.rows(Scores, storage.cell_folder(study, name, "score"), "values", **equal)


def similarity(
    case: Case, image: int, strength: float, *, layer: str, method: str, target: str
) -> dict[str, float]:
    """Returns the cosine of each variant's map with the clean one at a layer, by variant."""
    table = scores(
        case.study, case.name, reading=case.first.reading, strength=strength, draw=0, image=image,
        score="cosine", layer=layer, method=method, target=target,
    )  # fmt: skip
    return dict(zip(table["variant"].astype(str), table["value"], strict=True))


def pairs(study: str, name: str, first: Protocol, *, strength: float, **equal: Any) -> pd.DataFrame:
    """Returns similarity under attack and under noise, a row an image and layer.

    Columns: `image, layer, adversarial, noise` and `excess`, by how much less alike maps are under
    attack. Under the first protocol, noise of the first draw. `equal` are a method, a score, a
    target and a layer.
    """
    table = scores(
        study, name, reading=first.reading, strength=strength, draw=0,
        variant=[ADVERSARIAL, NOISE], **equal,
    )  # fmt: skip
    table = table.astype({"layer": str, "variant": str})
    wide = table.pivot(index=["image", "layer"], columns="variant", values="value")
    wide = wide.reindex(columns=[ADVERSARIAL, NOISE]).rename_axis(columns=None).reset_index()
    sign = 1 if by_name()[equal["score"]].HIGHER_IS_ALIKE else -1
    return wide.assign(excess=sign * (wide[NOISE] - wide[ADVERSARIAL]))


def overview(case: Case) -> pd.DataFrame:
    """Returns the images that were attacked, in their order, to choose one of them.

    Columns: `image, id, class_name, clean, adversarial, success, l2` and `drift`, 1 minus the
    similarity to the clean map at strength 1, each map for its own class, mean over layers.
    """
    table = pairs(
        case.study, case.name, case.first, strength=1.0, target=OWN, score="cosine",
        method=case.maps.methods[0],
    )  # fmt: skip
    drift = 1 - table.groupby("image")[ADVERSARIAL].mean()
    columns = ["image", "id", "label", "clean", "adversarial", "success", "l2"]
    images = case.attacked.images[columns].assign(
        drift=case.attacked.images["image"].map(drift),
        class_name=case.attacked.images["label"].map(case.names()),
    )
    return images.reset_index(drop=True)

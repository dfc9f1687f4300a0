"""Records: the results of single images, without pixels and maps, from which reports are made.

A record is small enough to be published, so that a reader can make every table and verdict of a
study again, or others, without its images, its networks or a GPU.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from camdrift.storage.schema import Detected, Retrained, Signatures, Transferred
from camdrift.storage.store import Artefact, Compact

VARIANT = ["recipe", "variant", "strength", "draw", "image"]  # keys of `Record.variants`
PICTURES: dict[type, tuple[str, ...]] = {  # fields with pixels or maps, of artefacts with results
    Detected: ("maps", "pictures"),
    Retrained: ("changed",),
    Signatures: ("maps", "pictures"),
    Transferred: ("clean", "values", "pictures"),
}


@dataclass(frozen=True)
class Record:
    """The record of a cell of a study of layers, or of attacks on maps.

    images: `Attacked.images`, with those of `Noise.raised` and `Noise.boundary`: `raised_scale,
        raised_size, raised_flipped, below, above, boundary_flipped`.
    sizes: `Noise.scales`.
    variants: a row for each (image, variant, strength, draw, recipe): `prediction`.
    scores: `Scores.values`, rounded as `rounded` says.
    moves: see `scores.movement.correlations`; rounded likewise.
    covered: a row for each (variant, strength) and neuron, in the order of the neurons: `images`,
        a bit an image of `images`, packed by `np.packbits`.
    layers: `Maps.layers`, without `start`.
    facts: `methods`, the first of which decides; `neurons` and `classes`, of `Covered`; `values`,
        the number of values of an image.
    """

    images: Compact
    sizes: Compact
    variants: Compact
    scores: Compact
    moves: Compact
    covered: Compact
    layers: Compact
    facts: dict

    def bits(self) -> dict[tuple[str, float], np.ndarray]:
        """Returns the neurons that images cover, by (variant, strength): bool (images, neurons)."""
        count = len(self.images)
        return {
            (str(variant), float(strength)): _unpacked(rows["images"], count)
            for (variant, strength), rows in self.covered.groupby(
                ["variant", "strength"], observed=True
            )
        }


def without_pictures(artefact: Artefact) -> Artefact:
    """Returns an artefact whose fields of `PICTURES` have no rows."""
    own: Any = artefact
    fields = PICTURES.get(type(artefact), ())
    return replace(own, **{name: getattr(own, name)[:0] for name in fields})


def covered(bits: np.ndarray, rows: pd.DataFrame, images: pd.Series) -> pd.DataFrame:
    """Returns the table `Record.covered`.

    Args:
        bits: bool (rows, neurons).
        rows: `image, variant, strength` of each row of `bits`.
        images: in the order of `Record.images`.
    """
    tables = []
    for (variant, strength), part in rows.reset_index(drop=True).groupby(["variant", "strength"]):
        order = pd.Series(part.index, part["image"]).loc[images].to_numpy()
        packed = np.packbits(bits[order].T, axis=1)
        facts = {"variant": variant, "strength": strength}
        tables.append(pd.DataFrame(facts | {"images": [row.tobytes() for row in packed]}))
    return pd.concat(tables, ignore_index=True).astype({"variant": "category"})


def _unpacked(images: pd.Series, count: int) -> np.ndarray:
    packed = np.frombuffer(b"".join(images), np.uint8).reshape(len(images), -1)
    return np.unpackbits(packed, axis=1, count=count).astype(bool).T


def rounded(values: np.ndarray | pd.Series) -> np.ndarray:
    """Returns scores with four digits behind the point: float32.

    Nearer to 1 they have three digits of their distance from 1, six behind the point at most: noise
    of a quarter of an attack's size moves most maps by less than 1e-3, and an image's rank among
    others must not hang on a tie.
    """
    numbers = np.asarray(values, dtype=np.float64)
    drift = np.abs(1 - numbers)
    digits = np.select([drift < 1e-3, drift < 1e-2], [6, 5], 4)
    scale = 10.0**digits
    return (np.round(numbers * scale) / scale).astype(np.float32)

"""The record of a cell, see `storage.Record`, from what its stages wrote."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.scores import movement
from camdrift.settings import Cell, Protocol
from camdrift.storage import OWN, SEED, Attacked, Covered, Maps, Noise, Record, Scores
from camdrift.storage.record import VARIANT, covered, rounded

SCORE = ["reading", "method", "score", "target", "layer", "variant", "strength", "draw", "image"]


def record(study: str, name: str, cell: Cell, protocols: Sequence[Protocol]) -> Record:
    """Returns the record of a cell whose maps are scored.

    Raises:
        MissingError: an artefact is missing; the message gives the command to run.
    """

    def part(kind: type[storage.Artefact], stage: str) -> storage.Artefact:
        return storage.read(kind, storage.cell_folder(study, name, stage))

    attacked, noise, maps = part(Attacked, "attack"), part(Noise, "noise"), part(Maps, "cam")
    neurons, scores = part(Covered, "coverage"), part(Scores, "score").values
    images = _images(attacked, noise)
    bits = np.unpackbits(neurons.bits, axis=1, count=neurons.facts["neurons"]).astype(bool)
    moves = movement.correlations(
        attacked, noise, maps, _distinct(protocols), strengths=cell.strengths
    )
    variants = maps.select().query("target == @OWN")[[*VARIANT, "prediction"]]
    return Record(
        images=images,
        sizes=_narrow(noise.scales).sort_values(["recipe", "strength", "draw", "image"]),
        variants=variants.sort_values(VARIANT),
        scores=packed(scores, SCORE, ["value"]),
        moves=packed(moves, list(movement.KEYS), list(movement.ARMS)),
        covered=covered(bits, neurons.rows, images["image"]),
        layers=maps.layers.drop(columns="start"),
        facts=neurons.facts
        | {"methods": maps.methods, "values": int(np.prod(attacked.perturbation.shape[1:]))},
    )


def _images(attacked: Attacked, noise: Noise) -> pd.DataFrame:
    raised = noise.raised.set_index("image").add_prefix("raised_")
    boundary = noise.boundary.set_index("image").rename(columns={"flipped": "boundary_flipped"})
    return attacked.images.join(raised, on="image").join(boundary, on="image")


def _distinct(protocols: Sequence[Protocol]) -> list[Protocol]:
    """Returns the protocols whose movements differ, and the first one for both target policies."""
    first = protocols[0]
    both = [first.model_copy(update={"target": target}) for target in (OWN, SEED)]
    every = [*both, *protocols]
    return list({(p.recipe, p.score, p.target): p for p in reversed(every)}.values())[::-1]


def _narrow(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.select_dtypes("floating").columns.difference(["strength"])
    return table.astype(dict.fromkeys(numbers, np.float32))


def packed(table: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Returns a table sorted by its keys, layers in forward order, with its values rounded."""
    layers = pd.unique(table["layer"].astype(str))
    ordered = table.assign(layer=pd.Categorical(table["layer"].astype(str), layers))
    ordered = ordered.sort_values(keys, kind="stable", ignore_index=True)[[*keys, *values]]
    return ordered.assign(**{name: rounded(ordered[name]) for name in values})

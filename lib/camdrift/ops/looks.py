"""Looks: what is explained of an image of a cell, counted by making its variants of a stand-in."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from camdrift.perturbations import noise, strengths, variants
from camdrift.settings import Cell, Settings, protocols
from camdrift.storage import ADVERSARIAL, OWN, RAISED, SEED, SOFTMAX, Attacked, ImageSet, Noise

# The share of images whose class an attack flips is not known before; here it is 0.3 to 0.98.
FLIPPED = 0.5
LAST = 1 / 3  # of the stand-in's perturbation, its last step


@dataclass(frozen=True)
class Looks:
    """What is explained of an image of a cell.

    plain, central: distinct pictures, explained by the first method or by all; of each, the number
        for one class and for two.
    maps: that are kept.
    made: the variants.
    """

    plain: tuple[float, float]
    central: tuple[float, float]
    maps: float
    made: list[variants.Variant]


def of_cell(cell: Cell, plan: Settings) -> Looks:
    """Returns what is explained of an image, as `variants` makes it and `packing` explains it.

    Of an image of 8 px with a perturbation of its own: what is equal there is equal anywhere.
    """
    known = protocols(plan.protocols)
    chosen = [known[name] for name in cell.protocols]
    made = variants.compose(*_stand_in(cell, plan), chosen)
    methods = plan.cams.methods
    done: set[tuple] = set()
    counts = {(one, both): 0.0 for one in (True, False) for both in (True, False)}
    maps = 0.0
    for variant in made:
        names = methods if variant.central else methods[:1]
        digest = (variant.name == SOFTMAX, variant.pixels().numpy().tobytes())
        keys = {(digest, name, target) for name in names for target in variant.targets}
        if keys <= done:
            continue
        done |= keys
        share = {ADVERSARIAL: FLIPPED, RAISED: 1.0}.get(variant.name, 0.0)
        share *= cell.attack != "none"
        two = {OWN, SEED} <= set(variant.targets)
        again = share * two  # micro-batches hold those that likely flip first
        counts[len(names) == 1, False] += 1 - again
        counts[len(names) == 1, True] += again
        maps += len(names) * (1 + share * two)
    return Looks(
        (counts[True, False], counts[True, True]), (counts[False, False], counts[False, True]),
        maps, made,
    )  # fmt: skip


def _stand_in(cell: Cell, plan: Settings) -> tuple[ImageSet, Attacked, Noise]:
    rng = np.random.default_rng(0)
    side, draws, kinds = 8, plan.noise.draws, list(noise.CONTROLS)

    def values(*shape: int) -> np.ndarray:
        return (rng.random((1, *shape, 3, side, side), dtype=np.float32) - 0.5) / 8

    normal = rng.standard_normal((1, draws, 3, side, side), dtype=np.float32)
    change = values() * (cell.attack != "none")
    known = protocols(plan.protocols)
    rows = []
    for protocol in {known[name].recipe: known[name] for name in cell.protocols}.values():
        multiples = strengths.multipliers(cell.strengths, applied=protocol.strengths)
        for strength, multiple in zip(cell.strengths, multiples, strict=True):
            # The size that the strength leaves of the perturbation, which matched noise has.
            of_last = protocol.strengths == "accumulating" and cell.attack == "dlfuzz"
            left = 1 - LAST + LAST * multiple if of_last else multiple
            # Clipping leaves it a little larger than the other noise, which is scaled as it is.
            scale = 1.01 * abs(left) if protocol.noise == "matched" else strength
            scale *= cell.attack != "none"
            rows += [(0, strength, draw, protocol.recipe, scale) for draw in range(draws)]
    columns = ["image", "strength", "draw", "recipe", "scale"]
    raised = pd.DataFrame({"scale": [9.0], "flipped": [cell.attack != "none"], "image": [0]})
    pixels = np.full((1, side, side, 3), 127, np.uint8)
    table = pd.DataFrame({"image": [0]})
    last = LAST * change if cell.attack == "dlfuzz" else change[:0]
    controls = np.concatenate([values() for _ in kinds])[None] * (cell.attack != "none")
    return (
        ImageSet(pixels, pd.DataFrame(), {}),
        Attacked(change, last, table, pd.DataFrame()),
        Noise(normal, controls, {"controls": kinds},
              pd.DataFrame(rows, columns=columns), raised),
    )  # fmt: skip

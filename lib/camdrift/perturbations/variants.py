"""The variants of an image: clean, attacked and noisy at each strength, and the controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.perturbations import changes
from camdrift.perturbations.strengths import multipliers, offsets
from camdrift.settings import Cell, Protocol
from camdrift.storage import (
    ABOVE,
    ADVERSARIAL,
    BELOW,
    CLEAN,
    NOISE,
    OWN,
    RAISED,
    SEED,
    SOFTMAX,
    Attacked,
    ImageSet,
    Noise,
)
from camdrift.storage.arrays import Pixels
from camdrift.storage.pixels import from_8bit, to_8bit


@dataclass(frozen=True)
class Variant:
    """One variant of some of the images.

    table: a row an image: `image, variant, strength, draw, recipe`. `strength` is the cell's
        nominal one; 0 for the clean image. `draw` is 0 for variants without noise. `recipe` is
        `Protocol.recipe`, empty for the clean image.
    targets: the target policies of its maps.
    pixels: returns them as float32 in [0, 1]; called only when needed, since all variants
        together are many times as large as the images.
    central: whether every method maps it, or the first alone.
    """

    table: pd.DataFrame
    targets: tuple[str, ...]
    pixels: Callable[[], Pixels]
    central: bool = False

    @property
    def name(self) -> str:
        """The name of the variant, as in tables."""
        return str(self.table["variant"].iloc[0])


def compose(
    images: ImageSet, attacked: Attacked, noise: Noise, protocols: Sequence[Protocol]
) -> list[Variant]:
    """Returns the variants of attacked images that the protocols need.

    The one place where changed images are composed: stages explain these and the dashboard shows
    them.

    The clean image; under each recipe the attack and the noise at each strength. The first
    protocol's recipe also has every draw of the noise and, at strength 1, each control, the raised
    noise of those images that it flips, and of those that the attack flips the attack just below
    and above the boundary; and it has maps for both targets. A further recipe
    has the noise's second draw if a protocol's threshold judges the same images that set it, and
    has maps for its protocols' targets alone.
    Central are the clean image as the first protocol explains it and, under the first recipe, the
    attack and the first draw.
    """
    numbers = attacked.images["image"].to_numpy()
    clean = from_8bit(images.pixels[numbers])
    whole, last = (np.asarray(a) for a in (attacked.perturbation, attacked.last_step))
    strengths = sorted(noise.scales["strength"].unique().tolist())
    steps = offsets(strengths)
    first, both = protocols[0], (OWN, SEED)

    def variant(
        name: str,
        make: Callable[[], Pixels],
        *,
        strength: float = 1.0,
        draw: int = 0,
        protocol: Protocol = first,
        targets: tuple[str, ...] = both,
    ) -> Variant:
        table = pd.DataFrame({"image": numbers, "variant": name, "strength": float(strength)})
        table = table.assign(draw=draw, recipe=protocol.recipe)
        central = protocol is first and draw == 0 and name in (ADVERSARIAL, NOISE)
        return Variant(
            table, targets, lambda: changes.stored(make(), quantise=protocol.quantise), central
        )

    def original(name: str) -> Variant:
        table = pd.DataFrame({"image": numbers, "variant": name, "strength": 0.0})
        central = name == CLEAN or first.score == "softmax_for_originals"
        return Variant(table.assign(draw=0, recipe=""), both, lambda: clean, central)

    def base(protocol: Protocol, draw: int) -> Callable[[], Pixels]:
        normal = noise.draws[:, draw]
        return cache(lambda: changes.noise_base(whole, last, normal, protocol=protocol))

    def attack(protocol: Protocol, multiple: float) -> Callable[[], Pixels]:
        return lambda: changes.attacked(clean, whole, last, multiple, applied=protocol.strengths)

    def noisy(
        protocol: Protocol, base: Callable[[], Pixels], rung: int, draw: int
    ) -> Callable[[], Pixels]:
        scales = noise.scales[noise.scales["recipe"] == protocol.recipe]
        rows = scales[(scales["strength"] == strengths[rung]) & (scales["draw"] == draw)]
        scale = rows["scale"].to_numpy()
        return lambda: changes.noisy(
            clean, whole, last, base(), scale, steps[rung], protocol=protocol
        )

    def control(place: int) -> Callable[[], Pixels]:
        return lambda: clean + noise.controls[:, place]

    def near(name: str, side: str) -> Variant:
        part = noise.boundary[side].to_numpy(np.float32).reshape(-1, 1, 1, 1)
        whole_table = variant(name, lambda: clean).table
        return Variant(
            whole_table[crossed].reset_index(drop=True),
            both,
            lambda: changes.stored((clean + part * whole)[crossed], quantise=first.quantise),
        )

    variants = [original(CLEAN)]
    if any(protocol.score == "softmax_for_originals" for protocol in protocols):
        variants.append(original(SOFTMAX))
    by_recipe: dict[str, list[Protocol]] = {}
    for protocol in protocols:
        by_recipe.setdefault(protocol.recipe, []).append(protocol)
    for sharing in by_recipe.values():
        protocol = sharing[0]
        targets = both if protocol is first else tuple(sorted({p.target for p in sharing}))
        build = partial(variant, protocol=protocol, targets=targets)
        held_out = all(p.threshold == "held_out_quantile" for p in sharing)
        draws = noise.draws.shape[1] if protocol is first else 1 if held_out else 2
        multiples = multipliers(strengths, applied=protocol.strengths)
        for strength, multiple in zip(strengths, multiples, strict=True):
            make = attack(protocol, multiple)
            variants.append(build(ADVERSARIAL, make, strength=strength))
        for draw in range(draws):
            like = base(protocol, draw)
            for rung, strength in enumerate(strengths):
                make = noisy(protocol, like, rung, draw)
                variants.append(build(NOISE, make, strength=strength, draw=draw))
    variants += [variant(kind, control(i)) for i, kind in enumerate(noise.facts["controls"])]
    flipped = noise.raised["flipped"].to_numpy()
    if flipped.any():
        scale = noise.raised["scale"].to_numpy(np.float32).reshape(-1, 1, 1, 1)
        normal = noise.draws[:, 0]
        raised = variant(RAISED, lambda: clean + scale * changes.like(whole, normal))
        table = raised.table[flipped].reset_index(drop=True)
        variants.append(Variant(table, both, lambda: raised.pixels()[flipped]))
    crossed = noise.boundary["flipped"].to_numpy()
    if crossed.any():
        variants += [near(BELOW, "below"), near(ABOVE, "above")]
    return variants


def read(
    cell: Cell, name: str, protocols: Sequence[Protocol], places: storage.Places = slice(None)
) -> tuple[Attacked, list[Variant]]:
    """Returns the `Attacked` of a cell, and the variants of its images.

    Both are limited to the images at `places` among the attacked ones; places rise.
    """
    images = storage.read(ImageSet, storage.set_folder(cell.set))
    folder = storage.cell_folder(cell.study, name, "attack")
    attacked = storage.read(Attacked, folder).only(places)
    mine = {"scales": {"image": attacked.images["image"].to_list()}}
    noise = storage.read(Noise, storage.cell_folder(cell.study, name, "noise"), only=mine)
    return attacked, compose(images, attacked, noise.only(places), protocols)


def examples(
    attacked: Attacked, variants: list[Variant], *, count: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns example pictures of `count` images, see `shown`: clean, attacked and noisy.

    At each strength under the first recipe, draw 0. The table has a row a picture (`image, variant,
    strength`), pictures are uint8 (images, variants, h, w, channels).
    """
    order = shown(attacked.images, count=count)
    recipe = next(v.table["recipe"].iloc[0] for v in variants if v.name == ADVERSARIAL)
    picks = [
        variant
        for variant in variants
        if variant.name in (CLEAN, ADVERSARIAL, NOISE)
        and (variant.table["draw"] == 0).all()
        and variant.table["recipe"].isin(["", recipe]).all()
    ]
    pictures = np.stack([to_8bit(variant.pixels()[order]) for variant in picks], axis=1)
    rows = [variant.table.iloc[order][["image", "variant", "strength"]] for variant in picks]
    table = pd.concat(rows)
    place = {image: i for i, image in enumerate(attacked.images["image"].to_numpy()[order])}
    table = table.sort_values("image", key=lambda column: column.map(place), kind="stable")
    return table.reset_index(drop=True), pictures


def shown(images: pd.DataFrame, *, count: int) -> np.ndarray:
    """Returns the places of the first `count` images to show.

    Images that are classified correctly when clean come first, and among them those that the attack
    flips: an attack that corrects a wrong class is a poor example of its effect.
    """
    wrong = (images["clean"] != images["label"]).to_numpy()
    return np.lexsort((~images["success"].to_numpy(), wrong))[:count]

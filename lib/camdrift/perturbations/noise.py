"""Noise of an attack's size, and noise raised until it flips the prediction."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from camdrift.models import tensors
from camdrift.models.model import Model
from camdrift.perturbations import boundary, changes, controls
from camdrift.perturbations.size import l2, scale_to
from camdrift.perturbations.strengths import multipliers, offsets
from camdrift.pipeline import randomness
from camdrift.settings import Cell, NoiseSettings, Protocol
from camdrift.storage import NOISE, Attacked, ImageSet, Noise, arrays
from camdrift.storage.pixels import from_8bit


def match(
    model: Model,
    images: ImageSet,
    attacked: Attacked,
    cell: Cell,
    protocols: Sequence[Protocol],
    settings: NoiseSettings,
    *,
    key: str,
    seed: int,
) -> Noise:
    """Returns the noise and the controls of attacked images of a cell, `key`."""
    rows, names = attacked.images["image"].to_numpy(), attacked.images["id"]
    pixels = from_8bit(images.pixels[rows])
    clean, sizes = torch.from_numpy(pixels), torch.tensor(attacked.images["l2"].to_numpy())
    whole, last = np.array(attacked.perturbation), np.asarray(attacked.last_step)
    change = torch.from_numpy(whole)

    def generators(*kind: int | str) -> list[np.random.Generator]:
        return [randomness.generator(seed, *kind, key, name) for name in names]

    draws = [draw(clean.shape[1:], generators("noise", i)) for i in range(settings.draws)]
    recipes = {protocol.recipe: protocol for protocol in protocols}
    fits = [
        fit(pixels, whole, last, draws, cell.strengths, protocol=protocol, scaling=settings.scaling)
        for protocol in recipes.values()
    ]
    scales = pd.concat(fits, ignore_index=True)
    rearranged = [
        controls.rearranged(kind, clean, change, generators("control", kind))
        for kind in settings.controls
    ]
    base = torch.from_numpy(changes.like(whole, draws[0]))
    by, to = settings.raise_by, settings.raise_to
    return Noise(
        np.stack(draws, axis=1),
        torch.stack(rearranged, dim=1).numpy(),
        {"controls": settings.controls},
        scales.assign(image=rows[scales.pop("row")]),
        raised(model, clean, base, sizes, raise_by=by, raise_to=to).assign(image=rows),
        boundary.crossed(model, clean, change, bisections=settings.bisections).assign(image=rows),
    )


def beside(
    kind: str,
    clean: tensors.Pixels,
    perturbation: tensors.Pixels,
    generators: Sequence[np.random.Generator],
) -> tensors.Pixels:
    """Returns images under noise of the size of perturbations, or under a control of them, clipped.

    The noise resembles the perturbation, see `changes.like`, and is scaled as by `match`.

    Args:
        kind: `NOISE`, or a key of `controls.CONTROLS`.
        clean: the images, in [0, 1].
        perturbation: of each image, not clipped.
        generators: one for each image.
    """
    if kind == NOISE:
        normal = draw(clean.shape[1:], generators)
        base = torch.from_numpy(changes.like(perturbation.numpy(), normal))
        sizes = l2((clean + perturbation).clamp(0, 1) - clean)
        change = scale_to(clean, base, sizes[:, None]).float().view(-1, 1, 1, 1) * base
    else:
        change = controls.rearranged(kind, clean, perturbation, generators)
    return (clean + change).clamp(0, 1)


def draw(shape: Sequence[int], generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Returns a standard normal draw of `shape` for each generator, as float32."""
    return np.stack([g.standard_normal(tuple(shape)).astype(np.float32) for g in generators])


def fit(
    clean: arrays.Pixels,
    whole: arrays.Pixels,
    last_step: arrays.LastStep,
    draws: Sequence[arrays.Pixels],
    strengths: Sequence[float],
    *,
    protocol: Protocol,
    scaling: str,
) -> pd.DataFrame:
    """Returns the scale of the noise at each strength, with measurements of attack and noise.

    Matched noise has, with `scaling` 'after_clipping', the L2 norm of the clipped attack; with
    'unclipped' the scale is the multiple's size, the paper's reading. Noise 'with_negated_attack'
    is scaled by the strength, as in the public code. Quantising follows matching, so the
    measurements include its effect on the sizes.

    Returns:
        A row for each (draw, strength, image), images counted from 0 as `row`: `scale`, `recipe`;
        `mean`, `std`, `l2`, `linf` of the attack (`attack_...`) and the noise (`noise_...`) after
        clipping and quantising, in pixel values.
    """
    multiples = multipliers(strengths, applied=protocol.strengths)
    attacks = [
        changes.attacked(clean, whole, last_step, multiple, applied=protocol.strengths)
        for multiple in multiples
    ]
    own = [torch.from_numpy(attack.clip(0, 1) - clean) for attack in attacks]
    sizes = torch.stack([l2(change) for change in own], dim=1)

    def measured(arm: str, changed: arrays.Pixels) -> dict[str, arrays.PerImage]:
        change = changes.stored(changed, quantise=protocol.quantise) - clean
        values = torch.from_numpy(change).double().flatten(1)
        spread, mean = torch.std_mean(values, dim=1, correction=0)
        facts = {
            "mean": mean,
            "std": spread,
            "l2": values.norm(dim=1),
            "linf": values.abs().amax(1),
        }
        return {f"{arm}_{name}": value.numpy() for name, value in facts.items()}

    of_attacks = [measured("attack", attack) for attack in attacks]
    tables = []
    for i, draw in enumerate(draws):
        base = changes.noise_base(whole, last_step, draw, protocol=protocol)
        if protocol.noise == "with_negated_attack":
            scales = torch.tensor([strengths], dtype=torch.float64).expand(len(clean), -1)
        elif scaling == "unclipped":
            scales = torch.tensor([multiples], dtype=torch.float64).abs().expand(len(clean), -1)
        else:
            scales = scale_to(torch.from_numpy(clean), torch.from_numpy(base), sizes)
        for rung, offset in enumerate(offsets(strengths)):
            scale = scales[:, rung].numpy()
            noise = changes.noisy(clean, whole, last_step, base, scale, offset, protocol=protocol)
            table = pd.DataFrame({"row": np.arange(len(clean)), "scale": scale})
            facts = of_attacks[rung] | measured("noise", noise)
            place = {"strength": float(strengths[rung]), "draw": i, "recipe": protocol.recipe}
            tables.append(table.assign(**place, **facts))
    return pd.concat(tables, ignore_index=True)


def raised(
    model: Callable[[tensors.Pixels], tensors.Logits],
    clean: tensors.Pixels,
    base: tensors.Pixels,
    sizes: tensors.PerImage,
    *,
    raise_by: float,
    raise_to: float,
) -> pd.DataFrame:
    """Returns the scale at which each image's noise flips its prediction.

    The noise starts at the attack's size (L2 norm after clipping) and grows by the factor
    `raise_by` until the prediction differs from that on the clean image, or until it is `raise_to`
    times as large.

    Args:
        model: the model whose prediction must flip.
        clean: the images, in [0, 1].
        base: the unscaled noise.
        sizes: the attack's L2 norms.
        raise_by: factor, > 1.
        raise_to: the last factor is the largest power of `raise_by` not above it.

    Returns:
        A row an image: `scale`, `size` (required L2 norm over the attack's), `flipped`.
    """
    rungs = int(np.log(raise_to) / np.log(raise_by) + 1e-9) + 1
    factors = torch.tensor([raise_by**rung for rung in range(rungs)], dtype=torch.float64)
    scales = scale_to(clean, base, sizes.double()[:, None] * factors)
    rung, flipped = torch.zeros(len(clean), dtype=torch.int64), torch.zeros(len(clean)).bool()
    with torch.no_grad():
        predictions = model(clean).argmax(1)
        waiting = l2(base).nonzero().flatten()  # nothing raised stays nothing
        for i in range(rungs):
            noise = scales[waiting, i].float().view(-1, 1, 1, 1) * base[waiting]
            if not len(waiting):
                break
            rung[waiting] = i
            now = model((clean[waiting] + noise).clamp(0, 1)).argmax(1) != predictions[waiting]
            flipped[waiting[now]] = True
            waiting = waiting[~now]
    scale = scales.gather(1, rung[:, None])[:, 0]
    return pd.DataFrame(
        {"scale": scale.numpy(), "size": factors[rung].numpy(), "flipped": flipped.numpy()}
    )

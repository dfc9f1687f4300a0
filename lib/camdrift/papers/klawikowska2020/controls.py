"""Controls: test images under noise of an attack's size, and under its perturbation rearranged."""

from collections.abc import Sequence

from camdrift.models.tensors import Pixels
from camdrift.perturbations import noise
from camdrift.pipeline import randomness
from camdrift.settings import ATTACKING, NoiseSettings, Retraining
from camdrift.storage import LARGER, NOISE


def names(settings: NoiseSettings, retraining: Retraining) -> dict[str, list[str]]:
    """Returns the names of each attack's controls, noise of its size first.

    Those of the retraining are for attacks on few pixels, and so of one-pixel alone.
    """
    common = [NOISE, *settings.controls]
    own = dict.fromkeys((*ATTACKING, LARGER), common)
    return own | {"one_pixel": list(dict.fromkeys([*common, *retraining.controls]))}


def control(
    kind: str, clean: Pixels, attacked: Pixels, images: Sequence[str], *, seed: int, key: str
) -> Pixels:
    """Returns images under a control of what an attack did to them, in [0, 1].

    Args:
        kind: one of `names`.
        clean: the images as they are.
        attacked: the same ones under the attack.
        images: their ids, parts of the seeds.
        seed: of all draws.
        key: of retraining, model and attack, part of the seeds.
    """
    generators = [randomness.generator(seed, "control", kind, key, image) for image in images]
    return noise.beside(kind, clean, attacked - clean, generators)

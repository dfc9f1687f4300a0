"""The attacked images of a target: attacks made on each source, noise of their size, and controls.

chakraborty2022, section 2.2: one sign of the gradient an image, scaled to each eps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from camdrift.models.tensors import Pixels
from camdrift.perturbations import noise
from camdrift.pipeline import randomness
from camdrift.settings import RANGES, TransferStudy
from camdrift.storage import (
    MADE_ON,
    NOISE,
    OWN_ATTACK,
    TRANSFERRED,
    TRANSFERRED_NOISE,
    controlled,
)


@dataclass(frozen=True)
class Attacks:
    """The attacked images of a target.

    pixels: the clean ones.
    signs: of each source, by its network, int8 of the same shape.
    own: the target's own network, None where it is no source.
    plan: of the study; there is noise at each eps, and controls at the largest.
    controls: names of them, see `perturbations.controls`.
    seeds: the seed and the set's name, of all draws.
    names: ids of the images, parts of the seeds.
    """

    pixels: Pixels
    signs: Mapping[str, Tensor]
    own: str | None
    plan: TransferStudy
    controls: Sequence[str]
    seeds: tuple[int, str]
    names: Sequence[str]

    def some(self, places: slice) -> "Attacks":
        """Returns the attacks on some of the images."""
        return replace(
            self,
            pixels=self.pixels[places],
            signs={network: sign[places] for network, sign in self.signs.items()},
            names=self.names[places],
        )

    @property
    def transferred(self) -> str:
        """The network whose attack is transferred."""
        return self.plan.transferred

    @property
    def levels(self) -> list[float]:
        """The eps in the scale of pixels in [0, 1], rising."""
        return [RANGES[self.plan.ranges[0]] * eps for eps in self.plan.eps]

    @cached_property
    def normal(self) -> Pixels:
        """A standard normal draw; its size is made that of the transferred attack."""
        seed, name = self.seeds
        generators = [randomness.generator(seed, "carry", name, image) for image in self.names]
        return torch.from_numpy(noise.draw(self.pixels.shape[1:], generators))

    @cached_property
    def _scales(self) -> Tensor:
        """Factors of the noise: its L2 after clipping is the transferred attack's; (n, levels)."""
        sizes = [
            (self.at(TRANSFERRED, eps) - self.pixels).double().flatten(1).norm(dim=1)
            for eps in self.levels
        ]
        return noise.scale_to(self.pixels, self.normal, torch.stack(sizes, dim=1)).float()

    def at(self, kind: str, eps: float, rows: slice = slice(None)) -> Pixels:
        """Returns some images under an attack at an eps of pixels in [0, 1], clipped."""
        clean = self.pixels[rows]
        if kind == TRANSFERRED_NOISE:
            scale = self._scales[rows, self.levels.index(eps)].view(-1, 1, 1, 1)
            return (clean + scale * self.normal[rows]).clamp(0, 1)
        attack, _, control = kind.partition(controlled("", ""))
        names = {OWN_ATTACK: self.own, TRANSFERRED: self.transferred}
        network = names.get(attack) or attack.removeprefix(MADE_ON)
        change = eps * self.signs[network][rows]
        if control:
            seed, name = self.seeds
            generators = [
                randomness.generator(seed, "control", kind, name, image)
                for image in self.names[rows]
            ]
            return noise.beside(control, clean, change, generators)
        return (clean + change).clamp(0, 1)

    @property
    def explained(self) -> list[str]:
        """The attacks whose maps are compared: each made of other pixels than the rest."""
        return [*self._first, TRANSFERRED, TRANSFERRED_NOISE]

    @property
    def controlled(self) -> list[str]:
        """The controls of these attacks, and noise of the size of the target's own."""
        own = [controlled(attack, NOISE) for attack in self._first]
        attacks = [*self._first, TRANSFERRED]
        return own + [controlled(attack, kind) for attack in attacks for kind in self.controls]

    @property
    def _first(self) -> list[str]:
        return [OWN_ATTACK] if self.own not in (None, self.transferred) else []

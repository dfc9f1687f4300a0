"""The settings of each attack."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from camdrift.settings.section import Count, Finite, Positive, Section, Share


class NoneSettings(Section):
    """Of no attack."""


class FgsmSettings(Section):
    """Of the fast gradient sign method."""

    eps: Share
    gains: Count
    target: Annotated[int, Field(ge=0)] | None


class PgdSettings(Section):
    """Of projected gradient descent."""

    eps: Share
    step: Share
    steps: Count
    random_start: bool
    early_stop: bool


class DlfuzzSettings(Section):
    """Of DLFuzz."""

    rivals: Count
    rival_weight: Annotated[float, Field(ge=0)]
    neurons: Annotated[int, Field(ge=0)]
    neuron_weight: Annotated[float, Field(ge=0)]
    strategies: Annotated[list[Literal[0, 1, 2, 3]], Field(min_length=1)]
    threshold: Share
    step: Positive
    iterations: Count
    max_steps: Count
    norm_limit: Positive
    min_gain: Share | None
    tables: Literal["per_seed", "sequential"]
    differs_from: Literal["clean", "parent"]


class OnePixelSettings(Section):
    """Of the one-pixel attack."""

    pixels: Literal[1, 3, 5]
    population: Annotated[int, Field(ge=5)]
    generations: Annotated[int, Field(ge=0)]
    mutation: Annotated[
        list[Annotated[float, Field(ge=0, le=2)]], Field(min_length=2, max_length=2)
    ]
    recombination: Share
    bounds: Annotated[list[Finite], Field(min_length=2, max_length=2)]
    success: Literal["best", "any"]
    target: Annotated[int, Field(ge=0)] | None

    @model_validator(mode="after")
    def _rises(self) -> "OnePixelSettings":
        if self.mutation[0] > self.mutation[1]:
            raise ValueError(f"mutation: wanted a range that does not fall, got {self.mutation}")
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: wanted a range that rises, got {self.bounds}")
        return self


class Descent(Section):
    """An attack by steps: largest change of a pixel value, size and number of the steps."""

    eps: Share
    step: Share
    steps: Count


class Attacks(Section):
    """The settings of each attack, by its file's name in lib/camdrift/attacks."""

    none: NoneSettings | None = None
    fgsm: FgsmSettings | None = None
    pgd: PgdSettings | None = None
    dlfuzz: DlfuzzSettings | None = None
    one_pixel: OnePixelSettings | None = None

    def of(self, attack: str, override: dict[str, Any]) -> dict[str, Any]:
        """Returns an attack's settings: those under `attacks:`, overridden by a cell's own.

        Raises:
            ValidationError: of pydantic, a value that is overridden is not valid.
        """
        common = getattr(self, attack)
        return type(common).model_validate(common.model_dump() | override).model_dump()

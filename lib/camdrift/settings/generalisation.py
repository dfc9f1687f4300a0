"""Networks side by side: attacks made on some, carried to all."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from camdrift.settings.section import Count, Name, Section, Share

RANGES = {"unit": 1.0, "signed": 0.5}  # what eps 1 of a range is in pixels of [0, 1]


class Generalisation(Section):
    """A comparison of networks under attacks that are carried from one to the other."""

    title: str
    carried: str
    label: Literal["given", "predicted"]
    eps: Annotated[list[Share], Field(min_length=2)]
    ranges: Annotated[list[Literal["unit", "signed"]], Field(min_length=1, max_length=2)]
    explains: Literal["given", "own_top1"]
    examples: Count

    @model_validator(mode="after")
    def _rises(self) -> "Generalisation":
        if sorted(set(self.eps)) != self.eps or self.eps[0] == 0:
            raise ValueError(f"wanted eps above 0 that rise, got {self.eps}")
        if len(set(self.ranges)) < len(self.ranges):
            raise ValueError(f"wanted each of ranges once, got {self.ranges}")
        return self


class Source(Section):
    """A model on a set that attacks are made on."""

    generalisation: Name
    set: Name
    model: Name
    network: str


class Target(Source):
    """A model on a set that attacks are carried to."""

    family: Literal["deep", "wide"] | None
    maps: bool

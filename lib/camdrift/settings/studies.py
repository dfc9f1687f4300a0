"""Studies: groups of experiments after one paper, each with a report of its own."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from camdrift.settings.section import Count, Name, Section, Share

RENKHOFF, TAN = "renkhoff2022", "tan2023"
KLAWIKOWSKA, CHAKRABORTY = "klawikowska2020", "chakraborty2022"
ZHANG = "zhang2020"
PAPERS = (RENKHOFF, TAN, KLAWIKOWSKA, CHAKRABORTY, ZHANG)


class _Study(Section):
    title: str


class LayerStudy(_Study):
    """The drift of maps by layer, in the cells whose `study` it is."""

    paper: Literal["renkhoff2022"]
    headline: Name


class ManipulationStudy(_Study):
    """Attacks on maps beside attacks on the class, in the cells whose `study` it is."""

    paper: Literal["zhang2020"]
    headline: Name


class DetectorStudy(_Study):
    """Detectors of attacks, in the cells whose `evaluation` it is."""

    paper: Literal["tan2023"]
    headline: Name


class SignatureStudy(_Study):
    """Signatures of attacked images, and models retrained on such images."""

    paper: Literal["klawikowska2020"]
    retraining: Name


class TransferStudy(_Study):
    """A comparison of networks under attacks that are transferred from one to another."""

    paper: Literal["chakraborty2022"]
    transferred: str
    label: Literal["given", "predicted"] = "given"
    eps: Annotated[list[Share], Field(min_length=2)] = [0.01, 0.05, 0.075, 0.1]
    ranges: Annotated[list[Literal["unit", "signed"]], Field(min_length=1, max_length=2)] = [
        "unit",
        "signed",
    ]
    explains: Literal["given", "own_top1"] = "given"
    examples: Count = 6

    @model_validator(mode="after")
    def _rises(self) -> "TransferStudy":
        if sorted(set(self.eps)) != self.eps or self.eps[0] == 0:
            raise ValueError(f"wanted eps above 0 that rise, got {self.eps}")
        if len(set(self.ranges)) < len(self.ranges):
            raise ValueError(f"wanted each of ranges once, got {self.ranges}")
        return self


Study = Annotated[
    LayerStudy | DetectorStudy | SignatureStudy | TransferStudy | ManipulationStudy,
    Field(discriminator="paper"),
]


# The papers of the studies to which the items of a section belong.
OWNERS = {
    "cells": (RENKHOFF, ZHANG),
    "retrainings": (KLAWIKOWSKA,),
    "sources": (CHAKRABORTY,),
    "targets": (CHAKRABORTY,),
}
# By paper: the key under which a study names one of its own, the section of that one, and the key
# there which names the study.
NAMED = {
    RENKHOFF: ("headline", "cells", "study"),
    ZHANG: ("headline", "cells", "study"),
    TAN: ("headline", "cells", "evaluation"),
    KLAWIKOWSKA: ("retraining", "retrainings", "study"),
}


def owners(item: Section) -> set[str]:
    """Returns the studies to which an item of another section, such as a cell, belongs."""
    return {getattr(item, key) for key in ("study", "evaluation") if hasattr(item, key)}

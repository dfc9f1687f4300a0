"""The whole of params.yaml: its keys, and the references between its parts."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from camdrift.settings.cells import (
    CamSettings,
    Cell,
    CoverageSettings,
    FlagSettings,
    NoiseSettings,
    Protocol,
    ScoreSettings,
    StatisticsSettings,
    Study,
)
from camdrift.settings.detection import DetectionSettings
from camdrift.settings.generalisation import Generalisation, Source, Target, generalisation_faults
from camdrift.settings.hardening import HARDENED, Hardening, hardened
from camdrift.settings.models import ModelSettings
from camdrift.settings.section import Name, Section, lines_of
from camdrift.settings.sets import ImageSetSettings


class Settings(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    micro_batch: Annotated[int, Field(ge=1, le=4096)]
    precision: Literal["float32", "tf32", "bfloat16"]
    sets: dict[Name, ImageSetSettings]
    models: dict[Name, ModelSettings]
    attacks: dict[Name, dict[str, Any]]
    noise: NoiseSettings
    protocols: dict[Name, dict[str, Any]]
    cams: CamSettings
    scores: ScoreSettings
    coverage: CoverageSettings
    detection: DetectionSettings
    statistics: StatisticsSettings
    flags: FlagSettings
    studies: dict[Name, Study]
    cells: dict[Name, Cell]
    hardenings: dict[Name, Hardening]
    generalisations: dict[Name, Generalisation]
    sources: dict[Name, Source]
    targets: dict[Name, Target]

    @field_validator("protocols")
    @classmethod
    def _has_all_switches(cls, content: dict[str, Any]) -> dict[str, Any]:
        if "corrected" not in content:
            raise ValueError("wanted a protocol 'corrected', from which the others differ")
        faults = []
        for name, own in content.items():
            try:
                Protocol.model_validate(content["corrected"] | own)
            except ValidationError as fault:
                faults += lines_of(fault, name)
        if faults:
            raise ValueError("\n".join(faults))
        return content

    @model_validator(mode="after")
    def _refers(self) -> "Settings":
        faults = _references(self)
        if faults:
            raise ValueError("\n".join(faults))
        return self


def _references(plan: Settings) -> list[str]:
    """Returns a line for each name that refers to nothing and each group that is inconsistent."""
    faults = []

    def known(place: str, kind: str, name: str, names: Any) -> None:
        if name not in names:
            there = ", ".join(sorted(names)) or "none"
            faults.append(f"{place}: no {kind} '{name}' in params.yaml; there are: {there}")

    models = dict(plan.models)
    for key, hardening in plan.hardenings.items():
        if hardening.model in plan.models:
            models |= {hardened(key, kind): plan.models[hardening.model] for kind in HARDENED}
    for name, model in plan.models.items():
        known(f"models.{name}.set", "set", model.set, plan.sets)
        if name in {hardened(key, kind) for key in plan.hardenings for kind in HARDENED}:
            faults.append(f"models.{name}: a hardening makes a model of this name, take another")
    for name, cell in plan.cells.items():
        place = f"cells.{name}"
        known(f"{place}.study", "study", cell.study, plan.studies)
        known(f"{place}.set", "set", cell.set, plan.sets)
        for role in ("model", "source"):
            known(f"{place}.{role}", "model", getattr(cell, role), models)
        for protocol in cell.protocols:
            known(f"{place}.protocols", "protocol", protocol, plan.protocols)
        known(f"{place}.attack", "attack", cell.attack, plan.attacks)
    for name, hardening in plan.hardenings.items():
        place = f"hardenings.{name}"
        known(f"{place}.set", "set", hardening.set, plan.sets)
        known(f"{place}.model", "model", hardening.model, plan.models)
        if name in plan.studies:
            faults.append(f"{place}: a study has this name, and both own data/results/{name}")
    for name, study in plan.studies.items():
        members = [key for key, cell in plan.cells.items() if cell.study == name]
        known(f"studies.{name}.headline", "cell", study.headline, members)
    others = {*plan.studies, *plan.hardenings}
    groups = plan.generalisations, plan.sources, plan.targets
    return faults + generalisation_faults(*groups, sets=plan.sets, models=models, others=others)

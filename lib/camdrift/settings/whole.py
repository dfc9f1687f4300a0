"""The whole of params.yaml: its keys, and the references between its parts."""

from typing import Annotated, Any, Literal, TypeVar

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
    in_attack,
    in_set,
)
from camdrift.settings.detection import DetectionSettings
from camdrift.settings.models import ModelSettings
from camdrift.settings.retrainings import RETRAINED, Retraining, SignatureSettings, retrained_model
from camdrift.settings.section import Name, Section, lines_of, nearest
from camdrift.settings.sets import ImageSetSettings
from camdrift.settings.studies import (
    NAMED,
    OWNERS,
    TAN,
    DetectorStudy,
    Study,
    TransferStudy,
)
from camdrift.settings.transfers import Source, Target, transfer_faults

Kind = TypeVar("Kind", bound=Section)


class Settings(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    micro_batch: Annotated[int, Field(ge=1, le=4096)]
    precision: Literal["float32", "tf32", "bfloat16"]
    training_threads: Annotated[int, Field(ge=1, le=256)] | None
    sets: dict[Name, ImageSetSettings]
    models: dict[Name, ModelSettings]
    attacks: dict[Name, dict[str, Any]]
    noise: NoiseSettings
    protocols: dict[Name, dict[str, Any]]
    cams: CamSettings
    scores: ScoreSettings
    coverage: CoverageSettings
    detection: DetectionSettings
    signatures: SignatureSettings
    statistics: StatisticsSettings
    flags: FlagSettings
    studies: dict[Name, Study]
    cells: dict[Name, Cell]
    retrainings: dict[Name, Retraining]
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

    def study(self, name: str, kind: type[Kind]) -> Kind:
        """Returns the settings of a study, which is of a kind."""
        study = self.studies[name]
        assert isinstance(study, kind)
        return study

    def sources_on(self, study: str, image_set: str) -> dict[str, Source]:
        """Returns the networks on one of a study's sets on which attacks are computed."""
        every, place = self.sources.items(), (study, image_set)
        return {key: source for key, source in every if (source.study, source.set) == place}

    @model_validator(mode="after")
    def _refers(self) -> "Settings":
        faults = _references(self)
        if faults:
            raise ValueError("\n".join(faults))
        return self


# Folders of data/results that are no studies, and a file that only studies have.
RESERVED = {
    "studies": {"benchmarks", "models", "screenshots", "seeds", "sets"},
    "sets": {"settings"},
    "models": {"settings"},
}


def _references(plan: Settings) -> list[str]:
    """Returns a line for each name that refers to nothing and each group that is inconsistent."""
    faults = []

    def known(place: str, kind: str, name: str, names: Any) -> None:
        if name not in names:
            there = ", ".join(sorted(names)) or "none"
            near = nearest(name, names)
            faults.append(f"{place}: no {kind} '{name}' in params.yaml{near}; there are: {there}")

    def reports(place: str, study: str, *papers: str, reason: str = "") -> None:
        known(place, "study", study, plan.studies)
        if study in plan.studies and (paper := plan.studies[study].paper) not in papers:
            choice = " or ".join(papers)
            faults.append(
                f"{place}: wanted a study of paper {choice}{reason}, got '{study}' of {paper}"
            )

    for part, names in RESERVED.items():
        for name in names & getattr(plan, part).keys():
            faults.append(f"{part}.{name}: wanted another name, since camdrift uses this one")
    models = dict(plan.models)
    for key, retraining in plan.retrainings.items():
        if retraining.model in plan.models:
            models |= {
                retrained_model(key, kind): plan.models[retraining.model] for kind in RETRAINED
            }
    for name, model in plan.models.items():
        known(f"models.{name}.set", "set", model.set, plan.sets)
        if name in {retrained_model(key, kind) for key in plan.retrainings for kind in RETRAINED}:
            faults.append(f"models.{name}: a retraining makes a model of this name, take another")
    for part, papers in OWNERS.items():
        for name, item in getattr(plan, part).items():
            place = f"{part}.{name}"
            reports(f"{place}.study", item.study, *papers)
            known(f"{place}.set", "set", item.set, plan.sets)
            there = plan.models if part == "retrainings" else models
            known(f"{place}.model", "model", item.model, there)
    for name, cell in plan.cells.items():
        place = f"cells.{name}"
        known(f"{place}.source", "model", cell.source, models)
        for protocol in cell.protocols:
            known(f"{place}.protocols", "protocol", protocol, plan.protocols)
        known(f"{place}.attack", "attack", cell.attack, plan.attacks)
        faults += _limit_faults(plan, name)
        if cell.detect:
            reason = ", since the cell has strengths under `detect`"
            reports(f"{place}.evaluation", cell.evaluation, TAN, reason=reason)
        elif cell.evaluation != cell.study:
            reason = f", or the cell's own, '{cell.study}'"
            reports(f"{place}.evaluation", cell.evaluation, TAN, reason=reason)
    for name, study in plan.studies.items():
        if study.paper in NAMED:
            key, part, owner = NAMED[study.paper]
            mine = [k for k, item in getattr(plan, part).items() if getattr(item, owner) == name]
            known(f"studies.{name}.{key}", part.removesuffix("s"), getattr(study, key), mine)
        blind = {key for key, cell in plan.cells.items() if not cell.detect}
        if isinstance(study, DetectorStudy) and study.headline in blind:
            faults.append(f"studies.{name}.headline: wanted a cell with `detect`, got one without")
    transfers = {k: study for k, study in plan.studies.items() if isinstance(study, TransferStudy)}
    ends = plan.sources, plan.targets
    faults += _channel_faults(plan)
    return faults + transfer_faults(transfers, *ends, sets=plan.sets, models=models)


def _limit_faults(plan: Settings, name: str) -> list[str]:
    """Returns a line if nothing is there within whose size the attack of a cell could stay."""
    cell = plan.cells[name]
    own = in_set(cell.set)
    choices = [
        in_attack(other.study, key)
        for key, other in plan.cells.items()
        if key != name and (other.set, other.within) == (cell.set, own)
    ]
    if cell.within in (own, *choices):
        return _number_faults(plan, name)
    return [
        f"cells.{name}.within: wanted {own}, for an attack that no other limits, or the attack of "
        f"a cell on the same set ({', '.join(choices) or 'there is none'}), got '{cell.within}'"
    ]


def _number_faults(plan: Settings, name: str) -> list[str]:
    """Returns a line if a cell attacks images that the one within whose size it is does not."""
    cell = plan.cells[name]
    most = plan.cells[cell.limiting].images if cell.limiting else None
    if most is None or (cell.images is not None and cell.images <= most):
        return []
    return [
        f"cells.{name}.images: wanted at most {most}, as many as cells.{cell.limiting} attacks, "
        f"got {cell.images or 'none, which means all test images'}"
    ]


def _channel_faults(plan: Settings) -> list[str]:
    """Returns a line for each model that meets images of other channels than it is for.

    Sets and models that are not there are left out, as other lines name them.
    """
    models = {name: model for name, model in plan.models.items() if model.set in plan.sets}
    faults = []
    for name, model in models.items():
        count = plan.sets[model.set].channels
        if model.channels != count:
            faults.append(
                f"models.{name}.mean: wanted a number for each channel of sets.{model.set}, "
                f"{count}, got {model.mean}; write mean: {[0.5] * count} and std: {[0.25] * count}"
            )
    for key, retraining in plan.retrainings.items():
        if base := models.get(retraining.model):
            models |= {retrained_model(key, kind): base for kind in RETRAINED}
    for part in OWNERS:
        for name, item in getattr(plan, part).items():
            for role in ("model", "source"):
                met = models.get(getattr(item, role, ""))
                if met is None or item.set not in plan.sets:
                    continue
                own, other = (plan.sets[key].channels for key in (item.set, met.set))
                if own != other:
                    faults.append(
                        f"{part}.{name}.{role}: wanted a model of a set with `channels: {own}`, "
                        f"as sets.{item.set}, got one of sets.{met.set} with {other}"
                    )
    return faults

"""Networks side by side: attacks made on some, transferred to all."""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from camdrift.settings.models import ModelSettings
from camdrift.settings.section import Count, Name, Section, Share
from camdrift.settings.sets import ImageSetSettings

RANGES = {"unit": 1.0, "signed": 0.5}  # what eps 1 of a range is in pixels of [0, 1]
MEAN = "mean"  # of all networks, where tables name a network


class Generalisation(Section):
    """A comparison of networks under attacks that are transferred from one to the other."""

    title: str
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
    """A model on a set that attacks are transferred to."""

    family: Literal["deep", "wide"] | None = None
    maps: bool = True


def generalisation_faults(
    generalisations: Mapping[str, Generalisation],
    sources: Mapping[str, Source],
    targets: Mapping[str, Target],
    *,
    sets: Mapping[str, ImageSetSettings],
    models: Mapping[str, ModelSettings],
    taken: Collection[str],
) -> list[str]:
    """Returns a line for each fault of generalisations, their sources and their targets.

    Args:
        generalisations: by name.
        sources: by name.
        targets: by name.
        sets: by name.
        models: by name, those that hardenings make as the one that they are made from.
        taken: names of other groups with results of their own.
    """
    faults = []
    ends = {f"sources.{key}": end for key, end in sources.items()}
    ends |= {f"targets.{key}": end for key, end in targets.items()}
    for place, end in ends.items():
        for kind, key, names in (
            ("generalisation", end.generalisation, generalisations),
            ("set", end.set, sets),
            ("model", end.model, models),
        ):
            if key not in names:
                there = ", ".join(sorted(names)) or "none"
                faults.append(
                    f"{place}.{kind}: no {kind} '{key}' in params.yaml; there are: {there}"
                )
    for name, chosen in generalisations.items():
        own = {place: end for place, end in ends.items() if end.generalisation == name}
        made_on = [(s.set, s.network) for s in sources.values() if s.generalisation == name]
        tried = {key: t for key, t in targets.items() if t.generalisation == name}
        if name in taken:
            faults.append(
                f"generalisations.{name}: another group has this name, and both own "
                f"data/results/{name}"
            )
        faults += _named_alike(own, made_on, [(t.set, t.network) for t in tried.values()])
        faults += _trained(own, models)
        faults += _arms(name, chosen, made_on, tried, sets)
        faults += _one_network(name, tried, sets, models)
    return faults


def _named_alike(
    ends: dict[str, Source], made_on: list[tuple[str, str]], tried: list[tuple[str, str]]
) -> list[str]:
    """Returns faults of names: on a set, a network is one model and a model one network."""
    faults = []
    for group, pairs in (("sources", made_on), ("targets", tried)):
        twice = sorted({pair for pair in pairs if pairs.count(pair) > 1})
        faults += [f"{group}: network '{n}' stands twice on set '{s}'" for s, n in twice]
    model_of: dict[tuple[str, str], str] = {}
    network_of: dict[tuple[str, str], str] = {}
    for place, end in ends.items():
        if end.network == MEAN:
            faults.append(f"{place}.network: '{MEAN}' stands for all networks, take another name")
        model = model_of.setdefault((end.set, end.network), end.model)
        network = network_of.setdefault((end.set, end.model), end.network)
        if model != end.model:
            faults.append(
                f"{place}.model: network '{end.network}' is model '{model}' elsewhere on set "
                f"'{end.set}', got '{end.model}'"
            )
        elif network != end.network:
            faults.append(
                f"{place}.network: model '{end.model}' is network '{network}' elsewhere on set "
                f"'{end.set}', got '{end.network}'"
            )
    return faults


def _arms(
    name: str,
    chosen: Generalisation,
    made_on: list[tuple[str, str]],
    tried: dict[str, Target],
    sets: Mapping[str, ImageSetSettings],
) -> list[str]:
    """Returns faults of what is compared: on all sets of an arm the same is tried."""
    place = f"generalisations.{name}"
    used = sorted({target.set for target in tried.values() if target.set in sets})
    bare = [key for key in used if sets[key].preprocessing is None]
    preprocessed = [key for key in used if key not in bare]
    faults = []
    if not bare:
        faults.append(f"{place}: wanted targets on a set without preprocessing, got none")
    faults += [
        f"targets.{key}.maps: wanted true on a set without preprocessing, got false"
        for key, target in tried.items()
        if target.set in bare and not target.maps
    ]
    faults += [
        f"{place}.transferred: no source '{chosen.transferred}' on set '{key}'"
        for key in used
        if (key, chosen.transferred) not in made_on
    ]
    aims = [(target.set, target.network) for target in tried.values()]
    for kind, pairs in (("target", aims), ("source", made_on)):
        for arm in (bare, preprocessed):
            networks = sorted({network for key, network in pairs if key in arm})
            faults += [
                f"{place}: wanted {kind} '{network}' on set '{key}', as on others of its kind"
                for key in arm
                for network in networks
                if (key, network) not in pairs
            ]
    lost = sorted(
        {n for key, n in aims if key in preprocessed} - {n for key, n in aims if key in bare}
    )
    faults += [f"{place}: no target '{n}' on a set without preprocessing" for n in lost]
    for key in used:
        alike = [k for k in used if _images(sets[k]) == _images(sets[key])]
        arms = [(k in bare) for k in alike]
        if arms.count(key in bare) > 1:
            faults.append(f"sets.{key}: {place} has its images twice: {', '.join(alike)}")
        elif preprocessed and len(alike) < 2:
            faults.append(
                f"sets.{key}: wanted a set that differs from it in `preprocessing` alone, since "
                f"{place} pairs its results image by image, got none"
            )
    return faults


def _trained(ends: dict[str, Source], models: Mapping[str, ModelSettings]) -> list[str]:
    """Returns faults of models on other sets than theirs, whose test images they may have seen."""
    return [
        f"{place}.set: model '{end.model}' is trained on '{models[end.model].set}', whose training "
        f"images may be tested on '{end.set}'"
        for place, end in ends.items()
        if end.model in models
        and models[end.model].training is not None
        and models[end.model].set != end.set
    ]


def _one_network(
    name: str,
    tried: dict[str, Target],
    sets: Mapping[str, ImageSetSettings],
    models: Mapping[str, ModelSettings],
) -> list[str]:
    """Returns faults of networks that are not the same on all sets of an arm."""
    faults = []
    first: dict[tuple[str, bool], tuple[str, dict]] = {}
    for key, target in tried.items():
        if target.set not in sets or target.model not in models:
            continue
        made_of = {"architecture", "width", "head", "size"}
        facts = models[target.model].model_dump(include=made_of)
        facts |= {"family": target.family, "maps": target.maps}
        arm = sets[target.set].preprocessing is None
        known, wanted = first.setdefault((target.network, arm), (key, facts))
        faults += [
            f"targets.{key}: wanted {fact} {wanted[fact]} as of targets.{known}, which is network "
            f"'{target.network}' in generalisation '{name}', too, got {facts[fact]}"
            for fact in facts
            if facts[fact] != wanted[fact]
        ]
    return faults


def _images(chosen: ImageSetSettings) -> dict:
    """Returns what decides which images a set has, before they are preprocessed."""
    return chosen.model_dump(exclude={"preprocessing", "licence"})

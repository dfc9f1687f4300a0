"""The networks that are attacked, and those to which the attacks are transferred."""

from collections.abc import Mapping
from typing import Literal

from camdrift.settings.models import ModelSettings
from camdrift.settings.section import Name, Section
from camdrift.settings.sets import ImageSetSettings
from camdrift.settings.studies import TransferStudy

RANGES = {"unit": 1.0, "signed": 0.5}  # eps 1 of each range, in pixel values in [0, 1]
MEAN = "mean"  # stands for all networks in the tables' column of networks


class Source(Section):
    """A model and its set, on which attacks are computed."""

    study: Name
    set: Name
    model: Name
    network: str


class Target(Source):
    """A model and its set, to which attacks are transferred."""

    family: Literal["deep", "wide"] | None = None
    maps: bool = True


def transfer_faults(
    studies: Mapping[str, TransferStudy],
    sources: Mapping[str, Source],
    targets: Mapping[str, Target],
    *,
    sets: Mapping[str, ImageSetSettings],
    models: Mapping[str, ModelSettings],
) -> list[str]:
    """Returns a line for each fault in studies of transfer, their sources and their targets.

    Args:
        studies: by name.
        sources: by name.
        targets: by name.
        sets: by name.
        models: by name; a retrained model stands under its own name with its baseline's settings.
    """
    faults = []
    ends = {f"sources.{key}": end for key, end in sources.items()}
    ends |= {f"targets.{key}": end for key, end in targets.items()}
    for name, study in studies.items():
        own = {place: end for place, end in ends.items() if end.study == name}
        source_pairs = [(s.set, s.network) for s in sources.values() if s.study == name]
        own_targets = {key: t for key, t in targets.items() if t.study == name}
        faults += _name_faults(
            own, source_pairs, [(t.set, t.network) for t in own_targets.values()]
        )
        faults += _on_other_sets(own, models)
        faults += _arm_faults(name, study, source_pairs, own_targets, sets)
        faults += _network_faults(name, own_targets, sets, models)
    return faults


def _name_faults(
    ends: dict[str, Source], sources: list[tuple[str, str]], targets: list[tuple[str, str]]
) -> list[str]:
    """Returns faults in names: on one set, each network is one model and each model one network."""
    faults = []
    for group, pairs in (("sources", sources), ("targets", targets)):
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


def _arm_faults(
    name: str,
    study: TransferStudy,
    source_pairs: list[tuple[str, str]],
    targets: dict[str, Target],
    sets: Mapping[str, ImageSetSettings],
) -> list[str]:
    """Returns faults in the comparison: all sets of an arm need the same sources and targets."""
    place = f"studies.{name}"
    used = sorted({target.set for target in targets.values() if target.set in sets})
    bare = [key for key in used if sets[key].preprocessing is None]
    preprocessed = [key for key in used if key not in bare]
    faults = []
    if not bare:
        faults.append(f"{place}: wanted targets on a set without preprocessing, got none")
    faults += [
        f"targets.{key}.maps: wanted true on a set without preprocessing, got false"
        for key, target in targets.items()
        if target.set in bare and not target.maps
    ]
    faults += [
        f"{place}.transferred: no source '{study.transferred}' on set '{key}'"
        for key in used
        if (key, study.transferred) not in source_pairs
    ]
    target_pairs = [(target.set, target.network) for target in targets.values()]
    for kind, pairs in (("target", target_pairs), ("source", source_pairs)):
        for arm in (bare, preprocessed):
            networks = sorted({network for key, network in pairs if key in arm})
            faults += [
                f"{place}: wanted {kind} '{network}' on set '{key}', as on others of its kind"
                for key in arm
                for network in networks
                if (key, network) not in pairs
            ]
    missing = sorted(
        {n for key, n in target_pairs if key in preprocessed}
        - {n for key, n in target_pairs if key in bare}
    )
    faults += [f"{place}: no target '{n}' on a set without preprocessing" for n in missing]
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


def _on_other_sets(ends: dict[str, Source], models: Mapping[str, ModelSettings]) -> list[str]:
    """Returns faults of models on a set that may test the images they were trained on."""
    return [
        f"{place}.set: model '{end.model}' is trained on '{models[end.model].set}', whose training "
        f"images may be tested on '{end.set}'"
        for place, end in ends.items()
        if end.model in models
        and models[end.model].training is not None
        and models[end.model].set != end.set
    ]


def _network_faults(
    name: str,
    targets: dict[str, Target],
    sets: Mapping[str, ImageSetSettings],
    models: Mapping[str, ModelSettings],
) -> list[str]:
    """Returns faults of networks that differ between the sets of an arm."""
    faults = []
    first: dict[tuple[str, bool], tuple[str, dict]] = {}
    for key, target in targets.items():
        if target.set not in sets or target.model not in models:
            continue
        keys = {"architecture", "width", "head", "arguments", "size"}
        facts = models[target.model].model_dump(include=keys)
        facts |= {"family": target.family, "maps": target.maps}
        arm = sets[target.set].preprocessing is None
        reference, expected = first.setdefault((target.network, arm), (key, facts))
        faults += [
            f"targets.{key}: wanted {fact} {expected[fact]} as of targets.{reference}, which is "
            f"network '{target.network}' in study '{name}', too, got {facts[fact]}"
            for fact in facts
            if facts[fact] != expected[fact]
        ]
    return faults


def _images(settings: ImageSetSettings) -> dict:
    """Returns the settings that decide which images a set has, before they are preprocessed."""
    return settings.model_dump(exclude={"preprocessing", "licence"})

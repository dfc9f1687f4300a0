"""Loading: the weights of models, read or trained, and models ready to call."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from camdrift import storage
from camdrift.datasets import chance
from camdrift.models import (
    architectures,
    checks,
    copies,
    devices,
    fitting,
    hook_points,
    training,
    weights,
)
from camdrift.models.architectures import RefusedError
from camdrift.models.calls import UnwatchableError
from camdrift.models.logits import class_logits
from camdrift.models.model import Model
from camdrift.pipeline import processor, randomness
from camdrift.settings import Descent, ModelSettings, Training, imports, params
from camdrift.settings.section import sides
from camdrift.storage import Weights

Split = Callable[[str], tuple[Tensor, Tensor]]  # 'train' -> its pixels and labels


def obtain(
    settings: ModelSettings,
    *,
    size: int | Sequence[int],
    labels: Any,
    split: Split,
    seed: int,
    name: str,
    threads: int | None = None,
) -> Weights:
    """Returns the weights of a model: loaded, trained, or loaded and trained further.

    Args:
        settings: the model's settings.
        size: of the set's images in px, a side, or height and width, and of the input unless the
            settings name another.
        labels: of all images of the set.
        split: returns pixels and labels of 'train', 'validation' or 'test'.
        seed: of the initial weights and the batches.
        name: of the model, part of the seed.
        threads: of training, where it is to give the same weights on all processors.

    Raises:
        RefusedError: the weights are not available or do not fit; the network cannot be built.
        UnwatchableError: its forward cannot be watched, or it has no hook point.
        UnsoundError: its logits are not finite, or depend on more than one image.
    """
    classes = settings.classes or int(max(labels)) + 1
    if int(max(labels)) >= classes:
        raise RefusedError(
            f"models.{name}.classes: wanted more than {int(max(labels))}, the largest class number "
            f"of the set, got {classes}"
        )
    facts = settings.model_dump(include={"architecture", "width", "head", "mean", "std"})
    facts |= {"classes": classes, "size": settings.size or size}
    if settings.arguments:
        facts["arguments"] = dict(settings.arguments)
    if architectures.is_own(settings.architecture):
        facts |= _source(settings.architecture, name)
    torch.manual_seed(randomness.entropy(seed, "weights", name))  # torch has no local way to init
    network = _network(facts, initialised=settings.weights is None or settings.new_head)
    if settings.weights is not None:
        facts |= _weigh(network, facts, settings, name)
    return _train(network, facts, settings.training, split, seed=seed, name=name, threads=threads)


def _weigh(
    network: nn.Module, facts: dict[str, Any], settings: ModelSettings, name: str
) -> dict[str, Any]:
    """Gives a network the weights that its settings name, and returns facts on them.

    Raises:
        RefusedError: the weights are not available, or do not fit.
    """
    place = f"models.{name}"
    try:
        state = weights.read(settings, network.state_dict())
        fitting.load(
            network, state, facts, partial(_network, initialised=False), place=place,
            image_set=settings.set, own_head=settings.new_head,
        )  # fmt: skip
    except RefusedError as fault:
        raise RefusedError(f"{place}.weights: {fault}") from fault
    if not settings.is_file or settings.sha256 is not None:
        return {}
    digest = weights.checksum(settings)
    tqdm.write(
        f"{place}: without its sha256, a change of {settings.weights} is not noticed; the line "
        f"that names the file as it is:\n    sha256: {digest}"
    )
    return {"sha256": digest}


def _source(architecture: str, name: str) -> dict[str, str]:
    """Returns the fact that tells a version of the user's module from another, if any does.

    Later stages import the module, and depend on the artefact with this fact alone.
    """
    digest = imports.digest(architecture)
    if digest is None:
        tqdm.write(
            f"models.{name}: the module of '{architecture}' is not in {imports.OWN}, so that an "
            f"edit of it is not noticed; after one, run `dvc repro -f train@{name}`"
        )
        return {}
    return {"source": digest}


def retrained(
    base: Weights,
    settings: Training,
    split: Split,
    *,
    seed: int,
    name: str,
    threads: int | None = None,
    adversary: Descent | None = None,
) -> Weights:
    """Returns the weights of a model trained further from those of another.

    Args:
        base: the other model's weights.
        settings: the settings of training.
        split: returns pixels and labels of 'train', 'validation' or 'test'.
        seed: of the batches.
        name: of the new model, part of the seed.
        threads: of training, where it is to give the same weights on all processors.
        adversary: settings of the attack of adversarial training.
    """
    network = _network(base.facts, initialised=False)
    # Cloned, because training writes into the weights that it starts from.
    own = {key: value.clone() for key, value in base.state.items()}
    network.load_state_dict(own, assign=True)
    facts = {key: base.facts[key] for key in FACTS if key in base.facts}
    return _train(
        network, facts, settings, split, seed=seed, name=name, threads=threads, adversary=adversary
    )


# That define a network, and a model.
NETWORK = ("architecture", "width", "head", "arguments", "classes", "size")
FACTS = (*NETWORK, "mean", "std", "source")


@devices.exactly()
def _train(
    network: nn.Module,
    facts: dict[str, Any],
    settings: Training | None,
    split: Split,
    *,
    seed: int,
    name: str,
    threads: int | None,
    adversary: Descent | None = None,
) -> Weights:
    preparation: dict[str, Any] = {key: facts[key] for key in ("mean", "std", "size")}
    curve: list[dict] = []
    _refuse_lost(network, facts)
    if settings is not None:
        images = split("train")
        _refuse_early(network, images[0], facts)
        splits = [[each.numpy() for each in own] for own in (images, split("validation"))]
        limited = threads if devices.current().type == "cpu" else None
        curve, state = processor.alike(
            limited, _trained, facts, _arrays(network), *splits, settings, adversary, seed, name
        )
        network.load_state_dict(_tensors(state), assign=True)
        network.to(devices.current())
        weights.refuse_infinite(network.state_dict(), f"models.{name}, trained")
    model, tests = Model(network, **preparation, micro_batch=1), split("test")
    _refuse(network, model, tests[0], facts)
    accuracy = training.accuracy(network, *tests, **preparation)
    facts = facts | {
        "layers": [{"name": point.name, "label": point.label} for point in model.maps],
        "own_output": [
            point.label for point in model.maps if not point.rectified and point.grid is None
        ],
        "left_out": hook_points.left_out(network, model.watched.calls),
        "test_accuracy": round(accuracy, 4),
        "chance": round(chance.level(tests[1].numpy()), 4),
    }
    warning = chance.warning(round(accuracy * len(tests[1])), tests[1].numpy())
    if warning:
        tqdm.write(f"models.{name}: {warning}")
    # Rounded, because the card is published: the last digits change from machine to machine.
    table = pd.DataFrame(curve, columns=["epoch", "loss", "validation_accuracy"]).round(3)
    return Weights(
        {name: value.cpu() for name, value in network.state_dict().items()}, facts, table
    )


Arrays = dict[str, np.ndarray]  # tensors of a state dict by name


def _trained(
    facts: dict[str, Any],
    start: Arrays,
    images: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    settings: Training,
    adversary: Descent | None,
    seed: int,
    name: str,
) -> tuple[list[dict], Arrays]:
    """Returns the curve of a network's training, and its weights; see `training.train`.

    `images` and `validation` are pixels and labels.
    """
    network = _network(facts, initialised=False)
    network.load_state_dict(_tensors(start), assign=True)
    # Layers that draw, as dropout, have no other generator than torch's own.
    torch.manual_seed(randomness.entropy(seed, "dropout", name))
    curve = training.train(
        network,
        _pair(images),
        _pair(validation),
        **{key: facts[key] for key in ("mean", "std", "size")},
        **settings.model_dump(),
        seed=randomness.entropy(seed, "batches", name),
        adversary=training.adversary(adversary) if adversary else None,
        progress=lambda epochs: tqdm(epochs, desc=f"training {name}", unit="epoch"),
    )
    return curve, _arrays(network)


def _pair(arrays: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    pixels, labels = map(torch.from_numpy, arrays)
    return pixels, labels


def _arrays(network: nn.Module) -> Arrays:
    return {name: value.cpu().numpy() for name, value in network.state_dict().items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    """Returns tensors of their own memory, since training writes into them."""
    return {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}


def _refuse_early(network: nn.Module, pixels: Tensor, facts: dict[str, Any]) -> None:
    """Refuses an unsound network before training, which may take hours, instead of after it."""
    try:
        clone = copies.frozen(network)
    except UnwatchableError:
        return  # it can be trained and explained, but not copied
    model = Model(clone, **{key: facts[key] for key in ("mean", "std", "size")}, micro_batch=1)
    checks.refuse_dependence(
        lambda images: class_logits(model.network(model.inputs(images))),
        pixels,
        classes=facts["classes"],
        finite=False,
    )


def _refuse_lost(network: nn.Module, facts: dict[str, Any]) -> None:
    """Refuses a network whose logits depend on more than its state dict holds.

    Later stages build the network again and load its state dict.

    Raises:
        UnsoundError: the rebuilt network does not run, or returns other logits.
    """
    shape = len(facts["mean"]), *sides(facts["size"])
    images = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        again = _network(facts, initialised=False)
        # Cloned, because training writes into the weights that it starts from.
        state = {key: value.detach().clone() for key, value in network.state_dict().items()}
        again.load_state_dict(state, assign=True)
        own = network(images)
        try:
            other = again.eval()(images)
        except Exception as fault:  # a network's forward may raise anything
            raise checks.UnsoundError(
                f"{facts['architecture']}, built anew and given the weights of its state dict, "
                f"does not run: {imports.message(fault)}"
            ) from fault
        if not bool(own.isfinite().all()) or not checks.differ(own, other):
            return
        if not checks.differ(own, network(images)):  # else it is random, and refused later
            raise checks.UnsoundError(
                f"{facts['architecture']}, built anew and given the weights of its state dict, "
                "gives other logits: something in it is drawn when it is built and is in no state "
                "dict; wanted a parameter or a buffer in its place"
            )


def _refuse(network: nn.Module, model: Model, pixels: Tensor, facts: dict[str, Any]) -> None:
    """Raises UnsoundError where a network, or its watched copy, is not sound."""
    checks.refuse_dependence(
        lambda images: class_logits(network(model.inputs(images))), pixels, classes=facts["classes"]
    )
    few = model.inputs(pixels[:2])
    with torch.no_grad():
        own = network(few)
        recording = model.watched.recording
        checks.refuse_other_logits(own, model.network(few), lambda: network(few), recording)


def _network(facts: dict[str, Any], *, initialised: bool) -> nn.Module:
    own = {key: facts[key] for key in NETWORK if key in facts}
    return architectures.build(**own, channels=len(facts["mean"]), initialised=initialised)


def stored(name: str) -> Weights:
    """Returns the weights of a model of the study, as its stage wrote them.

    Raises:
        RefusedError: they name the user's own function, and params.yaml does not: data, which may
            be from elsewhere, must not decide which code runs.
    """
    artefact = storage.read(Weights, storage.model_folder(name))
    architecture = artefact.facts["architecture"]
    if architectures.is_own(architecture):
        known = {model.architecture for model in params.load().models.values()}
        if architecture not in known:
            raise RefusedError(
                f"{storage.model_folder(name)} is of '{architecture}', which would be imported, "
                "and no model in params.yaml names it"
            )
    return artefact


def load(name: str, *, micro_batch: int, precision: devices.Precision = "float32") -> Model:
    """Returns a model of the study, ready to explain; raises as `stored` does.

    A process keeps the last few models: shard after shard needs the same ones.
    """
    devices.hold(precision)  # for a kept model, too
    content = storage.digest(storage.model_folder(name))
    return _held(name, micro_batch, precision, devices.current(), content)


@lru_cache(maxsize=4)
def _held(
    name: str, micro_batch: int, precision: devices.Precision, device: torch.device, content: str
) -> Model:
    return ready(stored(name), micro_batch=micro_batch, precision=precision)


def ready(weights: Weights, *, micro_batch: int, precision: devices.Precision = "float32") -> Model:
    """Returns the model of some weights on its device, ready to explain.

    Sets the precision for the whole process.
    """
    devices.hold(precision)
    facts = weights.facts
    network = _network(facts, initialised=False)
    network.load_state_dict(weights.state, assign=True)
    return Model(
        network,
        mean=facts["mean"],
        std=facts["std"],
        size=facts["size"],
        micro_batch=micro_batch,
        precision=precision,
    ).to(devices.current())

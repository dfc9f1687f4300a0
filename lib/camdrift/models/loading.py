"""Loading: the weights of models, read or trained, and models ready to be called."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from camdrift import storage
from camdrift.datasets import chance
from camdrift.models import architectures, checks, devices, hook_points, training, weights
from camdrift.models.architectures import RefusedError
from camdrift.models.model import Model
from camdrift.pipeline import randomness
from camdrift.settings import ModelSettings, Training, imports, params
from camdrift.storage import Weights

Split = Callable[[str], tuple[Tensor, Tensor]]  # 'train' -> its pixels and labels


def obtain(
    chosen: ModelSettings, *, size: int, labels: Any, split: Split, seed: int, name: str
) -> Weights:
    """Returns the weights of a model: loaded, trained, or loaded and trained on.

    Args:
        chosen: the model's settings.
        size: side of the set's images in px, and of the input unless the settings name another.
        labels: of all images of the set.
        split: returns pixels and labels of 'train', 'validation' or 'test'.
        seed: of the initial weights and the batches.
        name: of the model, part of the seed.

    Raises:
        RefusedError: the weights cannot be had or do not fit; the network cannot be built.
        UntraceableError: there is no graph of its forward, or no conv layer.
        UnsoundError: its logits are not numbers, or not of each image by itself.
    """
    classes = chosen.classes or int(max(labels)) + 1
    if int(max(labels)) >= classes:
        raise RefusedError(
            f"models.{name}.classes: wanted more than {int(max(labels))}, the largest class number "
            f"of the set, got {classes}"
        )
    facts = chosen.model_dump(include={"architecture", "width", "head", "mean", "std"})
    facts |= {"classes": classes, "size": chosen.size or size}
    torch.manual_seed(randomness.entropy(seed, "weights", name))  # torch has no local way to init
    network = _network(facts, initialised=chosen.weights is None or chosen.new_head)
    if chosen.weights is not None:
        state = weights.read(chosen)
        if chosen.new_head:
            state = architectures.with_own_head(network, state)
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as fault:
            raise RefusedError(
                f"{chosen.weights} does not fit {chosen.architecture} with {classes} classes "
                f"(models.{name}.classes: the number of the weights; or new_head: true, to train "
                f"dense layers of your own): {fault}"
            ) from fault
    return _trained(network, facts, chosen.training, split, seed=seed, name=name)


def retrained(
    base: Weights,
    chosen: Training,
    split: Split,
    *,
    seed: int,
    name: str,
    adversary: training.Adversary | None = None,
) -> Weights:
    """Returns a model trained on from the weights of another.

    Args:
        base: the other model's.
        chosen: how it is trained.
        split: returns pixels and labels of 'train', 'validation' or 'test'.
        seed: of the batches.
        name: of the new model, part of the seed.
        adversary: see `training.train`.
    """
    network = _network(base.facts, initialised=False)
    # Of their own memory: training writes into the weights that it starts from.
    own = {key: value.clone() for key, value in base.state.items()}
    network.load_state_dict(own, assign=True)
    facts = {key: base.facts[key] for key in FACTS}
    return _trained(network, facts, chosen, split, seed=seed, name=name, adversary=adversary)


FACTS = ("architecture", "width", "head", "mean", "std", "classes", "size")  # that make a model


@devices.exactly()
def _trained(
    network: nn.Module,
    facts: dict[str, Any],
    chosen: Training | None,
    split: Split,
    *,
    seed: int,
    name: str,
    adversary: training.Adversary | None = None,
) -> Weights:
    given: dict[str, Any] = {key: facts[key] for key in ("mean", "std", "size")}
    curve: list[dict] = []
    _refuse_lost(network, facts)
    if chosen is not None:
        seen = split("train")
        _refuse_early(network, seen[0], facts)
        curve = training.train(
            network,
            seen,
            split("validation"),
            **given,
            **chosen.model_dump(),
            seed=randomness.entropy(seed, "batches", name),
            adversary=adversary,
            progress=lambda epochs: tqdm(epochs, desc=f"training {name}", unit="epoch"),
        )
        weights.refuse_infinite(network.state_dict(), f"models.{name}, trained")
    model, tests = Model(network, **given, micro_batch=1), split("test")
    _refuse(network, model, tests[0], facts)
    accuracy = training.accuracy(network, *tests, **given)
    facts = facts | {
        "layers": [{"name": tap.name, "label": tap.label} for tap in model.maps],
        "own_output": [tap.label for tap in model.maps if not tap.rectified],
        "left_out": hook_points.left_out(network, model.network),
        "test_accuracy": round(accuracy, 4),
        "chance": round(chance.level(tests[1].numpy()), 4),
    }
    warning = chance.warning(round(accuracy * len(tests[1])), tests[1].numpy())
    if warning:
        tqdm.write(f"models.{name}: {warning}")
    # Rounded, because the card is in git: the last digits change from machine to machine.
    table = pd.DataFrame(curve, columns=["epoch", "loss", "validation_accuracy"]).round(3)
    return Weights(
        {name: value.cpu() for name, value in network.state_dict().items()}, facts, table
    )


def _refuse_early(network: nn.Module, pixels: Tensor, facts: dict[str, Any]) -> None:
    """Refuses before the hours of training what would be refused behind them."""
    try:
        copied = hook_points.frozen(network)
    except (hook_points.UntraceableError, TypeError):
        return  # it may be trained and explained, but not copied
    model = Model(copied, **{key: facts[key] for key in ("mean", "std", "size")}, micro_batch=1)
    checks.refuse_dependence(
        lambda images: model.network(model.inputs(images)),
        pixels,
        classes=facts["classes"],
        finite=False,
    )


def _refuse_lost(network: nn.Module, facts: dict[str, Any]) -> None:
    """Refuses a network whose logits depend on more than its state dict holds.

    Stages behind build it anew and load its state dict.

    Raises:
        UnsoundError: built and loaded so, it does not run, or gives other logits.
    """
    side = facts["size"]
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        again = _network(facts, initialised=False)
        # Of its own memory: training writes into the weights that it starts from.
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
        if not checks.differ(own, network(images)):  # else it is random, which is said later
            raise checks.UnsoundError(
                f"{facts['architecture']}, built anew and given the weights of its state dict, "
                "gives other logits: something in it is drawn when it is built and is in no state "
                "dict; wanted a parameter or a buffer in its place"
            )


def _refuse(network: nn.Module, model: Model, pixels: Tensor, facts: dict[str, Any]) -> None:
    """Raises UnsoundError where a network, or the graph that stands for it, is not sound."""
    checks.refuse_dependence(
        lambda images: network(model.inputs(images)), pixels, classes=facts["classes"]
    )
    few = model.inputs(pixels[:2])
    with torch.no_grad():
        own = network(few)
        checks.refuse_other_logits(own, model.network(few), lambda: network(few))


def _network(facts: dict[str, Any], *, initialised: bool) -> nn.Module:
    wanted = {key: facts[key] for key in ("architecture", "width", "head", "classes", "size")}
    return architectures.build(**wanted, initialised=initialised)


def stored(name: str) -> Weights:
    """Returns the weights of a model of the study, as its stage wrote them.

    Raises:
        RefusedError: they name a function of the user's that params.yaml does not: data, which may
            come from elsewhere, does not decide which code runs.
    """
    found = storage.read(Weights, storage.model_folder(name))
    architecture = found.facts["architecture"]
    if architectures.is_own(architecture):
        named = {model.architecture for model in params.load().models.values()}
        if architecture not in named:
            raise RefusedError(
                f"{storage.model_folder(name)} is of '{architecture}', which would be imported, "
                "and no model in params.yaml names it"
            )
    return found


def load(name: str, *, micro_batch: int, precision: devices.Precision = "float32") -> Model:
    """Returns a model of the study, ready to be explained; raises as `stored` does.

    A process holds the last few that it was asked for: shard after shard wants the same.
    """
    devices.hold(precision)  # of a model that is held, too
    content = storage.digest(storage.model_folder(name))
    return _held(name, micro_batch, precision, devices.current(), content)


@lru_cache(maxsize=4)
def _held(
    name: str, micro_batch: int, precision: devices.Precision, device: torch.device, content: str
) -> Model:
    return ready(stored(name), micro_batch=micro_batch, precision=precision)


def ready(weights: Weights, *, micro_batch: int, precision: devices.Precision = "float32") -> Model:
    """Returns the model of some weights on its device, ready to be explained.

    The process is held to the precision.
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

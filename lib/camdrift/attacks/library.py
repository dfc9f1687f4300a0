"""An attack of another library, with that library's own arguments.

`name: torchattacks:CW` and `arguments: {c: 1, steps: 50}` call that library as its documentation
says. Names and arguments are checked against the library's signatures before any work; the
libraries are not among camdrift's dependencies (`make oracles` installs three of them).
"""

import contextlib
import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Pixels
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Section, nearest


class Settings(Section):
    """Settings of an attack of another library."""

    name: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None
    arguments: dict[str, Any]


Attack = Callable[[Pixels, Labels], Tensor]  # -> attacked pixels


@dataclass(frozen=True)
class Library:
    """A library of attacks.

    module: in which they are.
    given: arguments that are not the user's: camdrift gives them, or leaves them out.
    prepare: (the attack, a network, the number of classes, arguments) -> a function that attacks.
    more: arguments that are not in the attack's own signature.
    """

    module: str
    given: tuple[str, ...]
    prepare: Callable[[Any, nn.Module, int, dict[str, Any]], Attack]
    more: tuple[str, ...] = ()


def _of_network(attack: Any, network: nn.Module, classes: int, arguments: dict[str, Any]) -> Attack:
    return attack(network, **arguments)


def _foolbox(attack: Any, network: nn.Module, classes: int, arguments: dict[str, Any]) -> Attack:
    from foolbox import PyTorchModel

    own = {key: value for key, value in arguments.items() if key != "epsilon"}
    epsilon = arguments.get("epsilon")

    def call(pixels: Pixels, labels: Labels) -> Tensor:
        model = PyTorchModel(network, bounds=(0, 1), device=pixels.device)
        raw, clipped, _ = attack(**own)(model, pixels, labels, epsilons=epsilon)
        return raw if epsilon is None else clipped

    return call


def _art(attack: Any, network: nn.Module, classes: int, arguments: dict[str, Any]) -> Attack:
    from art.estimators.classification import PyTorchClassifier

    def call(pixels: Pixels, labels: Labels) -> Tensor:
        classifier = PyTorchClassifier(
            network, loss=nn.CrossEntropyLoss(), input_shape=tuple(pixels.shape[1:]),
            nb_classes=classes, clip_values=(0, 1), device_type=pixels.device.type,
        )  # fmt: skip
        arrays = pixels.cpu().numpy(), labels.cpu().numpy()
        attacked = attack(classifier, **arguments).generate(*arrays)
        return torch.from_numpy(attacked)

    return call


def _function(attack: Any, network: nn.Module, classes: int, arguments: dict[str, Any]) -> Attack:
    return lambda pixels, labels: attack(network, pixels, labels, **arguments)


LIBRARIES = {
    "torchattacks": Library("torchattacks", ("model",), _of_network),
    "torchattack": Library("torchattack", ("model", "normalize", "device"), _of_network),
    "foolbox": Library("foolbox.attacks", (), _foolbox, ("epsilon",)),
    "art": Library("art.attacks.evasion", ("classifier", "estimator"), _art),
    "adv_lib": Library("adv_lib.attacks", ("model", "inputs", "labels"), _function),
}


def _load(library: str) -> dict[str, Any]:
    """Returns what stands in the module of a library's attacks, by name."""
    from camdrift.pipeline.vision import torchvision

    assert torchvision  # which some of the libraries import, too
    return vars(importlib.import_module(LIBRARIES[library].module))


def fault(name: str | None, arguments: Mapping[str, Any]) -> str:
    """Returns what is wrong with the name or the arguments of an attack, '' if nothing is."""
    if name is None:
        return "name: wanted library:attack, as torchattacks:CW, got null"
    library, _, attack = name.partition(":")
    if library not in LIBRARIES:
        return (
            f"name: wanted one of the libraries {', '.join(LIBRARIES)}, got "
            f"'{library}'{nearest(library, LIBRARIES)}"
        )
    try:
        there = _load(library)
    except ModuleNotFoundError as missing:
        return (
            f"name: {library} cannot be imported: {missing}. `make oracles` installs torchattacks, "
            "foolbox and art; others: `.venv/bin/python -m pip install <library>`"
        )
    names = [key for key, value in there.items() if callable(value) and key[0] != "_"]
    if attack not in names:
        module = LIBRARIES[library].module
        return f"name: {module} has no attack '{attack}'{nearest(attack, names)}"
    known, required, takes_any = _arguments(library, there[attack])
    strange = [key for key in arguments if key not in known and not takes_any]
    lacking = [key for key in required if key not in arguments]
    if not strange and not lacking:
        return ""
    got = f"'{strange[0]}'{nearest(strange[0], known)}" if strange else f"no '{lacking[0]}'"
    return f"arguments: {name} takes {', '.join(known)}; got {got}"


def _arguments(library: str, attack: Any) -> tuple[list[str], list[str], bool]:
    """Returns the arguments of an attack, those it requires, and whether it takes any other."""
    every = inspect.signature(attack).parameters.values()
    named = [p for p in every if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    own = [p for p in named if p.name not in LIBRARIES[library].given]
    return (
        [*(p.name for p in own), *LIBRARIES[library].more],
        [p.name for p in own if p.default is p.empty],
        any(p.kind is p.VAR_KEYWORD for p in every),
    )


class _Counted(nn.Module):
    """A model that counts the images that it is called with."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.images += len(pixels)
        return self.model(pixels)


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    name: str,
    arguments: Mapping[str, Any],
) -> Perturbation:
    """Returns the perturbations of a library's attack, a micro-batch of the model at a time.

    Evaluations are the forward passes that the model made, a micro-batch's mean for each image.

    Args:
        model: under attack; the library calls it as a network of pixels in [0, 1].
        pixels: in [0, 1].
        labels: the classes that the attack leads away from.
        generators: one for each image. The libraries draw from global generators: these are seeded
            by that of a micro-batch's first image, and put back afterwards. An attack that draws
            therefore depends on the images of the micro-batch.
        name: library:attack.
        arguments: of the library's attack; of foolbox, `epsilon` of its call, too.
    """
    library, _, of = name.partition(":")
    attack = _load(library)[of]
    with torch.no_grad():
        classes = model(pixels[:1]).shape[1]
    changes, passes = [], []
    for start in range(0, len(pixels), model.micro_batch):
        own = slice(start, start + model.micro_batch)
        counted = _Counted(model)
        call = LIBRARIES[library].prepare(attack, counted, classes, dict(arguments))
        with seeded(generators[start]):
            # Contiguous copies: FAB takes no others.
            copies = [values[own].clone(memory_format=torch.contiguous_format)
                      for values in (pixels, labels)]  # fmt: skip
            there = [values.to(model.device) for values in copies]
            attacked = call(*there).detach().to(pixels)
        changes.append(attacked - pixels[own])
        passes.append(torch.full((len(pixels[own]),), counted.images // len(pixels[own])))
    model.eval()
    return Perturbation(torch.cat(changes), torch.cat(passes))


@contextlib.contextmanager
def seeded(generator: np.random.Generator) -> Iterator[None]:
    """Seeds the global generators of Python, NumPy and torch, and puts them back afterwards."""
    seed = int(generator.integers(2**31))
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)

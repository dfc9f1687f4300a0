"""Pace: seconds and bytes of one image in each kind of pass, measured here on random weights.

A kind of pass is what a stage does to many images in the same way. Each is measured by calling what
the stage calls, on a few images, as the machine then is: other work beside it is part of the pace.
"""

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from camdrift import storage
from camdrift.attacks import dlfuzz, one_pixel
from camdrift.detectors import adaptive, behaviour, measure, rules, trial
from camdrift.detectors.names import PROFILE
from camdrift.explain import cam, lrp, packing
from camdrift.models import coverage, devices, gradients, training
from camdrift.models.model import Model
from camdrift.ops import needs
from camdrift.perturbations import noise
from camdrift.scores import shifts, similarity
from camdrift.settings import Cell, ModelSettings, Settings, Training, protocols
from camdrift.storage import files

ENOUGH = 0.2  # seconds that a forward is to take to be timed
LONG = 1.0
ROUNDS = 3
FEW = 4  # images, of what is slow an image
PAIRS = 64  # of maps
MOST = 40  # individuals of a search
COSTS_LIKE = {"confidence": "energy"}  # attacks that know a detector, measured on another


def seconds(work: Callable[[], float]) -> float:
    """Returns the seconds of a unit; `work` does some and says how many it did.

    Work is timed a few times, of which the fastest counts: the first has caches to fill. Only what
    takes very long is timed once.
    """
    found, total = [], 0.0
    for _ in range(ROUNDS):
        with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
            began = time.perf_counter()
            units = work()
            took = time.perf_counter() - began
        found.append(took / max(1.0, units))
        total += took
        if total > LONG or (len(found) > 1 and total > ENOUGH):
            break
    return min(found)


@dataclass(frozen=True, eq=False)
class Bench:
    """A network of random weights, and images of the side that a set holds.

    name: of the first model that has such a network.
    chosen: the model's settings.
    classes: of the set.
    plan: all settings.
    pixels: (n, 3, side, side), random, n as many as a call of `ENOUGH` seconds bears.
    model: calls its network at n images at a time.
    known: seconds of a unit, by kind of pass, as far as they were asked for.
    """

    name: str
    chosen: ModelSettings
    classes: int
    plan: Settings
    pixels: Tensor
    model: Model
    known: dict[str, float] = field(default_factory=dict)

    def of(self, kind: str, work: Callable[["Bench"], float]) -> float:
        """Returns the seconds of a unit of a kind of pass, measured when first asked for."""
        if kind not in self.known:
            self.known[kind] = seconds(partial(work, self))
        return self.known[kind]

    @cached_property
    def network(self) -> nn.Module:
        """Another network of the same kind, to be trained."""
        return needs.network(self.chosen, classes=self.classes, size=self.model.size)

    @cached_property
    def weights(self) -> float:
        """Bytes of the network's weights."""
        return float(sum(value.nbytes for value in self.model.parameters()))

    @cached_property
    def held(self) -> tuple[float, float]:
        """Bytes of an image that a forward holds, and that are kept for a backward."""
        weights = {value.untyped_storage().data_ptr() for value in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            memory = value.untyped_storage()
            if memory.data_ptr() not in weights:
                kept[memory.data_ptr()] = memory.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            _, taps = self.model.activations(self.pixels[:1].detach().requires_grad_())
        largest = max(tap.nbytes for tap in taps)
        # What a layer reads, what it writes, and what its convolution works in.
        return 3.0 * largest, sum(kept.values()) + 2.0 * largest

    @cached_property
    def probe(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Explains a micro-batch at the layer that detectors look at."""
        return self.model.probe(_within(self.model)["probe"])

    @cached_property
    def layers(self) -> pd.DataFrame:
        """A row a layer, see `packing.layer_table`."""
        return packing.layer_table(self.model)

    @property
    def labels(self) -> Tensor:
        """Other classes than the model's own: what is led away from still stands."""
        with torch.no_grad():
            return (self.model(self.pixels).argmax(1) + 1) % self.model(self.pixels[:1]).shape[1]

    @property
    def generators(self) -> list[np.random.Generator]:
        """One an image."""
        return [np.random.default_rng(i) for i in range(len(self.pixels))]


def bench(name: str, chosen: ModelSettings, *, classes: int, side: int, plan: Settings) -> Bench:
    """Returns a model's bench.

    Raises:
        RefusedError: the network cannot be built.
    """
    model = needs.function(name, chosen, classes=classes, size=side).to(devices.current())
    model.precision = plan.precision
    devices.hold(plan.precision)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(max(2, plan.micro_batch), 3, side, side, generator=rng)

    def forward() -> float:
        with torch.no_grad():
            model(pixels[:1])
        return 1

    forward()
    model.micro_batch = int(min(len(pixels), max(2, ENOUGH // seconds(forward))))
    return Bench(name, chosen, classes, plan, pixels[: model.micro_batch], model)


def forward(at: Bench) -> float:
    """Calls the model."""
    with torch.no_grad():
        at.model(at.pixels)
    return len(at.pixels)


def gradient(at: Bench) -> float:
    """Takes the gradient of the loss by the pixels."""
    gradients.cross_entropy(at.model, at.pixels, torch.zeros(len(at.pixels), dtype=torch.int64))
    return len(at.pixels)


def fuzz(at: Bench, settings: dict) -> float:
    """Looks at mutants as DLFuzz does; a unit is an image's look, all but the last with a step."""
    limits = {"max_steps": 2, "iterations": 1, "norm_limit": 1e9, "min_gain": None}
    found = dlfuzz.perturb(
        at.model, at.pixels, at.labels, generators=at.generators, **(settings | limits)
    )
    return float(found.evaluations.sum())


def explain(at: Bench, *, names: tuple[str, ...], both: bool) -> float:
    """Explains images by some methods, for one class or for another, too, and packs the maps."""
    with torch.no_grad():
        own = at.model(at.pixels).argmax(1) if not both else at.labels
    _, first, second = cam.explain(at.model, at.pixels, own, names=names)
    for maps in (first, second):
        for layers in (maps or {}).values():
            packing.pack(layers)
    return len(at.pixels)


def cover(at: Bench) -> float:
    """Counts the neurons that images cover."""
    coverage.covered(at.model, at.pixels, threshold=at.plan.coverage.threshold)
    return len(at.pixels)


def feature(at: Bench, *, group: str) -> float:
    """Measures a group of features of images."""
    chosen = at.plan.detection.model_copy(update=_within(at.model))
    measure.of_images(at.model, at.pixels, at.generators, chosen, groups=[group])
    return len(at.pixels)


def repeat(at: Bench) -> float:
    """Draws noisy copies of an image and explains them at the probed layer; a unit is a copy."""
    count, image = 2 * len(at.pixels), at.pixels[:1]
    copies = behaviour.copies(image, 0.99 * image, at.generators[:1], count=count)
    behaviour.maps(at.model, at.probe, copies)
    return count


def _within(model: Model) -> dict[str, int]:
    """Returns the detectors' layers; of a model with too few the last, the trial refuses it."""
    return {"probe": -min(3, len(model.maps)), "layer": min(3, len(model.maps))}


def blur(at: Bench) -> float:
    """Blurs images and looks at them."""
    with torch.no_grad():
        at.model(trial.blurred(at.pixels, radius=at.plan.detection.blur))
    return len(at.pixels)


def descend(at: Bench, *, detector: str) -> float:
    """Attacks a detector for a step; '' is none. A unit is an image's step."""
    chosen = at.plan.detection.model_copy(update=_within(at.model))
    objective = None
    if detector:
        made = rules.make(detector, thresholds=len(chosen.brightness), clusters=0)
        columns = [f"{name}_{layer}" for name in PROFILE for layer in range(len(at.model.maps))]
        table = np.random.default_rng(0).random((2 * len(columns), len(columns)))
        if isinstance(made, rules.NoiseCam):
            made.place_ = 0
        else:
            made._learn(pd.DataFrame(table, columns=columns), np.arange(len(table)) % 2 == 0)
        objective = adaptive.objective(made, at.model, chosen)
    budget = chosen.adaptive.model_dump() | {"steps": 1}
    adaptive.perturb(at.model, at.pixels, at.labels, objective, **budget)
    return len(at.pixels) * 1.5  # two looks, one of them with a step


def train(at: Bench, *, network: nn.Module, chosen: Training) -> float:
    """Trains a network, the bench's own, for two steps."""
    batch = min(chosen.batch, max(2, len(at.pixels)))
    pixels = at.pixels.repeat(2, 1, 1, 1)[: 2 * batch]
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    settings: dict[str, Any] = chosen.model_dump() | {"epochs": 1, "batch": batch, "seed": 0}
    settings |= {"mean": at.chosen.mean, "std": at.chosen.std, "size": at.model.size}
    training.train(network, (pixels, labels), (pixels[:0], labels[:0]), **settings)
    return len(pixels)


def relate(at: Bench) -> float:
    """Explains images by LRP."""
    lrp.relevance(at.model, at.pixels)
    return len(at.pixels)


def query(at: Bench, settings: dict) -> float:
    """Searches for a pixel; a unit is a query."""
    limits = {"population": min(MOST, settings["population"]), "generations": 1, "target": None}
    images = at.pixels[: 4 * FEW]
    with torch.no_grad():
        own = at.model(images).argmax(1)
    generators = at.generators[: len(images)]
    found = one_pixel.perturb(at.model, images, own, generators=generators, **(settings | limits))
    return float(found.evaluations.sum())


def compare(at: Bench, *, score: str) -> float:
    """Scores pairs of maps of all layers, by 'cosine', 'ssim', 'jet' or 'nissim'; a unit is a pair.

    NISSIM is of each layer's maps and, at the input's size, of the last ones twice.
    """
    first, second = np.arange(PAIRS), np.arange(PAIRS)[::-1].copy()
    rng = np.random.default_rng(0)
    sides = list(zip(at.layers["height"], at.layers["width"], strict=True))
    for height, width in sides + ([(at.model.size,) * 2] * 2 if score == "nissim" else []):
        maps = rng.random((PAIRS, height, width)).astype(np.float16).astype(np.float32)
        if score == "cosine":
            similarity.cosine(maps[first], maps[second], size=at.pixels.shape[-1])
        elif score == "jet":
            similarity.jet_cosine(maps, first, second, size=at.pixels.shape[-1])
        else:
            (similarity.ssim if score == "ssim" else shifts.nissim)(maps[first], maps[second])
    return PAIRS


def disturb(plan: Settings, cell: Cell, side: int) -> float:
    """Draws, scales and turns about the noise of a few images of a cell, without the model."""
    rng = torch.Generator().manual_seed(0)
    clean, change = (torch.rand(FEW, 3, side, side, generator=rng) for _ in range(2))
    change = (change - 0.5) * 0.02
    last = change if cell.attack == "dlfuzz" else change[:0]
    generators = [np.random.default_rng(i) for i in range(FEW)]
    draws = [noise.draw(clean.shape[1:], generators) for _ in range(plan.noise.draws)]
    known = protocols(plan.protocols)
    recipes = {known[name].recipe: known[name] for name in cell.protocols}
    for protocol in recipes.values():
        noise.fit(clean, change, last, draws, cell.strengths, protocol=protocol,
                  scaling=plan.noise.scaling)  # fmt: skip
    for kind in noise.CONTROLS:
        noise.control(kind, clean, change, generators)
    sizes = (change.flatten(1).norm(dim=1).double()[:, None]).expand(-1, rungs(plan))
    noise.scale_to(clean, draws[0], sizes)
    return FEW


def rungs(plan: Settings) -> int:
    """Returns how often noise is raised at most, the first time included."""
    chosen = plan.noise
    return int(np.log(chosen.raise_to) / np.log(chosen.raise_by) + 1e-9) + 1


@dataclass(frozen=True)
class Base:
    """Seconds and MB that a stage takes before it computes."""

    seconds: float
    mb: float


def base(modules: str) -> Base:
    """Returns what a fresh interpreter takes that imports some of the library's modules.

    And, where one of them imports torch, convolves, which loads what torch does that with. Not the
    process's peak: Linux hands that of a parent on to its child.
    """
    code = f"""
import psutil, pyarrow.parquet, sys, {modules}
if "torch" in sys.modules:
    import torch
    torch.nn.Conv2d(3, 8, 3)(torch.zeros(8, 3, 32, 32)).sum().backward()
print(psutil.Process().memory_info().rss / 1e6)"""
    began = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return Base(time.perf_counter() - began, float(answer.stdout))


def recorded(group: str) -> list[Base]:
    """Returns what stages of a group took in the runs that are in git, see `run.last_runs`."""
    return [
        Base(stage["seconds"], stage["peak_memory_mb"])
        for file in sorted(storage.RESULTS.rglob("run.json"))
        for stage in files.read_json(file)["stages"]
        if stage["stage"].partition("@")[0] == group
    ]

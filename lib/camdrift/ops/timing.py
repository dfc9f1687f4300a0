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

from camdrift import attacks, storage
from camdrift.attacks import dlfuzz, one_pixel
from camdrift.detectors.families import Family, families
from camdrift.evaluation import adaptive, experiment, measuring
from camdrift.explain import cam, lrp, packing
from camdrift.models import coverage, devices, gradients, training
from camdrift.models.model import Model
from camdrift.ops import needs
from camdrift.perturbations import noise
from camdrift.scores import comparison
from camdrift.settings import Cell, ModelSettings, Settings, Training, protocols
from camdrift.storage import files

ENOUGH = 0.2  # seconds that a forward is to take to be timed
LONG = 1.0
ROUNDS = 3
FEW = 4  # images, of what is slow an image
PAIRS = 64  # of maps
MOST = 40  # individuals of a search
MANY = 10  # passes an image, of a detector that is timed by the pass


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
    def families(self) -> dict[str, Family]:
        """Detectors, by name, at layers that the model has: the evaluation refuses others."""
        count = len(self.model.maps)
        return {each.name: each.within(count) for each in families(self.plan.detection)}

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

    def streams(self, name: str) -> list[np.random.Generator]:
        """Returns them whatever they are for."""
        return self.generators


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


def attack(at: Bench, *, name: str, settings: dict) -> float:
    """Attacks a few images; a unit is an image."""
    images, labels = at.pixels[:FEW], at.labels[:FEW]
    perturb = attacks.perturbing(name)
    perturb(at.model, images, labels, generators=at.generators[:FEW], **settings)
    return len(images)


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


def look(at: Bench, *, names: tuple[str, ...]) -> float:
    """Measures what some detectors see of images."""
    measuring.measure_images(at.model, at.pixels, at.streams, [at.families[name] for name in names])
    return len(at.pixels)


def look_often(at: Bench, *, name: str) -> float:
    """Measures what a detector of many passes sees of an image; a unit is a pass."""
    family = at.families[name]
    measuring.measure_images(at.model, at.pixels[:1], at.streams, [family])
    return family.passes


def blur(at: Bench) -> float:
    """Blurs images and looks at them."""
    with torch.no_grad():
        at.model(experiment.blur_images(at.pixels, radius=at.plan.detection.blur))
    return len(at.pixels)


def descend(at: Bench, *, name: str) -> float:
    """Attacks a detector for a step; '' is none. A unit is an image's step."""
    surrogate = None
    if name:
        family = at.families[name]
        detector = next(iter(family.readings().values()))
        surrogate = family.surrogate(detector.fit(*_calibrating(at, family)), at.model)
    budget = at.plan.detection.adaptive.model_dump() | {"steps": 1}
    adaptive.perturb(at.model, at.pixels, at.labels, surrogate, **budget)
    return len(at.pixels) * 1.5  # two looks, one of them with a step


def _calibrating(at: Bench, family: Family) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns what a detector sees of one image, with noise: as many rows as it can learn from."""
    seen, _ = measuring.measure_images(at.model, at.pixels[:1], at.streams, [family])
    count = 2 * len(seen.columns)
    rng = np.random.default_rng(0)
    rows = seen.to_numpy(dtype=float) + rng.random((count, len(seen.columns)))
    return pd.DataFrame(rows, columns=seen.columns), np.arange(count) % 2 == 0


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
    """Scores pairs of maps of all layers by a score; a unit is a pair.

    NISSIM is of each layer's maps and, at the input's size, of the last ones twice.
    """
    first, second = np.arange(PAIRS), np.arange(PAIRS)[::-1].copy()
    rng = np.random.default_rng(0)
    sides = list(zip(at.layers["height"], at.layers["width"], strict=True))
    for height, width in sides + ([(at.model.size,) * 2] * 2 if score == "nissim" else []):
        maps = rng.random((PAIRS, height, width)).astype(np.float16).astype(np.float32)
        comparison.score_pairs(score, maps, first, second, size=at.pixels.shape[-1])
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

"""DLFuzz (Guo et al. 2018) as renkhoff2022 uses it, equation 8 and the public code.

The perturbation raises the probability of the rival classes and the activation of selected neurons
and lowers the probability of the predicted class.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from camdrift.models import coverage
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Pixels
from camdrift.perturbations.perturbation import Perturbation
from camdrift.perturbations.size import root
from camdrift.settings.section import Count, Positive, Section, Share


class Settings(Section):
    """Settings of DLFuzz."""

    rivals: Count
    rival_weight: Annotated[float, Field(ge=0)]
    neurons: Annotated[int, Field(ge=0)]
    neuron_weight: Annotated[float, Field(ge=0)]
    strategies: Annotated[list[Literal[0, 1, 2, 3]], Field(min_length=1)]
    threshold: Share
    step: Positive
    iterations: Count
    max_steps: Count
    norm_limit: Positive
    min_gain: Share | None
    tables: Literal["per_seed", "sequential"]
    differs_from: Literal["clean", "parent"]
    mutant: Literal["first", "last"]


@dataclass
class _Seed:
    """One seed's state: the current mutant, its objective, and the best mutant so far."""

    image: int
    order: int  # its 0-based place among the seeds that share a coverage table
    clean: Tensor
    current: Tensor
    times: np.ndarray  # coverage table: how often each neuron was covered
    generator: np.random.Generator
    prediction: int = -1
    parent: int = -1
    steps: int = 0
    passed: bool = True
    succeeded: bool = False
    picks: Tensor | None = None
    rivals: Tensor | None = None
    latest: Tensor = field(default_factory=lambda: torch.empty(0))  # the latest step
    change: Tensor = field(default_factory=lambda: torch.empty(0))
    last_step: Tensor = field(default_factory=lambda: torch.empty(0))  # the one that ended `change`


def perturb(
    model: Model,
    pixels: Pixels,
    labels: Labels,
    *,
    generators: Sequence[np.random.Generator],
    rivals: int,
    rival_weight: float,
    neurons: int,
    neuron_weight: float,
    strategies: Sequence[int],
    threshold: float,
    step: float,
    iterations: int,
    max_steps: int,
    norm_limit: float,
    min_gain: float | None,
    tables: str,
    differs_from: str,
    mutant: str,
) -> Perturbation:
    """Returns an adversarial mutant of each seed, or its last mutant if none is adversarial.

    A mutant is the image plus its steps so far. Each step is `step` grey levels (of 255) times the
    objective's gradient divided by its root mean square. After every `iterations` steps the mutant
    continues if one of them passed the gate: it covered more than min_gain / (i + 1) new neurons (a
    share of all; i is the seed's place; no gain is required if `min_gain` is None) and its norm,
    relative to the zero-centred image, is below `norm_limit`.

    Args:
        model: the model; not assumed to be batch-invariant beyond its own micro-batch.
        pixels: the seeds, in [0, 1].
        labels: not used: DLFuzz leads away from each mutant's own prediction.
        generators: one for each image, for the choice of neurons.
        rivals: number of classes after the first whose probability is raised.
        rival_weight: their weight; the predicted class has weight -1.
        neurons: number of neurons to activate, divided equally among the strategies.
        neuron_weight: their weight.
        strategies: of 0-3, see `_choose`.
        threshold: scaled activation above which a neuron is covered, in [0, 1].
        step: length of one step in grey levels (0-255), root mean square.
        iterations: steps between two checks of the gate.
        max_steps: steps after which a seed ends regardless of the gate; the log shows how many
            seeds ended there.
        norm_limit: the gate's limit, relative L2.
        min_gain: the gate's minimum, a share of the neurons, or None.
        tables: 'per_seed' gives each image its own coverage table, and images are batched;
            'sequential' is the published order, one table for all seeds, one seed after another.
        differs_from: 'clean' calls a mutant adversarial when its prediction differs from that of
            the clean image; 'parent' (published) when it differs from that of its parent mutant.
        mutant: 'last' returns a seed's last adversarial mutant, 'first' its first.

    Departs: the public code emits every adversarial mutant, this one a single mutant for each seed
    (of the public code's, most are a seed's first step, since later gains of coverage are small);
    with `iterations` > 1 it queues the same array once for every mutant that passes, this one once.
    """
    spatial = coverage.spatial(model)
    mean = model.mean[0].to(pixels.device)
    shared = np.zeros(len(spatial), dtype=np.int64)
    seeds = [
        _Seed(
            image=i,
            order=i if tables == "sequential" else 0,
            clean=image,
            current=image,
            times=shared if tables == "sequential" else np.zeros_like(shared),
            generator=generator,
        )
        for i, (image, generator) in enumerate(zip(pixels, generators, strict=True))
    ]
    if tables == "sequential":
        model = copy.copy(model)
        model.micro_batch = 1
    kernels = coverage.kernel_means(model) if 2 in strategies else np.empty(0)
    log: list[dict] = []

    def look(seed: _Seed, prediction: int, level: np.ndarray) -> None:
        """Judges the mutant that was just evaluated and decides whether its seed continues."""
        covered, before = level > threshold, seed.times > 0
        gain = float((covered & ~before).mean())
        change = seed.current - seed.clean
        norm = float(change.norm() / (seed.clean - mean).norm())
        seed.prediction = seed.prediction if seed.steps else prediction
        reference = seed.prediction if differs_from == "clean" else seed.parent
        adversarial = bool(seed.steps > 0 and prediction != reference)
        if seed.steps:
            seed.times += covered
            enough = min_gain is None or gain > required_gain(min_gain, seed.order)
            seed.passed = seed.passed or (enough and norm < norm_limit)
            if not seed.succeeded or (adversarial and mutant == "last"):
                seed.change, seed.last_step = change, seed.latest
                seed.succeeded = adversarial or seed.succeeded
        log.append(
            {"image": seed.image, "step": seed.steps, "prediction": prediction, "norm": norm,
             "gain": gain, "coverage": float((covered | before).mean()), "adversarial": adversarial}
        )  # fmt: skip

    def aim(seed: _Seed, probabilities: Tensor, level: np.ndarray) -> None:
        """Chooses the objective of the next `iterations` steps."""
        seed.times += level > threshold
        top = probabilities.argsort(descending=True)[: rivals + 1]
        seed.rivals = torch.zeros_like(probabilities)
        seed.rivals[top[1:]] = rival_weight
        seed.rivals[top[0]] = -1.0
        seed.parent = int(top[0])
        signs = _choose(seed, level, kernels, spatial, neurons, strategies, threshold)
        seed.picks = torch.from_numpy(signs).to(probabilities) * neuron_weight
        seed.passed = False

    def climb(batch: list[_Seed]) -> list[_Seed]:
        """Evaluates the mutants of one micro-batch, moves those that continue, returns them."""
        (stack, rows), *_ = model.batches(torch.stack([seed.current for seed in batch]))
        stack.requires_grad_()
        logits, excitations = model.excitations(stack)
        means = coverage.means(logits, excitations)
        probabilities = logits.softmax(1)
        with torch.no_grad():
            level = coverage.levels(logits, excitations).numpy()
        objective = logits.new_zeros(())
        moving = []
        for row, seed in enumerate(batch):
            look(seed, int(logits[row].argmax()), level[row])
            if seed.steps % iterations == 0:
                if not seed.passed or seed.steps >= max_steps:
                    continue
                aim(seed, probabilities[row].detach(), level[row])
            assert seed.picks is not None and seed.rivals is not None
            objective = objective + (means[row] * seed.picks).sum()
            objective = objective + (probabilities[row] * seed.rivals).sum()
            moving.append((row, seed))
        if not moving:
            return []
        (gradient,) = torch.autograd.grad(objective, stack)
        gradient = gradient / 255  # per grey level, in which the public code divides by rms + 1e-5
        for row, seed in moving:
            size = root(gradient[row].square().mean()) + 1e-5
            seed.latest = step / 255 * gradient[row] / size
            seed.current = seed.current + seed.latest
            seed.steps += 1
        return [seed for _, seed in moving]

    groups = [[seed] for seed in seeds] if tables == "sequential" else [seeds]
    for active in groups:
        while active:
            size = model.micro_batch
            parts = [active[i : i + size] for i in range(0, len(active), size)]
            active = [seed for part in parts for seed in climb(part)]
    log.sort(key=lambda row: (row["image"], row["step"]))
    looks = torch.tensor([seed.steps + 1 for seed in seeds])
    changes = torch.stack([seed.change for seed in seeds])
    successes = (
        torch.tensor([seed.succeeded for seed in seeds]) if differs_from == "parent" else None
    )
    last_steps = torch.stack([seed.last_step for seed in seeds])
    return Perturbation(changes, looks, log, successes, last_steps)


def required_gain(min_gain: float, order: int) -> float:
    """Returns the share of all neurons that a mutant's newly covered neurons must exceed.

    It falls with the seed's 0-based place among the seeds that share a coverage table.
    """
    return min_gain / (order + 1)


def _choose(
    seed: _Seed,
    level: np.ndarray,
    kernels: np.ndarray,
    spatial: np.ndarray,
    neurons: int,
    strategies: Sequence[int],
    threshold: float,
) -> np.ndarray:
    """Returns +1 for each neuron to activate, -1 for each to quiet, else 0: float32 (neurons,).

    Strategies of the public code: 0, often covered neurons (probability proportional to their
    count); 1, seldom covered ones (maximum count minus count); 2, any of the tenth with the
    largest mean kernel weight; 3, half from just above the threshold, to raise, half from just
    below, to lower, without dense layers. Each strategy draws its equal part without replacement.
    """
    signs = np.zeros(len(level), dtype=np.float32)
    part = neurons // len(strategies)
    for strategy in strategies:
        if strategy == 3:
            above = np.flatnonzero(spatial & (level > threshold) & (level < threshold + 0.25))
            below = np.flatnonzero(spatial & (level > threshold - 0.2) & (level < threshold))
            for pool, sign in ((above, 1), (below, -1)):
                half = min(part // 2, len(pool))
                signs[seed.generator.choice(pool, half, replace=False)] = sign
            continue
        if strategy == 0:
            weights = seed.times.astype(float)
        elif strategy == 1:
            weights = (seed.times.max() - seed.times).astype(float)
        else:
            tenth = max(1, int((kernels > 0).sum()) // 10)
            best = np.argsort(np.where(kernels > 0, kernels, -np.inf))[-tenth:]
            weights = np.zeros(len(level))
            weights[best] = 1
        if not weights.any():
            weights = np.ones(len(level))
        count = min(part, int((weights > 0).sum()))
        picks = seed.generator.choice(len(level), count, replace=False, p=weights / weights.sum())
        signs[picks] = 1
    return signs

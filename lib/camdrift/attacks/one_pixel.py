"""The one-pixel attack by differential evolution.

Su et al. 2019, "One Pixel Attack for Fooling Deep Neural Networks", section 3, with the settings of
the public Keras code that klawikowska2020 uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from camdrift.models.incremental import Incremental, painted
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Pixels
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings import SettingsError
from camdrift.settings.section import Finite, Section, Share


class Settings(Section):
    """Settings of the one-pixel attack."""

    pixels: Literal[1, 3, 5]
    population: Annotated[int, Field(ge=5)]
    generations: Annotated[int, Field(ge=0)]
    mutation: Annotated[
        list[Annotated[float, Field(ge=0, le=2)]], Field(min_length=2, max_length=2)
    ]
    recombination: Share
    bounds: Annotated[list[Finite], Field(min_length=2, max_length=2)]
    success: Literal["best", "any"]
    target: Annotated[int, Field(ge=0)] | None

    @model_validator(mode="after")
    def _rises(self) -> "Settings":
        if self.mutation[0] > self.mutation[1]:
            raise ValueError(f"mutation: wanted a range that does not fall, got {self.mutation}")
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: wanted a range that rises, got {self.bounds}")
        return self


@dataclass
class _Search:
    """One image's population, (members, genes) in [0, 1].

    The genes of a pixel are its row, its column and the value of each channel: red, green and blue,
    or grey.
    """

    image: int
    aim: int  # the class to lead to, or away from
    targeted: bool  # whether to lead to it
    by_any: bool  # whether any member may reach the goal, or the best alone
    generator: np.random.Generator
    population: np.ndarray
    energies: np.ndarray  # each member's objective, which is minimised
    predictions: np.ndarray
    evaluations: int = 0

    def hits(self, predictions: np.ndarray) -> np.ndarray:
        return (predictions == self.aim) == self.targeted

    @property
    def best(self) -> int:
        hits = self.hits(self.predictions)
        if self.by_any and hits.any():
            return int(np.where(hits, self.energies, np.inf).argmin())
        return int(self.energies.argmin())

    @property
    def reached(self) -> bool:
        return bool(self.hits(self.predictions)[self.best])

    def take(self, trials: np.ndarray, energies: np.ndarray, predictions: np.ndarray) -> None:
        """Replaces each member by its trial if that is better, or reaches the goal."""
        better = energies < self.energies
        if self.by_any:
            better |= self.hits(predictions)
        self.population[better] = trials[better]
        self.energies[better] = energies[better]
        self.predictions[better] = predictions[better]
        self.evaluations += len(trials)


def perturb(
    model: Model,
    images: Pixels,
    labels: Labels,
    /,  # `pixels` is a setting here
    *,
    generators: Sequence[np.random.Generator],
    pixels: int,
    population: int,
    generations: int,
    mutation: Sequence[float],
    recombination: float,
    bounds: Sequence[float],
    success: str,
    target: int | None,
) -> Perturbation:
    """Returns each image's best individual: the one least likely to have the image's label.

    An individual is `pixels` places and their colours, which replace the image's. Differential
    evolution (best1bin, Latin hypercube start) minimises the probability of the label, or raises
    that of `target`. A generation is evaluated as a whole before any of it replaces its parent. An
    image is done as soon as the best individual of a generation, the first included, is not
    predicted as the label, or is predicted as the target.

    An image that meets this from the start is left alone: no evaluation, no change, no success. Its
    first prediction is not counted, as in the published count of at most population * (generations
    + 1).

    Args:
        model: the model.
        images: in [0, 1].
        labels: the classes to lead away from.
        generators: one for each image.
        pixels: the number of pixels to replace.
        population: the number of individuals in a generation.
        generations: the largest number of generations after the first.
        mutation: range of the weight of the difference of two individuals that is added to the
            best; drawn once a generation.
        recombination: probability that a gene comes from the mutant.
        bounds: of the channels' values; values beyond [0, 1] are searched unclipped, and the caller
            then clips them.
        success: 'best' if only the best individual can end the search, as in the public code, or
            'any' if each can, also one that makes the label more likely than another does.
        target: the class to reach, None for any but the label.

    Returns:
        `log` has a row a generation: the best individual's `energy` (the probability of the label,
        or minus that of the target) and `prediction`, the `evaluations` so far and whether the goal
        is `reached`, before any clipping. `successes`, with a target only: whether the clipped
        image is predicted as the target. Without a target the caller judges success: the clipped
        image's prediction differs, on the model that is attacked in the end.

    Departs: the public code also puts a new best individual in the first member's place, and cuts
    colours to whole grey levels.

    Raises:
        SettingsError: the model has no class `target`.
    """
    with torch.no_grad():
        logits = model(images)
    if target is not None and target >= logits.shape[1]:
        raise SettingsError(f"target: wanted a class below {logits.shape[1]}, got {target}")
    targeted = target is not None
    aims = labels if target is None else torch.full_like(labels, target)
    standing = (logits.argmax(1) == aims) != targeted
    change = torch.zeros_like(images)
    evaluations = torch.zeros(len(images), dtype=torch.int64)
    log: list[dict] = []
    decode = partial(_replacements, shape=images.shape[1:], bounds=bounds)
    waiting = standing.nonzero().flatten()
    for start in range(0, len(waiting), model.micro_batch):
        rows = waiting[start : start + model.micro_batch]
        searches = [
            _search(
                int(aims[row]),
                targeted,
                success == "any",
                generators[row],
                population,
                (2 + images.shape[1]) * pixels,
                place,
            )
            for place, row in enumerate(rows)
        ]
        breed = partial(_trials, mutation=mutation, recombination=recombination)
        records = _evolve(Incremental(model, images[rows]), searches, generations, breed, decode)
        log += [row | {"image": int(rows[row["image"]])} for row in records]
        best = np.stack([search.population[search.best] for search in searches])
        change[rows] = painted(images[rows], *decode(best)) - images[rows]
        evaluations[rows] = torch.tensor([search.evaluations for search in searches])
    log.sort(key=lambda row: (row["image"], row["generation"]))
    successes = None
    if targeted:
        with torch.no_grad():
            successes = (model((images + change).clamp(0, 1)).argmax(1) == aims) & standing
    return Perturbation(change, evaluations, log, successes)


def _evolve(
    incremental: Incremental,
    searches: list[_Search],
    generations: int,
    breed: Callable[[_Search], np.ndarray],
    decode: Callable[[np.ndarray], tuple[Tensor, Tensor]],
) -> list[dict]:
    """Runs searches in parallel, each until it reaches its goal, and returns the log."""
    log = []
    for generation in range(generations + 1):
        trials = [breed(each) if generation else each.population.copy() for each in searches]
        _evaluate(incremental, decode, searches, trials)
        log += [
            {
                "image": search.image,
                "generation": generation,
                "evaluations": search.evaluations,
                "energy": float(search.energies[search.best]),
                "prediction": int(search.predictions[search.best]),
                "reached": search.reached,
            }
            for search in searches
        ]
        searches = [search for search in searches if not search.reached]
        if not searches:
            break
    return log


def _search(
    aim: int,
    targeted: bool,
    by_any: bool,
    generator: np.random.Generator,
    members: int,
    genes: int,
    image: int,
) -> _Search:
    """Returns a search that starts from a Latin hypercube.

    Each gene has one member in each of n equal parts of [0, 1], for n members.
    """
    spread = (np.arange(members)[:, None] + generator.random((members, genes))) / members
    population = generator.permuted(spread, axis=0)
    nothing = np.full(members, np.inf), np.full(members, -1)
    return _Search(image, aim, targeted, by_any, generator, population, *nothing)


def _trials(search: _Search, *, mutation: Sequence[float], recombination: float) -> np.ndarray:
    """Returns a trial for each member, best1bin.

    The mutant is the best member plus a weighted difference of two others; the trial takes each
    gene from it with probability `recombination`, at least one gene. Genes outside [0, 1] are
    drawn again.
    """
    rng, population = search.generator, search.population
    members, genes = population.shape
    weight = rng.uniform(mutation[0], mutation[1])
    own = np.arange(members)
    first = rng.integers(1, members, members)
    second = rng.integers(1, members - 1, members)
    second += second >= first
    one, other = population[(own + first) % members], population[(own + second) % members]
    mutants = population[search.best] + weight * (one - other)
    mutated = rng.random((members, genes)) < recombination
    mutated[own, rng.integers(0, genes, members)] = True
    trials = np.where(mutated, mutants, population)
    outside = (trials < 0) | (trials > 1)
    trials[outside] = rng.random(int(outside.sum()))
    return trials


def _evaluate(
    incremental: Incremental,
    decode: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    searches: list[_Search],
    trials: list[np.ndarray],
) -> None:
    """Evaluates the trials of all searches together and gives each search its own results."""
    members = len(trials[0])
    owners, aims = (
        torch.tensor([getattr(search, name) for search in searches]).repeat_interleave(members)
        for name in ("image", "aim")
    )
    logits = incremental.logits(owners, *decode(np.concatenate(trials)))
    # In float64, because a confident model's probabilities would all be 1 in float32.
    chances = logits.double().softmax(1).gather(1, aims[:, None]).view(-1, members).numpy()
    predictions = logits.argmax(1).view(-1, members).numpy()
    for search, own_trials, chance, predicted in zip(
        searches, trials, chances, predictions, strict=True
    ):
        search.take(own_trials, -chance if search.targeted else chance, predicted)


def _replacements(
    genes: np.ndarray, *, shape: Sequence[int], bounds: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Returns rows and columns, int64 (n, k, 2), and colours, (n, k, channels), of individuals.

    Args:
        genes: of individuals, (n, k * (2 + channels)), in [0, 1].
        shape: channels, height and width of the images.
        bounds: of the colours' values.
    """
    low, high = bounds
    channels, *sides = shape
    pixels = genes.reshape(len(genes), -1, 2 + channels)
    places = np.floor(pixels[..., :2] * sides).clip(max=np.array(sides) - 1)
    colours = low + pixels[..., 2:] * (high - low)
    return torch.from_numpy(places.astype(np.int64)), torch.from_numpy(colours.astype(np.float32))

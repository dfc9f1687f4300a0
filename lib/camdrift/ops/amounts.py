"""Amounts: the work of a stage, counted from its settings in a unit that is its group's own.

The unit does not matter, since a pinch of the same stage is counted in it, too. Groups that are not
in `GROUPS` have as much work with few images as with many, or nearly so: they write reports.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Content = Mapping[str, Any]  # of a params.yaml
FORWARD = 1 / 3  # of a training step, which goes forward and, at twice the cost, back


@dataclass(frozen=True)
class Stage:
    """A stage's item in a params.yaml, all of that, and the images of the item's set by split."""

    item: Content
    content: Content
    images: Mapping[str, int]


def _tests(stage: Stage) -> int:
    """Returns the images that are attacked, of which a cell may limit the number."""
    count = stage.images["test"]
    return min(stage.item.get("images") or count, count)


def _training(stage: Stage) -> float:
    tests, training = stage.images["test"], stage.item["training"]
    if training is None:
        return FORWARD * tests
    train, validation = (stage.images.get(split, 0) for split in ("train", "validation"))
    images = max(1, train // training["batch"]) * training["batch"]
    return training["epochs"] * (images + FORWARD * validation) + FORWARD * tests


def _attacked(stage: Stage) -> float:
    return min(stage.item["attacked"]["test"], _tests(stage))


def _detected(stage: Stage) -> float:
    """Returns images in all their variants: clean, and attacked and noisy at each strength."""
    images = min(stage.content["detection"]["images"], _tests(stage))
    return images * (1 + 2 * len(stage.item["detect"]))


@dataclass(frozen=True)
class Group:
    """A group of stages whose work grows with the number of images.

    amount: counts the work of one of its stages.
    patience: None where pinches of two sizes are compared. A group that is slow even at the
        smallest size is tried at one size alone. If that run ends within this many seconds it is
        repeated, since compiling and loading may have been a large part of it.
    is_alone: whether it is tried while no other is, since it has all threads. Groups that work at
        shards have one.
    """

    amount: Callable[[Stage], float]
    patience: float | None = None
    is_alone: bool = False


PATIENCE = 3.0
GROUPS = {
    "train": Group(_training, is_alone=True),
    "retrain": Group(_attacked, PATIENCE, is_alone=True),
    # UMAP is compiled, once, in ten seconds.
    "signatures": Group(_attacked, math.inf, is_alone=True),
    "gradient_sign": Group(_tests, is_alone=True),
    "transfer": Group(_tests),
    "attack": Group(_tests),
    "noise": Group(_tests),
    "cam": Group(_tests),
    "score": Group(_tests),
    "detect": Group(_detected, PATIENCE),
}


def images(stage: Stage, *, in_shards: bool) -> float:
    """Returns how many images decide the memory of a stage.

    Networks hold a micro-batch, and arrays a shard of a few micro-batches or all images: it is the
    geometric mean of these two, as a pinch does not tell them apart.
    """
    training = stage.item.get("training")
    batch = training["batch"] if training else stage.content["micro_batch"]
    count = stage.images.get("train", 0) if training else _tests(stage)
    return math.sqrt(batch * max(batch, min(count, SHARD * batch) if in_shards else count))


SHARD = 4  # micro-batches of a shard, at most

"""Splits of images for training, validation and tests, by a hash of their names."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from camdrift.datasets import folders
from camdrift.pipeline import randomness
from camdrift.settings import SettingsError

SPLITS = ("train", "validation", "test")


def split_entries(
    root: Path,
    entries: Sequence[folders.Entry],
    shares: dict[str, float],
    limits: dict[str, int],
    seed: int,
    *,
    fold: int,
) -> tuple[list[str], list[str]]:
    """Returns the names of a folder's images, relative to it, and the split of each.

    Raises:
        SettingsError: as `assign_splits`, no image is tested, or a fold other than 0 although
            folders name the splits.
    """
    own_splits = [entry.split for entry in entries]
    if fold and any(own_splits):
        raise SettingsError(
            f"{root} holds folders of splits, which have no folds; wanted fold: 0, got {fold}"
        )
    names = [entry.file.relative_to(root).as_posix() for entry in entries]
    labels = [entry.label for entry in entries]
    splits = assign_splits(names, labels, shares, limits, seed, fold=fold, own_splits=own_splits)
    if "test" not in splits:
        most = max(Counter(labels).values())
        raise SettingsError(
            f"no test image: shares.test is {shares['test']:g} and limits.test {limits['test']}, "
            f"and no class has more than {most} of the {len(names)} images; raise shares.test or "
            "limits.test, or add images"
        )
    return names, splits


def assign_splits(
    names: Sequence[str],
    labels: Sequence[int],
    shares: dict[str, float],
    limits: dict[str, int],
    seed: int,
    *,
    fold: int = 0,
    own_splits: Sequence[str | None] | None = None,
) -> list[str]:
    """Returns each image's split, or '' where its class exceeds the limit of its split.

    Within a class the images are ordered by a hash of (seed, name) and cut at the shares: a new
    image does not change the order of the others. Each further `fold` rotates the order by the
    number of test images, so that no image is tested in two folds. Images of a folder of a split,
    as `own_splits` names it, stay in it, and are ordered among themselves for its limit; see
    `folders.DIVIDED`.

    Raises:
        SettingsError: a class has too few images for that many folds.
    """
    frame = pd.DataFrame({"name": names, "label": labels})
    frame["own"] = [split or "" for split in own_splits or [None] * len(names)]
    frame["rank"] = [randomness.entropy(seed, "split", name) for name in names]
    splits = [""] * len(frame)
    for (_, own), group in frame.groupby(["label", "own"]):
        order = group.sort_values("rank").index
        parts = _shares(own, shares)
        ends = np.round(np.cumsum([parts[split] for split in SPLITS]) * len(order)).astype(int)
        test_count = ends[2] - ends[1]
        if (fold + 1) * test_count > len(order):
            raise SettingsError(
                f"fold {fold} would test images of another fold again: a class has {len(order)} "
                f"images and a fold tests {test_count}; wanted a smaller shares.test or fewer folds"
            )
        order = np.roll(order, fold * test_count)
        for split, start, end in zip(SPLITS, [0, *ends[:-1]], ends, strict=True):
            for i in order[start : min(end, start + limits[split])]:
                splits[i] = split
    return splits


def _shares(own: str, shares: dict[str, float]) -> dict[str, float]:
    """Returns the shares for images whose own split is `own`, '' where they have none."""
    if not own:
        return shares
    if own == folders.DIVIDED:
        both = shares["train"] + shares["validation"]
        train = shares["train"] / both if both else 1.0
        return {"train": train, "validation": 1 - train, "test": 0.0}
    return {split: float(split == own) for split in SPLITS}

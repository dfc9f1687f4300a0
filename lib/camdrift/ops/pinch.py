"""Pinch: a study like another, of a few images and little training, in a folder of its own."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from camdrift import storage
from camdrift.models import weights
from camdrift.ops import needs
from camdrift.ops.needs import Counted
from camdrift.settings import ModelSettings, Settings, params
from camdrift.settings.section import sides
from camdrift.storage import ImageSet, files

Content = dict[str, Any]  # of a params.yaml
Splits = Mapping[str, Mapping[str, int]]  # images by set and split
# Linked into the folder: the stages and what they read beside params.yaml.
CODE = ("lib", "stages", "dvc.yaml", "constraints.txt")
# Settings of the user's own code, in which a key means what that code says.
OWN = ("attacks", "override", "detectors")
# Images that detectors see, some of which calibrate and others test, and that a retraining attacks.
FEWEST = 4
SMALL = 96  # px


@dataclass(frozen=True)
class Size:
    """The size of a pinch.

    images: of a set's test split.
    micro_batch: of models' calls, of which the images are a multiple, so that no call is padded.
    batch: training images of a step, at most.
    steps: of an epoch.
    """

    images: int
    micro_batch: int
    batch: int
    steps: int


def sizes(plan: Settings) -> tuple[Size, Size]:
    """Returns the sizes of two pinches, whose difference is the cost of an image.

    Each has about two calls of a network, so that the fixed cost of a call, which hardly counts in
    a study's larger micro-batches, cancels out. Small images are more in number, since little work
    is hard to time.
    """
    if max(max(sides(image_set.size)) for image_set in plan.sets.values()) > SMALL:
        return Size(2, 2, 16, 1), Size(4, 4, 16, 3)
    return Size(2, 2, 32, 1), Size(8, 4, 32, 6)


def splits(counts: Mapping[str, Counted], size: Size) -> dict[str, dict[str, int]]:
    """Returns the number of images by set and split; a split without images stays without."""
    numbers = {}
    for name, counted in counts.items():
        whole = counted.splits
        train = size.batch * size.steps
        validation = round(train * whole.get("validation", 0) / max(1, whole.get("train", 0)))
        sizes = {"train": train, "validation": max(1, validation), "test": size.images}
        numbers[name] = {split: n if whole.get(split) else 0 for split, n in sizes.items()}
    return numbers


def content(plan: Settings, whole: Splits, small: Splits, size: Size) -> Content:
    """Returns the params.yaml of a pinch.

    Args:
        plan: the settings of the study.
        whole: images of the study.
        small: images of the pinch.
        size: of the pinch.
    """
    limits = {
        "micro_batch": size.micro_batch, "images": FEWEST, "epochs": 1, "batch": size.batch,
        "examples": 1,
    }  # fmt: skip

    def shrink(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        smaller = {key: item if key in OWN else shrink(item) for key, item in value.items()}
        for key, most in limits.items():
            if isinstance(smaller.get(key), int):
                smaller[key] = min(smaller[key], most)
        if smaller.get("detect"):
            smaller["detect"] = [1.0]
        if "attacked" in smaller:
            smaller |= _retraining(value, whole[value["set"]], small[value["set"]], size)
        return smaller

    return shrink(plan.model_dump(mode="json"))


def _retraining(
    settings: Content, whole: Mapping[str, int], small: Mapping[str, int], size: Size
) -> Content:
    """Returns a retraining's settings in which attacks and training keep their proportion."""
    tests = min(settings["attacked"]["test"], whole["test"])
    share = min(1.0, FEWEST / tests)
    trains = min(settings["attacked"]["train"], whole["train"]) * share
    images = share * settings["training"]["epochs"] * whole["train"]  # over all epochs
    training = settings["training"] | {
        "epochs": max(1, round(images / max(1, small["train"]))),
        "batch": min(settings["training"]["batch"], size.batch),
    }
    attacked = {"train": max(1, round(trains)), "test": round(share * tests)}
    return {"attacked": attacked, "training": training}


def write(folder: Path, plan: Settings, counts: Mapping[str, Counted], size: Size) -> Content:
    """Writes a pinch into a folder, all but what its stages write, and returns its params.yaml.

    Weights that are still to be downloaded are replaced by random ones, images by noise.
    """
    whole = {name: counted.splits for name, counted in counts.items()}
    small = splits(counts, size)
    settings = content(plan, whole, small, size)
    for name, model in plan.models.items():
        settings["models"][name] |= _weights(folder, name, model, plan, counts)
    for part in CODE:
        (folder / part).symlink_to(Path(part).resolve())
    files.write_json(folder / params.PARAMS, settings)
    for name, counted in counts.items():
        of = plan.sets[name]
        shape = *sides(of.size), of.channels
        images = image_set(counted, small[name], shape, seed=plan.seed)
        storage.write(folder / storage.set_folder(name), images)
        _sign(folder / storage.set_folder(name))
    return settings


def _weights(
    folder: Path, name: str, model: ModelSettings, plan: Settings, counts: Mapping[str, Counted]
) -> Content:
    if model.is_file:
        return {"weights": Path(str(model.weights)).resolve().as_posix()}
    if model.weights is None or weights.file(model).is_file():
        return {}
    file = folder / f"{name}.safetensors"
    network = needs.network(
        model, classes=counts[model.set].classes, size=model.size or plan.sets[model.set].size
    )
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
    return {"weights": file.as_posix(), "sha256": files.sha256(file)}


def image_set(
    counted: Counted, images: Mapping[str, int], shape: Sequence[int], *, seed: int
) -> ImageSet:
    """Returns a set that repeats a handful of images, moved to the side so that none is another.

    `shape` is that of an image: height, width and channels. A training image more has the last
    class where no image has it: networks count classes by it.
    """
    sample, labels = counted.sample, counted.labels
    if not len(sample):
        rng = np.random.default_rng(seed)
        sample = rng.integers(0, 256, (needs.HANDFUL, *shape), dtype=np.uint8)
        labels = rng.integers(0, counted.classes, needs.HANDFUL)
    names = [split for split, count in images.items() for _ in range(count)] + ["train"]
    places = np.arange(len(names)) % len(sample)
    pixels = np.stack([np.roll(sample[at], 3 * i, axis=1) for i, at in enumerate(places)])
    ids = [f"{split}_{i:05d}" for i, split in enumerate(names)]
    label = np.append(labels[places[:-1]], counted.classes - 1).astype(int)
    index = pd.DataFrame({"id": ids, "label": label, "class_name": label.astype(str)})
    index = index.assign(split=names, source=ids, licence="", sha256="")
    return ImageSet(pixels, index, {"unreadable_files": 0, "split_by": "shares"})


def copy(path: Path, other: Path) -> None:
    """Copies a file, or an artefact whose manifest then names its new folder; keeps what is there.

    Both paths are those of outputs in a pinch.
    """
    if other.exists() or not path.exists():
        return
    other.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        shutil.copy(path, other)
        return
    shutil.copytree(path, other)
    if (other / files.MANIFEST).exists():
        _sign(other)


def _sign(folder: Path) -> None:
    """Names an artefact's folder in its manifest, from `data` on, as stages know it."""
    file = folder / files.MANIFEST
    inside = folder.relative_to(next(p for p in folder.parents if (p / storage.DATA).is_dir()))
    files.write_json(file, files.read_json(file) | {"folder": inside.as_posix()})

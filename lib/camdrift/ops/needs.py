"""Needs: what a study takes from elsewhere, images, weights, functions. Is it there, does it fit?

Nothing is downloaded here, and of many images a handful is decoded.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from camdrift.datasets import folders, images, numbering, pictures
from camdrift.datasets.links import Reach
from camdrift.datasets.preprocessing import preprocessor
from camdrift.datasets.splits import SPLITS, split_entries
from camdrift.models import architectures
from camdrift.models import weights as sources
from camdrift.pipeline.vision import torchvision
from camdrift.settings import ImageSetSettings, ModelSettings, SettingsError
from camdrift.settings.presets import Need
from camdrift.settings.section import sides
from camdrift.storage import ImageSet, files

HANDFUL = 5  # images of a set that are decoded
TERMS = "torchvision's, BSD-3-Clause; of weights trained on ImageNet see its terms of access"


@dataclass(frozen=True)
class Counted:
    """Images of a set before it is built.

    splits: number of images by split, at most.
    classes: number of them.
    sample: uint8 (n, height, width, channels), some of them as the set will hold them; none where
        they are still to be downloaded.
    labels: (n,), the classes of these.
    seconds: what reading and resizing one of them takes.
    native: bytes of one as it is decoded, at its own size.
    read: number of files that are decoded to build the set.
    notes: what is to be known, a line each.
    """

    splits: Mapping[str, int]
    classes: int
    sample: np.ndarray
    labels: np.ndarray
    seconds: float
    native: float
    read: int
    notes: tuple[str, ...] = ()


def counted(name: str, settings: ImageSetSettings, *, seed: int, need: Need | None) -> Counted:
    """Returns the images of a set, counted, and a handful of them decoded.

    Args:
        name: of the set.
        settings: of the set.
        seed: of the splits.
        need: what the set's folder is to hold, None where no preset says so.

    Raises:
        SettingsError: there are no images, or a table of labels does not fit them.
    """
    if settings.kind == "folder":
        try:
            return _of_folder(name, settings.model_dump(), seed)
        except SettingsError as fault:
            place = "" if str(fault).startswith(f"sets.{name}") else f"sets.{name}: "
            raise SettingsError(f"{place}{fault}") from fault
    if settings.kind == "torchvision":
        return _of_torchvision(name, settings.model_dump(), need)
    build: Callable[..., ImageSet] = images.photos if settings.kind == "photos" else images.digits
    began = time.perf_counter()
    built = build(seed=seed, **settings.model_dump(exclude={"kind", "path"}))
    took = (time.perf_counter() - began) / len(built.index)
    splits = built.index["split"].value_counts().to_dict()
    native = float(built.pixels[0].nbytes)
    labels = built.index["label"].to_numpy()
    some = np.array(_some(range(len(labels))))
    return Counted(
        splits, int(labels.max()) + 1, built.pixels[some], labels[some], took, native, len(labels)
    )


def _of_folder(name: str, settings: dict[str, Any], seed: int) -> Counted:
    root = Path(settings["path"])
    entries = folders.entries(root, settings["labels"], settings["links"])
    reach = Reach.from_settings(settings["path"], settings["links"])
    labels = [entry.label for entry in entries]
    shares, limits = settings["shares"], settings["limits"]
    _, splits = split_entries(root, entries, shares, limits, seed, fold=settings["fold"])
    used = [entry for entry, split in zip(entries, splits, strict=True) if split]
    reads = [lambda at=at: (pictures.decode(reach.within(at.file)), at.label) for at in _some(used)]
    counts = {split: splits.count(split) for split in SPLITS}
    sample, own, seconds, native, notes = _decoded(name, reads, settings)
    return Counted(counts, max(labels) + 1, sample, own, seconds, native, len(used), notes)


def _some(items: Sequence[Any]) -> list[Any]:
    """Returns a handful of items, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(HANDFUL, len(items))).astype(int)
    return [items[place] for place in places]


def _decoded(
    name: str, reads: Sequence[Callable[[], tuple[np.ndarray, int]]], settings: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, float, float, tuple[str, ...]]:
    """Returns decoded images, their classes, seconds and native bytes of one, and notes.

    A note is of an image that cannot be read.
    """
    prepare = preprocessor(settings["preprocessing"])
    pixels, labels, sizes, notes = [], [], [], []
    began = time.perf_counter()
    for read in reads:
        try:
            picture, label = read()
            fit = settings["resize"], settings["size"], settings.get("channels", 3)
            pixels.append(pictures.fit(prepare(picture), *fit))
            labels.append(label)
            sizes.append(picture.nbytes)
        except SettingsError:
            raise
        except Exception as fault:  # Pillow's readers and users' functions raise anything
            notes.append(f"sets.{name}: one of a handful cannot be read: {fault}")
    took = (time.perf_counter() - began) / max(1, len(reads))
    if not pixels:
        raise SettingsError("\n".join(notes))
    return np.stack(pixels), np.array(labels), took, float(np.mean(sizes)), tuple(notes)


def _of_torchvision(name: str, settings: dict[str, Any], need: Need | None) -> Counted:
    arguments = settings["arguments"]
    shape = *sides(settings["size"]), settings.get("channels", 3)
    kind = getattr(torchvision.datasets, settings["dataset"], None)
    if kind is None:
        raise SettingsError(
            f"sets.{name}.dataset: no '{settings['dataset']}' in torchvision.datasets"
        )
    downloads = arguments.get("download", False)
    try:
        source = kind(**(arguments | ({"download": False} if "download" in arguments else {})))
    except TypeError as fault:
        raise SettingsError(f"sets.{name}.arguments: {fault}") from fault
    except (RuntimeError, OSError, ValueError) as fault:
        if not downloads or need is None or need.images is None or need.classes is None:
            tail = "" if downloads else "; `download: true` in arguments allows it"
            raise SettingsError(
                f"sets.{name}: {settings['dataset']} is not in {arguments.get('root')} and cannot "
                f"be counted before it is downloaded{tail}: {fault}"
            ) from fault
        note = f"{need.megabytes or '?'} MB of images would be downloaded to {arguments['root']}"
        number, classes, text = need.images, need.classes, need.lacking(note)
        sample, labels = np.zeros((0, *shape), np.uint8), np.zeros(0, int)
        seconds, native, notes = 0.0, 3.0 * shape[0] * shape[1], tuple(text.splitlines())
    else:
        number = len(source)
        listed = len(getattr(source, "classes", None) or []) or 2
        classes = need.classes if need is not None and need.classes else listed
        reads = [lambda i=i: _item(source[i]) for i in _some(range(number))]
        sample, labels, seconds, native, notes = _decoded(name, reads, settings)
    ends = np.cumsum([settings["shares"][split] for split in SPLITS]) * (number / classes)
    each = np.diff(np.round(ends), prepend=0)
    splits = {
        split: classes * min(int(n), settings["limits"][split])
        for split, n in zip(SPLITS, each, strict=True)
    }
    return Counted(splits, classes, sample, labels, seconds, native, number, notes)


def _item(item: tuple[Any, Any]) -> tuple[np.ndarray, int]:
    image, label = item
    return np.asarray(image.convert("RGB")), int(label)


def numbered(name: str, settings: ModelSettings, of: ImageSetSettings) -> None:
    """Checks that the classes of a folder, if it is there, are those that a model numbers.

    Raises:
        SettingsError: they are not, see `numbering`.
    """
    if of.kind == "folder" and not of.labels and Path(of.path).is_dir():
        numbering.refuse_other_classes(name, settings, folders.classes(Path(of.path), of.links))


def weights(name: str, settings: ModelSettings) -> list[str]:
    """Returns what is to be known of a model's weights, a line each; none where there are none.

    Raises:
        SettingsError: a file is not there or not the one that its sha256 names, or torchvision
            has no weights of that name.
    """
    place = f"models.{name}"
    if settings.weights is None:
        return []
    try:
        file = sources.file(settings)
        if settings.is_file:
            digest = sources.checksum(settings)
            if settings.sha256:
                return [f"{place}: {file.name} is there, its sha256 is right"]
            return [f"{place}: {file.name} is there; its line in the settings, so that a change of "
                    "the file is noticed:", f"  sha256: {digest}"]  # fmt: skip
    except SettingsError as fault:
        raise SettingsError(f"{place}.weights: {fault}") from fault
    label, size = "weights", "they"
    if not settings.is_url:
        known = sources.torchvisions(settings)
        label, size = str(known), f"{known.meta['_file_size']:.0f} MB"
    if not file.is_file():
        return [
            f"{place}: {label} are not in {file.parent}; {size} would be downloaded",
            f"  where: {sources.url(settings)}; without a network, put that file there",
            f"  terms: {'of their publisher' if settings.is_url else TERMS}",
        ]
    digits = settings.sha256 or ((match := sources.NAMED.search(file.name)) and match[1]) or ""
    if not (digest := files.sha256(file)).startswith(digits):
        raise SettingsError(f"{file} is damaged: wanted a sha256 of {digits[:8]}..., got {digest}")
    return [f"{place}: {label} are in {file.parent}"]


def network(settings: ModelSettings, *, classes: int, size: int | Sequence[int]) -> nn.Module:
    """Returns a model's network with random weights; what makes it is called once.

    Those of full width are not initialised by their own draws, which would take seconds.

    Raises:
        RefusedError: there is no such network, it cannot be imported or does not run.
    """
    arguments = settings.model_dump(include={"architecture", "width", "head", "arguments"})
    count = settings.classes or classes
    module = architectures.build(
        **arguments, classes=count, size=size, channels=settings.channels, initialised=False
    )
    if any(value.is_meta for value in module.parameters()):
        module.to_empty(device="cpu")
        for key, value in [*module.named_parameters(), *module.named_buffers()]:
            with torch.no_grad():
                _fill(key, value)
    return module


def _fill(key: str, value: torch.Tensor) -> None:
    """Fills a tensor with what lets activations neither vanish nor overflow."""
    if value.dim() > 1:
        bound = (6 / value[0].numel()) ** 0.5
        value.uniform_(-bound, bound)
    elif value.is_floating_point() and key.endswith(("weight", "running_var")):
        value.fill_(1)
    else:
        value.zero_()

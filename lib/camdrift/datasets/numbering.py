"""A check that the folders that number a set's classes are the classes of a model."""

import importlib
from collections.abc import Sequence

from camdrift.settings import ModelSettings, SettingsError

IMAGENET = 1000  # classes


def refuse_other_classes(name: str, settings: ModelSettings, folders: Sequence[str]) -> None:
    """Raises SettingsError where the folders are not the ones that a model's `classes` number.

    A folder without a table of labels numbers its subfolders in sorted order. ImageNet's are named
    by wnid, and torchvision's classes 0-999 are all 1,000 of them in that order. A model whose
    `classes` are null uses the classes of its set.

    Args:
        name: the model's name.
        settings: the model's settings.
        folders: the names of the folders of the set's classes, in their order.
    """
    if settings.classes is None:
        return
    imagenet = (
        settings.weights is not None and not settings.is_file and settings.classes == IMAGENET
    )
    wnids = _wnids() if imagenet else []
    if len(folders) == settings.classes and (not imagenet or list(folders) == wnids):
        return
    names = f" named by wnid ({wnids[0]} to {wnids[-1]})" if imagenet else ""
    first = f", from '{folders[0]}' to '{folders[-1]}'" if folders else ""
    raise SettingsError(
        f"sets.{settings.set}: wanted {settings.classes:,} folders of classes{names}, one for each "
        f"class of '{name}' (models.{name}.classes), got {len(folders)}{first}\n"
        "  where: their sorted order is their number, so one that lacks shifts all behind it\n"
        f"  else: a CSV of numbers, sets.{settings.set}.labels={{csv: images.csv, image: ImageId, "
        "label: TrueLabel, offset: 0}"
    )


def _wnids() -> list[str]:
    # timm imports torchvision, which may fail without camdrift's own import of it.
    importlib.import_module("camdrift.pipeline.vision")
    return list(importlib.import_module("timm.data").ImageNetInfo("imagenet-1k").label_names())

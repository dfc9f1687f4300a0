"""Whether the folders that number a set's classes are the classes of a model."""

import importlib
from collections.abc import Sequence

from camdrift.settings import ModelSettings, SettingsError

IMAGENET = 1000  # classes


def refuse_other_classes(name: str, chosen: ModelSettings, there: Sequence[str]) -> None:
    """Raises SettingsError where the folders are not those that a model's `classes` number.

    A folder without a table of labels numbers its subfolders in sorted order. ImageNet's are named
    by wnid, and torchvision's classes 0-999 are all 1,000 of them in that order. A model whose
    `classes` are null takes those of its set.

    Args:
        name: of the model.
        chosen: its settings.
        there: the names of the folders of the set's classes, in their order.
    """
    if chosen.classes is None:
        return
    imagenet = chosen.weights is not None and not chosen.is_file and chosen.classes == IMAGENET
    wnids = _wnids() if imagenet else []
    if len(there) == chosen.classes and (not imagenet or list(there) == wnids):
        return
    names = f" named by wnid ({wnids[0]} to {wnids[-1]})" if imagenet else ""
    first = f", from '{there[0]}' to '{there[-1]}'" if there else ""
    raise SettingsError(
        f"sets.{chosen.set}: wanted {chosen.classes:,} folders of classes{names}, one for each "
        f"class of '{name}' (models.{name}.classes), got {len(there)}{first}\n"
        "  where: their sorted order is their number, so one that lacks shifts all behind it\n"
        f"  else: a CSV of numbers, sets.{chosen.set}.labels={{csv: images.csv, image: ImageId, "
        "label: TrueLabel, offset: 0}"
    )


def _wnids() -> list[str]:
    # timm imports torchvision, which may not load alone.
    importlib.import_module("camdrift.pipeline.vision")
    return list(importlib.import_module("timm.data").ImageNetInfo("imagenet-1k").label_names())

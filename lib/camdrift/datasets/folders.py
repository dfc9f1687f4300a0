"""Folders of images: the files of a set, with the label and the split of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from camdrift.datasets import listing, table
from camdrift.datasets.links import Reach
from camdrift.settings import SettingsError

# Names of folders of splits, in lower case.
SPLITS = {
    "train": "train", "training": "train", "train_set": "train", "training_set": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "val_set": "validation", "validation_set": "validation",
    "test": "test", "testing": "test", "test_set": "test", "testing_set": "test", "eval": "test",
}  # fmt: skip
# The split of `train` without a folder of validation images: divided in the ratio of the shares.
DIVIDED = "train+validation"


class Entry(NamedTuple):
    """An image file of a set.

    split: the one that its folder names, `DIVIDED` if that must be divided in two, or None if the
        set's shares decide.
    """

    file: Path
    label: int
    class_name: str
    split: str | None


def entries(root: Path, labels: dict | None, links: str | None = None) -> list[Entry]:
    """Returns the image files of a folder in sorted order, each with label, class name and split.

    The layout is ImageFolder's (a class a subfolder), or any folder with a table of labels: then
    `labels` names the CSV file and its columns. If the subfolders are splits (`train`, `val`,
    `test`, see `SPLITS`), classes are the subfolders of these, numbered over all splits, and images
    keep the split of their folder; without a test folder, the validation images are tested.

    Links to files are listed, see `links.Reach`; those to folders are followed where `links`, a
    folder that links may lead to, is not None. The terminal names what is left out: hidden and
    system folders and files, links to folders that are not followed, files that are no images,
    images without a class; and the splits, and folders of classes that hold no image.

    Raises:
        SettingsError: there is no such folder, it holds no image, a file has no label, a file's
            name is not UTF-8, the folder of a class is a link that is not followed, links lead
            round in a circle, or folders of splits are mixed with others, have no classes, lack
            test images, or hold classes without training images.
    """
    reach = Reach.from_settings(str(root), links)
    remainder = listing.Remainder(root)
    splits = _splits(root)
    if labels:
        folder_splits = splits if "test" in splits.values() else {}
        images = _from_table(reach, folder_splits, remainder, labels)
    elif splits:
        images = _from_splits(reach, splits, remainder)
    else:
        images = _from_subfolders(reach, remainder)
    remainder.report()
    if not images:
        loose = f" (images beside them: {len(remainder.strays)})" if remainder.strays else ""
        raise SettingsError(
            f"no image in the subfolders of {root}{loose}; wanted {root}/<class>/<image>, or set "
            "`labels:` with the CSV file that names each image's class"
        )
    for entry in images:
        name = entry.file.relative_to(root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError as fault:
            raise SettingsError(
                f"the name {ascii(name)} in {root} is not UTF-8, which images are identified by; "
                "rename it"
            ) from fault
    return images


def classes(root: Path, links: str | None = None) -> list[str]:
    """Returns the names of the classes of a folder without a table of labels, in their order.

    Raises:
        SettingsError: as `entries`, for links and for folders of splits.
    """
    reach = Reach.from_settings(str(root), links)
    return _class_names(reach, _split_folders(reach, _splits(root)) or [root])


def _splits(root: Path) -> dict[str, str]:
    """Returns the split of each subfolder, {} if the subfolders are not splits.

    A single such name among others is a class (a train beside cars).

    Raises:
        SettingsError: several are mixed with others, or two name the same split.
    """
    folders = _subfolders(root)
    splits = {folder.name: SPLITS.get(folder.name.lower()) for folder in folders}
    names_of_splits = [split for split in splits.values() if split]
    other = [name for name, split in splits.items() if not split]
    if not names_of_splits or (other and len(names_of_splits) == 1):
        return {}
    if other:
        there = ", ".join(sorted(set(splits) - set(other)))
        raise SettingsError(
            f"{root} holds folders that are named like splits ({there}) beside others ({other[0]} "
            f"and {len(other) - 1} more); wanted either splits or classes: set `path` to the "
            "folder of one split, or rename those that are classes"
        )
    if len(set(names_of_splits)) < len(names_of_splits):
        raise SettingsError(
            f"{root} holds two folders of one split: {', '.join(sorted(splits))}; wanted one of "
            "each"
        )
    by_split = {split: name for name, split in splits.items() if split}
    split_of = {name: split for split, name in by_split.items()}
    if "test" not in by_split and "validation" in by_split:
        split_of[by_split["validation"]] = "test"
    if "train" in by_split and "validation" not in split_of.values():
        split_of[by_split["train"]] = DIVIDED
    return split_of


def _from_splits(
    reach: Reach, splits: Mapping[str, str], remainder: listing.Remainder
) -> list[Entry]:
    root = reach.root
    if "test" not in splits.values():
        (only,) = splits
        raise SettingsError(
            f"{root} holds the training split alone; wanted a folder of test images beside it, or "
            f"path: {root / only}, whose images `shares` would then split"
        )
    for folder in (root, *_split_folders(reach, splits)):
        _name_left_out(folder)
        remainder.add_strays(folder)
    names = _class_names(reach, _split_folders(reach, splits))
    if not names:
        raise SettingsError(
            f"the folders {', '.join(splits)} of {root} are named like splits and hold no folders "
            "of classes; wanted <split>/<class>/<image>. If they are the classes, rename them; if "
            "the classes stand in a CSV file, set `labels:`"
        )
    numbers = {name: number for number, name in enumerate(names)}
    images = [
        Entry(file, numbers[folder.name], folder.name, split)
        for name, split in splits.items()
        for folder in _classes(reach, root / name)
        for file in listing.images(reach, folder, remainder, _above(reach, folder))
    ]
    by_split: dict[str, set[str]] = {}
    for entry in images:
        by_split.setdefault(str(entry.split), set()).add(entry.class_name)
    training_classes = by_split.get("train", set()) | by_split.get(DIVIDED, set())
    strange = sorted(set().union(*by_split.values()) - training_classes) if training_classes else []
    if strange:
        raise SettingsError(
            f"{root}: class '{strange[0]}' and {len(strange) - 1} more have images to test or "
            "validate and none to train; wanted the classes of each split among those of training"
        )
    _report(splits)
    return sorted(images)


def _split_folders(reach: Reach, splits: Mapping[str, str]) -> list[Path]:
    """Returns the folders of splits."""
    folders = _classes(reach, reach.root) if splits else []
    return [folder for folder in folders if folder.name in splits]


def _report(splits: Mapping[str, str]) -> None:
    """Prints the folder of each split on the terminal."""
    phrases = {DIVIDED: "train and validation, in the ratio of their shares"}
    parts = [f"'{name}' -> {phrases.get(split, split)}" for name, split in splits.items()]
    tqdm.write(f"the folders are splits, which images keep: {'; '.join(parts)}")


def _class_names(reach: Reach, roots: Sequence[Path]) -> list[str]:
    return sorted({folder.name for root in roots for folder in _classes(reach, root)})


def _classes(reach: Reach, root: Path) -> list[Path]:
    """Returns the folders of the classes, or of the splits.

    Raises:
        SettingsError: one is a link that is not followed. Leaving it out would change the number of
            every later class.
    """
    folders = _subfolders(root)
    for folder in folders:
        try:
            reach.folder(folder, _above(reach, folder))
        except ValueError as fault:
            raise SettingsError(f"{folder}, the folder of a class or of a split, is {fault}") from (
                fault
            )
    return folders


def _above(reach: Reach, folder: Path) -> list[Path]:
    """Returns the real paths of the set's folder, and of those in it that hold a folder."""
    held = [reach.root / part for part in folder.relative_to(reach.root).parents]
    return [place.resolve() for place in held]


def _subfolders(root: Path) -> list[Path]:
    return [path for path in listing.content(root)
            if path.is_dir() and not listing.is_left_out(path.name)]  # fmt: skip


def _from_subfolders(reach: Reach, remainder: listing.Remainder) -> list[Entry]:
    _name_left_out(reach.root)
    remainder.add_strays(reach.root)
    images = []
    for label, folder in enumerate(_classes(reach, reach.root)):
        files = list(listing.images(reach, folder, remainder, _above(reach, folder)))
        if not files:
            tqdm.write(f"no image in '{folder.name}', which counts as class {label} all the same")
        images += [Entry(file, label, folder.name, None) for file in files]
    return images


def _from_table(
    reach: Reach, splits: Mapping[str, str], remainder: listing.Remainder, columns: dict
) -> list[Entry]:
    files = list(listing.images(reach, reach.root, remainder))
    remainder.forget(reach.root / columns["csv"])
    if not files:
        raise SettingsError(f"no image in {reach.root}")
    numbers, names = table.read(reach, files, **columns)
    if splits:
        _report(splits)
    file_splits = [splits.get(file.relative_to(reach.root).parts[0]) for file in files]
    loose = [file for file, split in zip(files, file_splits, strict=True) if not split]
    if splits and loose:
        raise SettingsError(
            f"{loose[0]} and {len(loose) - 1} more lie beside the folders of splits "
            f"({', '.join(splits)}); wanted each image in one of these, or none of these"
        )
    rows = zip(files, numbers, names, file_splits, strict=True)
    return [Entry(*values) for values in rows]


def _name_left_out(root: Path) -> None:
    """Prints the hidden and system folders beside the folders of classes or of splits."""
    for path in listing.content(root):
        if path.is_dir() and listing.is_left_out(path.name):
            listing.name_hidden(path)

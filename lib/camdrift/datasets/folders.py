"""Folders of images: the files of a set, with the label and the split of each."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from camdrift.datasets import pictures
from camdrift.settings import SettingsError

MOST_CLASSES = 100_000  # a model has a logit for each number up to the largest

# Folders of file managers, archives and caches; names that begin with a dot are hidden anyway.
SYSTEM = {
    "__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information",
}  # fmt: skip

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


def entries(root: Path, labels: dict | None) -> list[Entry]:
    """Returns the image files of a folder in sorted order, each with label, class name and split.

    The layout is ImageFolder's (a class a subfolder), or any folder with a table of labels: then
    `labels` names the CSV file and its columns. If the subfolders are splits (`train`, `val`,
    `test`, see `SPLITS`), classes are the subfolders of these, numbered over all splits, and images
    keep the split of their folder; without a test folder, the validation images are tested. Hidden
    and system folders and files are left out, and symbolic links to folders are not followed: both
    are named on the terminal, as are the splits and folders of classes that hold no image. Links
    to files are listed, see `within`.

    Raises:
        SettingsError: there is no such folder, it holds no image, a file has no label, a file's
            name is not UTF-8, the folder of a class is a link, or folders of splits are mixed with
            others, have no classes, lack test images, or hold classes without training images.
    """
    if not root.is_dir():
        raise SettingsError(f"no folder {root}; wanted the folder of the images")
    splits = _splits(root)
    if labels:
        folder_splits = splits if "test" in splits.values() else {}
        images = _from_table(root, folder_splits, **labels)
    elif splits:
        images = _from_splits(root, splits)
    else:
        images = _from_subfolders(root)
    if not images:
        raise SettingsError(
            f"no image in the subfolders of {root}; wanted {root}/<class>/<image>, or set "
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


def classes(root: Path) -> list[str]:
    """Returns the names of the classes of a folder without a table of labels, in their order.

    Raises:
        SettingsError: as `entries`, for links and for folders of splits.
    """
    return _class_names(_split_folders(root, _splits(root)) or [root])


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


def _from_splits(root: Path, splits: Mapping[str, str]) -> list[Entry]:
    if "test" not in splits.values():
        (only,) = splits
        raise SettingsError(
            f"{root} holds the training split alone; wanted a folder of test images beside it, or "
            f"path: {root / only}, whose images `shares` would then split"
        )
    for folder in (root, *_split_folders(root, splits)):
        _name_left_out(folder)
    names = _class_names(_split_folders(root, splits))
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
        for folder in _classes(root / name)
        for file in _pictures(folder)
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


def _split_folders(root: Path, splits: Mapping[str, str]) -> list[Path]:
    """Returns the folders of splits, none of which is a link."""
    return [folder for folder in _classes(root) if folder.name in splits] if splits else []


def _report(splits: Mapping[str, str]) -> None:
    """Prints the folder of each split on the terminal."""
    phrases = {DIVIDED: "train and validation, in the ratio of their shares"}
    parts = [f"'{name}' -> {phrases.get(split, split)}" for name, split in splits.items()]
    tqdm.write(f"the folders are splits, which images keep: {'; '.join(parts)}")


def _class_names(roots: Iterable[Path]) -> list[str]:
    return sorted({folder.name for root in roots for folder in _classes(root)})


def _classes(root: Path) -> list[Path]:
    """Returns the folders of the classes, or of the splits.

    Raises:
        SettingsError: one is a link. Leaving it out would change the number of every later class.
    """
    folders = _subfolders(root)
    for folder in folders:
        if folder.is_symlink():
            raise SettingsError(
                f"{folder}, the folder of a class or of a split, is a symbolic link, which is not "
                "followed: it may lead anywhere, or round in a circle; wanted the folder itself"
            )
    return folders


def _subfolders(root: Path) -> list[Path]:
    folders = (entry for entry in root.iterdir() if entry.is_dir())
    return sorted(entry for entry in folders if not is_left_out(entry.name))


def is_left_out(name: str) -> bool:
    """Returns whether a file or folder of that name is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in SYSTEM


def within(root: Path, file: Path) -> Path:
    """Returns a file of a folder, if it really lies there.

    Raises:
        ValueError: it is a symbolic link that leads out of the folder, or to nothing.
    """
    if not file.is_symlink():
        return file
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError) as fault:  # Python 3.11 raises the latter for a loop of links
        raise ValueError("a symbolic link that leads nowhere") from fault
    if not target.is_relative_to(root.resolve()):
        raise ValueError(
            "a symbolic link that leads out of the set's folder, and might lead to any file; "
            "wanted the file itself"
        )
    return file


def _from_subfolders(root: Path) -> list[Entry]:
    _name_left_out(root)
    images = []
    for label, folder in enumerate(_classes(root)):
        files = list(_pictures(folder))
        if not files:
            tqdm.write(f"no image in '{folder.name}', which counts as class {label} all the same")
        images += [Entry(file, label, folder.name, None) for file in files]
    return images


def _from_table(
    root: Path, splits: Mapping[str, str], *, csv: str, image: str, label: str, offset: int
) -> list[Entry]:
    """Returns the entries of a folder whose labels stand in a CSV file.

    The `image` column holds paths or file names, with or without suffix. A numeric `label` column
    is the class index plus `offset`; any other is a class name, numbered in sorted order over the
    whole table. Images in the table that are not in the folder are ignored: a table may describe a
    larger set.
    """
    table = _table(root, csv, image)
    for column in (image, label):
        if column not in table:
            raise SettingsError(f"no column '{column}' in {root / csv}; it has {list(table)}")
    rows = {name: i for i, name in enumerate(table[image])}
    files = list(_pictures(root))
    indices = []
    for file in files:
        path = file.relative_to(root)
        names = (path.as_posix(), path.with_suffix("").as_posix(), path.name, path.stem)
        row = next((rows[name] for name in names if name in rows), None)
        if row is None:
            raise SettingsError(f"{path} has no row in {csv}, column '{image}'")
        indices.append(row)
    if not files:
        raise SettingsError(f"no image in {root}")
    if (
        len(set(indices)) < len(indices)
        or table[image].iloc[indices].isin(table[image][table[image].duplicated()]).any()
    ):
        raise SettingsError(f"column '{image}' of {csv} does not name each image once")
    values = table[label].iloc[indices]
    if values.isna().any():
        raise SettingsError(f"{int(values.isna().sum())} images have no '{label}' in {csv}")
    if pd.api.types.is_numeric_dtype(values):
        numbers = values - offset
        if (numbers < 0).any() or (numbers % 1 != 0).any() or numbers.max() >= MOST_CLASSES:
            raise SettingsError(
                f"'{label}' of {csv} minus the offset {offset}: wanted whole numbers from 0 to "
                f"{MOST_CLASSES - 1:,}, got {numbers.min():g} to {numbers.max():g}"
            )
        numbers = numbers.astype(int)
        class_names = numbers.astype(str)
    else:
        class_names = values.astype(str)
        class_order = sorted(table[label].dropna().astype(str).unique())
        numbers = class_names.map({name: i for i, name in enumerate(class_order)})
    if splits:
        _report(splits)
    file_splits = [splits.get(file.relative_to(root).parts[0]) for file in files]
    loose = [file for file, split in zip(files, file_splits, strict=True) if not split]
    if splits and loose:
        raise SettingsError(
            f"{loose[0]} and {len(loose) - 1} more lie beside the folders of splits "
            f"({', '.join(splits)}); wanted each image in one of these, or none of these"
        )
    columns = (files, numbers.astype(int), class_names, file_splits)
    return [Entry(*values) for values in zip(*columns, strict=True)]


def _table(root: Path, csv: str, image: str) -> pd.DataFrame:
    try:
        return pd.read_csv(within(root, root / csv), dtype={image: str})
    except (OSError, ValueError) as fault:  # pandas' own errors are of the latter
        raise SettingsError(f"{root / csv} cannot be read as a table of labels: {fault}") from fault


def _pictures(root: Path) -> Iterator[Path]:
    """Yields the image files below a folder, sorted; prints hidden files and links to folders."""
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root)
        if any(is_left_out(parent.name) for parent in below.parents):
            continue  # its hidden folder has been printed already
        link = path.is_symlink()
        if is_left_out(path.name):
            if path.is_dir() or path.suffix.lower() in pictures.suffixes():
                _name(path)
        elif link and path.is_dir():
            tqdm.write(f"a link to a folder, not followed: {below.as_posix()!r}")
        elif path.suffix.lower() in pictures.suffixes() and (link or path.is_file()):
            yield path


def _name_left_out(root: Path) -> None:
    """Prints the hidden and system folders beside the folders of classes or of splits."""
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and is_left_out(entry.name):
            _name(entry)


def _name(path: Path) -> None:
    tqdm.write(f"hidden or of the system, left out: {path.name!r} in {path.parent.name!r}")

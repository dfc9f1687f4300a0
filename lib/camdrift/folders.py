"""Folders of images: which files a set is made from, and the label of each."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from camdrift.settings import SettingsError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}

MOST_CLASSES = 100_000  # a model has a logit for each number up to the largest

Entry = tuple[Path, int, str]  # a file, its label, the name of its class


def entries(root: Path, labels: dict | None) -> list[Entry]:
    """Returns the image files of a folder in sorted order, each with its label and class name.

    The layout is ImageFolder's (a class a subfolder), or any folder with a table of labels: then
    `labels` names the CSV file and its columns. Symbolic links to folders are not followed: those
    below a class are named on the terminal. Links to files are listed, see `within`.

    Raises:
        SettingsError: there is no such folder, it holds no image, a file has no label, a file's
            name is not UTF-8, or the folder of a class is a link.
    """
    if not root.is_dir():
        raise SettingsError(f"no folder {root}; wanted the folder of the images")
    found = _from_table(root, **labels) if labels else _from_subfolders(root)
    for file, _, _ in found:
        name = file.relative_to(root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError as fault:
            raise SettingsError(
                f"the name {ascii(name)} in {root} is not UTF-8, which images are identified by; "
                "rename it"
            ) from fault
    return found


def within(root: Path, file: Path) -> Path:
    """Returns a file of a folder, if it is in there.

    Raises:
        ValueError: it is a symbolic link that leads out of the folder, or to nothing.
    """
    if not file.is_symlink():
        return file
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError) as fault:  # of a loop of links: Python 3.11 raises the latter
        raise ValueError("a symbolic link that leads nowhere") from fault
    if not target.is_relative_to(root.resolve()):
        raise ValueError(
            "a symbolic link that leads out of the set's folder, and might lead to any file; "
            "wanted the file itself"
        )
    return file


def _from_subfolders(root: Path) -> list[Entry]:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    for folder in folders:
        # One that is left out would change the number of every later class.
        if folder.is_symlink():
            raise SettingsError(
                f"{folder}, the folder of a class, is a symbolic link, which is not followed: it "
                "may lead anywhere, or round in a circle; wanted the folder itself"
            )
    found = [
        (file, label, folder.name)
        for label, folder in enumerate(folders)
        for file in _pictures(folder)
    ]
    if not found:
        raise SettingsError(
            f"no image in the subfolders of {root}; wanted {root}/<class>/<image>, or set "
            "`labels:` with the CSV file that names each image's class"
        )
    return found


def _from_table(root: Path, *, csv: str, image: str, label: str, offset: int) -> list[Entry]:
    """Returns the entries of a folder whose labels stand in a CSV file.

    The `image` column holds paths or file names, with or without suffix. A numeric `label` column
    is the class index plus `offset`; any other is a class name, numbered in sorted order over the
    whole table. Images in the table that are not in the folder are passed over: a table may
    describe a larger set.
    """
    table = _table(root, csv, image)
    for column in (image, label):
        if column not in table:
            raise SettingsError(f"no column '{column}' in {root / csv}; it has {list(table)}")
    rows = {name: i for i, name in enumerate(table[image])}
    files = list(_pictures(root))
    found = []
    for file in files:
        path = file.relative_to(root)
        names = (path.as_posix(), path.with_suffix("").as_posix(), path.name, path.stem)
        row = next((rows[name] for name in names if name in rows), None)
        if row is None:
            raise SettingsError(f"{path} has no row in {csv}, column '{image}'")
        found.append(row)
    if not files:
        raise SettingsError(f"no image in {root}")
    if (
        len(set(found)) < len(found)
        or table[image].iloc[found].isin(table[image][table[image].duplicated()]).any()
    ):
        raise SettingsError(f"column '{image}' of {csv} does not name each image once")
    values = table[label].iloc[found]
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
        known = sorted(table[label].dropna().astype(str).unique())
        numbers = class_names.map({name: i for i, name in enumerate(known)})
    return list(zip(files, numbers.astype(int), class_names, strict=True))


def _table(root: Path, csv: str, image: str) -> pd.DataFrame:
    try:
        return pd.read_csv(within(root, root / csv), dtype={image: str})
    except (OSError, ValueError) as fault:  # pandas' own errors are of the latter
        raise SettingsError(f"{root / csv} cannot be read as a table of labels: {fault}") from fault


def _pictures(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        link = path.is_symlink()
        if link and path.is_dir():
            tqdm.write(f"a link to a folder, not followed: {path.relative_to(root).as_posix()!r}")
        elif path.suffix.lower() in SUFFIXES and (link or path.is_file()):
            yield path

"""Tables of labels: the classes of images, as a CSV file names them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from camdrift.datasets.links import Reach
from camdrift.datasets.listing import first_names, safe_name
from camdrift.settings import SettingsError

MOST_CLASSES = 100_000  # a model has a logit for each number up to the largest


class Labels(NamedTuple):
    """The classes of some images, in their order: their numbers and their names."""

    numbers: list[int]
    names: list[str]


def read(
    reach: Reach, images: Sequence[Path], *, csv: str, image: str, label: str, offset: int
) -> Labels:
    """Returns the classes of the images of a folder whose labels stand in a CSV file.

    Rows of other images are ignored: a table may describe a larger set.

    Args:
        reach: the set's folder, and where its links may lead to.
        images: files of the folder.
        csv: the file, from the set's folder.
        image: the column of paths or file names, with or without suffix.
        label: the column of the classes. If it is numeric, a number is the class index plus
            `offset`; any other text is a class name, numbered in sorted order over the whole table.
        offset: of the numbers.

    Raises:
        SettingsError: the file is no table, a column is not there, an image has no row or several,
            a row has no label, or a number is not that of a class.
    """
    file = reach.root / csv
    table = _table(reach, file, image)
    for column in (image, label):
        if column not in table:
            there = ", ".join(repr(str(name)) for name in table)
            hint = "; wanted commas between columns" if len(table.columns) == 1 else ""
            raise SettingsError(f"no column '{column}' in {file}; it has {there}{hint}")
    rows = {name: i for i, name in enumerate(table[image].astype(object))}
    places: list[int] = []
    for path in images:
        inside = path.relative_to(reach.root)
        names = (inside.as_posix(), inside.with_suffix("").as_posix(), inside.name, inside.stem)
        row = next((rows[name] for name in names if name in rows), None)
        if row is None:
            some = first_names([safe_name(str(name)) for name in rows]) or "no image"
            raise SettingsError(
                f"{safe_name(inside.as_posix())} has no row in {csv}, column '{image}'; there are "
                f"rows of {some}"
            )
        places.append(row)
    named = table[image].iloc[places]
    twice = named[named.duplicated() | named.isin(table[image][table[image].duplicated()])]
    if len(twice):
        raise SettingsError(
            f"column '{image}' of {csv} does not name each image once: see '{twice.iloc[0]}', for "
            "two rows or, without folder or suffix, two images"
        )
    values = table[label].iloc[places]
    if values.isna().any():
        raise SettingsError(
            f"{int(values.isna().sum())} images have no '{label}' in {csv}, '"
            f"{named[values.isna()].iloc[0]}' the first; an empty cell, NA, NaN, None and null "
            "count as none"
        )
    if not pd.api.types.is_numeric_dtype(values):
        order = sorted(table[label].dropna().astype(str).unique())
        if any(name.isdecimal() for name in order):
            tqdm.write(
                f"'{label}' of {csv} holds numbers and other text, so that all are names of "
                f"classes, in the order of text: {first_names([safe_name(name) for name in order])}"
            )
        numbers = {name: i for i, name in enumerate(order)}
        texts = [str(value) for value in values]
        return Labels([numbers[text] for text in texts], texts)
    indices = values - offset
    wrong = (indices < 0) | (indices % 1 != 0) | (indices >= MOST_CLASSES)
    if wrong.any():
        raise SettingsError(
            f"'{label}' of {csv} minus the offset {offset}: wanted whole numbers from 0 to "
            f"{MOST_CLASSES - 1:,}, got {indices[wrong].iloc[0]:g} of "
            f"'{safe_name(named[wrong].iloc[0])}'"
        )
    whole = [int(index) for index in indices]
    return Labels(whole, [str(index) for index in whole])


def _table(reach: Reach, file: Path, image: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(reach.within(file), dtype={image: str})
    except (OSError, ValueError) as fault:  # pandas' own errors are of the latter
        raise SettingsError(
            f"{file} cannot be read as a table of labels: {_words(fault)}"
        ) from fault
    if not isinstance(table.index, pd.RangeIndex):
        raise SettingsError(
            f"{file} cannot be read as a table of labels: its rows have more fields than its first "
            "line; wanted a name for each column"
        )
    return table


def _words(fault: Exception) -> str:
    """Returns an error of pandas in one sentence: the fault, and what was wanted."""
    if isinstance(fault, FileNotFoundError):
        return "no such file; wanted its path from the set's folder, `labels: {csv: ...}`"
    if isinstance(fault, IsADirectoryError):
        return "it is a folder; wanted a CSV file"
    if isinstance(fault, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {fault.start}); save it as UTF-8"
    if isinstance(fault, pd.errors.EmptyDataError):
        return "it is empty; wanted a first line with the names of the columns"
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(fault)):
        wanted, line, got = found.groups()
        return f"line {line} has {got} fields; wanted {wanted}, as in the first line"
    if found := re.search(r"EOF inside string starting at row (\d+)", str(fault)):
        return f"the quotation mark that line {int(found[1]) + 1} opens is not closed"
    return str(fault).strip()

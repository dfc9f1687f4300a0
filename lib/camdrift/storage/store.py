"""Storage: artefacts as files, written whole or not at all, read and checked."""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import pandas as pd

from camdrift.storage import files
from camdrift.storage.paths import writer

Artefact = TypeVar("Artefact")
Compact = Annotated[pd.DataFrame, "a table in the fewest bytes: one that is published"]


@dataclass(frozen=True)
class _Format:
    suffix: str
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], None] = lambda path, value: None  # of whole values
    parts: Callable[[Path], Any] | None = None  # or of values in parts


_ARRAY = _Format(".npy", files.read_array, parts=files.arrays)
_TABLE = _Format(".parquet", pd.read_parquet, parts=files.tables)
_COMPACT = _Format(".parquet", pd.read_parquet, files.write_compact)
_JSON = _Format(".json", files.read_json, files.write_json)
_STATE = _Format(".safetensors", files.read_state, files.write_state)


def _format(name: str, kind: object) -> _Format:
    if name == "state":
        return _STATE
    if kind is dict:
        return _JSON
    if kind is Compact:
        return _COMPACT
    return _TABLE if kind is pd.DataFrame else _ARRAY


def write(folder: Path, artefact: Any) -> None:
    """Writes each field of an artefact into `folder`, each file whole or not at all."""
    join(folder, [artefact])


def join(folder: Path, parts: Iterable[Any], **own: Any) -> None:
    """Writes several artefacts of one kind as one: arrays and tables end to end, in their order.

    `own` holds further fields as whole values; a dict is the last part's. Each part is released
    before the next is requested, so memory does not grow with their number. The old manifest is
    deleted first and the new one written last, so a half-written folder is no artefact.

    Raises:
        UnwrittenError: the disk is full or the folder read-only; the message names it.
    """
    _join(folder, parts, own, name=folder)


def place(folder: Path, artefact: Any) -> None:
    """Writes an artefact beside `folder`, whose parent exists, and renames it: whole or not at all.

    If another process has written the folder in the meantime, that artefact stays.

    Raises:
        UnwrittenError: as `join`.
    """
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        with files.writing(folder):
            beside.mkdir()
        _join(beside, [artefact], {}, name=folder)
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / files.MANIFEST).exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _join(folder: Path, parts: Iterable[Any], own: dict[str, Any], *, name: Path) -> None:
    with files.writing(name):
        (folder / files.MANIFEST).unlink(missing_ok=True)
        names = {}
        forms: dict[str, _Format] = {}
        with contextlib.ExitStack() as stack:
            adders: dict[str, Callable[[Any], None]] = {}
            for part in parts:
                for field in fields(part):
                    form, value = _format(field.name, field.type), getattr(part, field.name)
                    if form.parts is None:
                        own[field.name], forms[field.name] = value, form
                        continue
                    if field.name not in adders:
                        names[field.name] = f"{field.name}{form.suffix}"
                        path = folder / names[field.name]
                        adders[field.name] = stack.enter_context(form.parts(path))
                    adders[field.name](value)
            for key, value in own.items():
                form = forms.get(key) or _format(key, type(value))
                names[key] = f"{key}{form.suffix}"
                if form.parts is None:
                    form.write(folder / names[key], value)
                else:
                    stack.enter_context(form.parts(folder / names[key]))(value)
        files.sign(folder, name.as_posix(), sorted(names.values()))


def rows(kind: type, folder: Path, field: str, **equal: object) -> pd.DataFrame:
    """Returns the rows of one table of the artefact in `folder` whose columns equal `equal`.

    For a list, the rows whose column holds one of its values. A large table is read in part.

    Raises:
        MissingError: the table is missing; the message gives the command to run.
    """
    name = f"{field}{_format(field, kind.__annotations__[field]).suffix}"
    _check(folder, [name], content=False)
    return _rows(folder / name, equal)


def _rows(path: Path, equal: Mapping[str, object]) -> pd.DataFrame:
    tests = [(name, "in" if isinstance(v, list) else "==", v) for name, v in equal.items()]
    return pd.read_parquet(path, filters=tests or None)


def read(
    kind: type[Artefact],
    folder: Path,
    *,
    check: bool = True,
    only: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> Artefact:
    """Returns the artefact in `folder`; arrays are memory-mapped, read-only.

    Args:
        kind: the artefact's class.
        folder: the folder that holds it.
        check: whether to compare the files with their checksums, once a process; else their sizes.
        only: conditions on the rows to read, as in `rows`, by the name of the table.

    Raises:
        MissingError: a file is missing; the message gives the command to run.
        DamagedError: a file is not the written one; the message names it and the command to run.
    """
    forms = {f.name: _format(f.name, f.type) for f in fields(kind)}  # type: ignore[arg-type]
    names = {name: f"{name}{form.suffix}" for name, form in forms.items()}
    _check(folder, list(names.values()), content=check)
    return kind(
        **{
            name: _rows(folder / names[name], only[name])
            if name in only
            else form.read(folder / names[name])
            for name, form in forms.items()
        }
    )


def each(kind: type[Artefact], folders: Iterable[Path]) -> Iterator[Artefact]:
    """Yields the artefact in each of several folders."""
    for folder in folders:
        yield read(kind, folder)


def digest(folder: Path, *, content: bool = False) -> str:
    """Returns a digest of an artefact's content, from its manifest.

    Args:
        folder: the folder that holds it.
        content: whether to check its files against the manifest, as `read` does.

    Raises:
        MissingError: it is missing; the message gives the command to run.
        DamagedError: a file is not the written one; the message names it and the command to run.
    """
    _check(folder, [], content=False)
    if content:
        _check(folder, list(files.read_json(folder / files.MANIFEST)["files"]), content=True)
    return files.digest(folder)


def _check(folder: Path, names: list[str], *, content: bool) -> None:
    for name in [*names, files.MANIFEST]:
        if not (folder / name).exists():
            raise files.MissingError(
                f"wanted {folder / name}, which is not there; run `dvc repro`, or `dvc pull` if a "
                "remote holds the results"
            )
    try:
        files.check(folder, folder.as_posix(), names, content=content)
    except files.DamagedError as fault:
        stage = writer(folder)
        again = f"dvc repro --force --no-run-cache --single-item {stage}" if stage else "dvc repro"
        raise files.DamagedError(
            f"{fault}: it is not what was written. To build it anew: {again}"
        ) from fault

"""Files: plain, written whole or not at all, checked, the same bytes for the same content.

The last file written to a folder is its manifest: the folder's name, and each file's size and
sha256.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "manifest.json"
_checked: set[tuple[Path, int, int, int]] = set()  # files whose content this process has checked
_sizes_alone = ContextVar("_sizes_alone", default=False)


class DamagedError(Exception):
    """A file's content differs from the content that was written."""


class MissingError(FileNotFoundError):
    """A file that another stage writes is not there."""


class UnwrittenError(OSError):
    """A file could not be written."""


# Errors of a full, a failing or a read-only disk, of a quota, and of a file in a folder's place.
REFUSALS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names the file or folder that the block cannot write.

    Raises:
        UnwrittenError: the disk is full or the place read-only.
    """
    try:
        yield
    except OSError as fault:
        if fault.errno not in REFUSALS:
            raise
        raise UnwrittenError(
            f"could not write {path}: {fault.strerror or fault}. What is half written counts for "
            "nothing; make room, or make it writable, and run again"
        ) from fault


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lends a temporary path, renamed to `path` when the block succeeds and deleted otherwise.

    Raises:
        UnwrittenError: the disk is full or the folder read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict) -> None:
    """Writes a dict as indented JSON with a final newline; NaN is refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Writes a table as CSV."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_json(path: Path) -> dict:
    """Returns the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_state(path: Path, value: dict) -> None:
    """Writes a dict of tensors as safetensors."""
    from safetensors.torch import save

    with whole(path) as temporary:
        temporary.write_bytes(save({name: t.contiguous() for name, t in value.items()}))


def read_array(path: Path) -> np.ndarray:
    """Returns an array, memory-mapped, read-only."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_state(path: Path) -> dict:
    """Returns the tensors of a safetensors file."""
    from safetensors.torch import load_file

    return load_file(path)


# Writers of many parts, one after another: each lends a function that takes the next part.


@contextlib.contextmanager
def arrays(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes arrays end to end along their first axis, as one `.npy` file."""
    with whole(path) as temporary, temporary.open("w+b") as file:
        like: np.ndarray | None = None
        rows = 0

        def add(part: np.ndarray) -> None:
            nonlocal like, rows
            if like is None:
                like = part[:0]
                _header(file, like, 0)
            if part.dtype != like.dtype or part.shape[1:] != like.shape[1:]:
                raise ValueError(
                    f"{path}: wanted parts of {like.dtype} (n, {like.shape[1:]}), got "
                    f"{part.dtype} {part.shape}"
                )
            rows += len(part)
            file.write(np.ascontiguousarray(part).data)

        yield add
        if like is not None:
            end = file.tell()
            file.seek(0)
            # NumPy leaves room in a header for any number of rows.
            _header(file, like, rows)
            file.seek(end)


def _header(file: BinaryIO, like: np.ndarray, rows: int) -> None:
    if like.dtype.hasobject:
        raise ValueError("an array of objects would be pickled: allow_pickle is False")
    header = {
        "descr": np.lib.format.dtype_to_descr(like.dtype),
        "fortran_order": False,
        "shape": (rows, *like.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(file, header)


@contextlib.contextmanager
def tables(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Writes tables end to end, as one `.parquet` file; skips parts without rows."""
    with whole(path) as temporary, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        blank = pd.DataFrame()

        def add(part: pd.DataFrame) -> None:
            nonlocal writer, blank
            if not len(part):
                blank = part
                return
            table = pa.Table.from_pandas(part, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(
                    pq.ParquetWriter(temporary, table.schema, compression="zstd")
                )
            writer.write_table(table.cast(writer.schema))

        yield add
        if writer is None:
            blank.to_parquet(temporary, index=False, compression="zstd")


def write_compact(path: Path, table: pd.DataFrame) -> None:
    """Writes a table in few bytes, for which its rows should be sorted by their keys.

    A column is one page, in which zstd sees all that repeats: codes of its values or, where few
    numbers repeat, the first bytes of all, the second bytes of all, and so on.
    """
    columns = pa.Table.from_pandas(table, preserve_index=False)
    many = {
        name: "DELTA_BINARY_PACKED"
        if pa.types.is_int64(columns[name].type)
        else "BYTE_STREAM_SPLIT"
        for name in table.select_dtypes("number")
        if table[name].nunique() > len(table) / 4
    }
    with whole(path) as temporary:
        pq.write_table(
            columns, temporary, compression="zstd", compression_level=15,
            row_group_size=len(table) or None, data_page_size=2**30, max_rows_per_page=2**30,
            dictionary_pagesize_limit=2**30,
            use_dictionary=[name for name in columns.column_names if name not in many],
            column_encoding=many or None,
        )  # fmt: skip


def sign(folder: Path, name: str, parts: list[str]) -> None:
    """Writes the manifest of a folder.

    Args:
        folder: the folder that holds the files.
        name: the folder's name, which tells its files from another folder's.
        parts: names of its files.
    """
    facts = {part: _facts(folder / part) for part in parts}
    write_json(folder / MANIFEST, {"folder": name, "files": facts})


def digest(folder: Path) -> str:
    """Returns a digest of all files that a folder's manifest names."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def sha256(path: Path) -> str:
    """Returns a file's sha256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Lets the block skip the check of files' contents: another process has made it."""
    before = _sizes_alone.set(True)
    try:
        yield
    finally:
        _sizes_alone.reset(before)


def check(folder: Path, name: str, parts: list[str], *, content: bool) -> None:
    """Checks files against the manifest of their folder.

    Args:
        folder: the folder that holds the files.
        name: the name that the manifest must give the folder.
        parts: names of the files to check.
        content: whether to read the files, once a process, or to check only their sizes.

    Raises:
        DamagedError: a file's content is not the written one; the message names the file.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        owner, files = manifest["folder"], manifest["files"]
    except (ValueError, KeyError) as fault:
        raise DamagedError(f"{folder / MANIFEST} cannot be read: {fault}") from fault
    if owner != name:
        raise DamagedError(f"{folder} holds the files of {owner}")
    for part in parts:
        path = folder / part
        facts = path.stat()
        expected = files.get(part, {"bytes": None})
        if facts.st_size != expected["bytes"]:
            raise DamagedError(f"{path} has {facts.st_size} bytes, wanted {expected['bytes']}")
        identity = (path.absolute(), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        if not content or _sizes_alone.get() or identity in _checked:
            continue
        checksum = _facts(path)["sha256"]
        if checksum != expected["sha256"]:
            raise DamagedError(f"{path} has sha256 {checksum}, wanted {expected['sha256']}")
        _checked.add(identity)

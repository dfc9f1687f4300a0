"""Lists of the files in a set's folder, and of what is left out, which the terminal names."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from camdrift.datasets import pictures
from camdrift.datasets.links import Reach
from camdrift.settings import SettingsError

# Folders of file managers, archives and caches; names that begin with a dot are hidden anyway.
SYSTEM = {
    "__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information",
}  # fmt: skip
NAMED = 3  # files of a kind that are named, and kinds that are


def safe_name(name: str) -> str:
    """Returns a file's name, escaped if it holds a terminal's commands or is not UTF-8."""
    return name if name.isprintable() else ascii(name)


def is_left_out(name: str) -> bool:
    """Returns whether a file or folder of that name is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_picture(path: Path) -> bool:
    """Returns whether a file's name has the suffix of a format that is read."""
    return path.suffix.lower() in pictures.suffixes()


class Remainder:
    """The files of a set's folder that are no images of the set, though they are not hidden."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.others: dict[str, list[str]] = {}
        self.strays: list[str] = []

    def add(self, path: Path) -> None:
        """Adds a file without the suffix of an image."""
        self.others.setdefault(safe_name(path.suffix.lower()), []).append(self._name(path))

    def forget(self, path: Path) -> None:
        """Takes back a file that is the table of labels."""
        names = self.others.get(safe_name(path.suffix.lower()), [])
        if path.is_relative_to(self.root) and (name := self._name(path)) in names:
            names.remove(name)

    def add_strays(self, folder: Path) -> None:
        """Adds the files that lie in a folder itself, beside those of classes or of splits."""
        for path in content(folder):
            if path.is_dir() or is_left_out(path.name):
                continue
            if is_picture(path):
                self.strays.append(self._name(path))
            else:
                self.add(path)

    def _name(self, path: Path) -> str:
        return safe_name(path.relative_to(self.root).as_posix())

    def report(self) -> None:
        """Prints a line for files that are not read, and one for images that have no class."""
        if self.strays:
            tqdm.write(f"{_count(len(self.strays), 'image')} in no folder of a class, left out: "
                       f"{first_names(self.strays)}")  # fmt: skip
        kinds = sorted(self.others.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        if total := sum(len(names) for _, names in kinds):
            parts = [
                f"{len(names)} {suffix or 'without a suffix'} ({first_names(names)})"
                for suffix, names in kinds[:NAMED]
                if names
            ]
            rest = sum(len(names) for _, names in kinds[NAMED:])
            parts += [f"{rest} of other suffixes"] if rest else []
            tqdm.write(f"{_count(total, 'file')} without the suffix of an image that is read, "
                       f"left out: {'; '.join(parts)}")  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_names(names: Sequence[str]) -> str:
    """Returns the first three of some names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def content(folder: Path) -> list[Path]:
    """Returns what lies in a folder, by name.

    Raises:
        SettingsError: it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as fault:
        raise SettingsError(f"{folder} cannot be listed: {fault.strerror}") from fault


def images(
    reach: Reach, folder: Path, remainder: Remainder, above: Sequence[Path] = ()
) -> Iterator[Path]:
    """Yields the image files below a folder, sorted, links to files among them.

    Prints hidden files and folders, and links to folders that are not followed.

    Args:
        reach: where links may lead to.
        folder: one of the set.
        remainder: to which the files are added that are no images.
        above: real paths of the folders that it lies in.

    Raises:
        SettingsError: a link to a folder leads elsewhere, or round in a circle.
    """
    above = [*above, real_path(reach, folder, above)]
    for path in content(folder):
        if is_left_out(path.name):
            if path.is_dir() or is_picture(path):
                name_hidden(path)
        elif path.is_dir():
            if path.is_symlink() and reach.links is None:
                below = path.relative_to(reach.root).as_posix()
                tqdm.write(f"a link to a folder, not followed, see the setting `links`: {below!r}")
            else:
                yield from images(reach, path, remainder, above)
        elif not (path.is_symlink() or path.is_file()):
            continue  # a pipe, of which a read would wait for ever
        elif is_picture(path):
            yield path
        else:
            remainder.add(path)


def real_path(reach: Reach, folder: Path, above: Sequence[Path]) -> Path:
    """Returns the real path of a folder of a set; SettingsError where it cannot be reached."""
    try:
        return reach.folder(folder, above)
    except ValueError as fault:
        raise SettingsError(f"{folder} is {fault}") from fault


def name_hidden(path: Path) -> None:
    """Prints a hidden file or folder."""
    tqdm.write(f"hidden or of the system, left out: {path.name!r} in {path.parent.name!r}")

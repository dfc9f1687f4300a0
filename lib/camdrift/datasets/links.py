"""Links of a set's folder: where they may lead, and the files and folders that can be reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camdrift.settings import SettingsError


@dataclass(frozen=True)
class Reach:
    """The folder of a set, and another that links in it may lead to.

    root: the set's own folder.
    links: the other, the setting `links`; None: links to files stay in the set's folder, and links
        to folders are not followed.
    """

    root: Path
    links: Path | None = None

    @classmethod
    def from_settings(cls, path: str, links: str | None) -> "Reach":
        """Returns the reach of a set with those settings.

        Raises:
            SettingsError: one of them is no folder.
        """
        for key, place in (("path", path), ("links", links)):
            if place is not None and not Path(place).is_dir():
                wanted = "the folder of the images" if key == "path" else "one that links lead to"
                tilde = f"; write {Path.home()} for ~" if place.startswith("~") else ""
                there = "a file" if Path(place).exists() else "no folder"
                raise SettingsError(f"{key}: wanted {wanted}, got {there} '{place}'{tilde}")
        return cls(Path(path), None if links is None else Path(links))

    def within(self, path: Path) -> Path:
        """Returns a file or folder of the set, which may be a link.

        Raises:
            ValueError: it is a link that leads to nothing, round in a circle, or elsewhere.
        """
        if not path.is_symlink():
            return path
        try:
            target = path.resolve(strict=True)
        except FileNotFoundError as fault:
            raise ValueError(
                f"a symbolic link that leads nowhere: {path.readlink()} is not there"
            ) from fault
        except (OSError, RuntimeError) as fault:  # Python 3.11 raises the latter for a circle
            raise ValueError(
                f"a symbolic link that leads nowhere, but round in a circle: {path.readlink()}"
            ) from fault
        allowed = [self.root.resolve()] + ([self.links.resolve()] if self.links else [])
        if any(target.is_relative_to(place) for place in allowed):
            return path
        if self.links is None:
            raise ValueError(
                f"a symbolic link that leads out of the set's folder, to {target}; wanted the file "
                "itself, or the setting `links`, which names a folder that links may lead to"
            )
        raise ValueError(
            f"a symbolic link that leads to {target}; wanted a place in {self.links}, as the "
            "setting `links` has it, or in the set's folder"
        )

    def folder(self, path: Path, above: Sequence[Path] = ()) -> Path:
        """Returns the real path of a folder of the set, which may be a link.

        Args:
            path: of the folder.
            above: real paths of the folders that it lies in.

        Raises:
            ValueError: as `within`; it is a link and `links` is None; or it is one of those above.
        """
        if path.is_symlink() and self.links is None and path != self.root:
            raise ValueError(
                f"a symbolic link to the folder {path.resolve()}, which is not followed; wanted "
                "the folder itself, or the setting `links`, which names a folder that links may "
                "lead to"
            )
        real = self.within(path).resolve()
        if real in above:
            raise ValueError(f"reached by a symbolic link that leads round in a circle, to {real}")
        return real

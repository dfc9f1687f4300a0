"""Markers of the generated parts of pages: `<!-- begin name -->` and `<!-- end name -->`."""

import os
import re
from pathlib import Path

from camdrift import storage


def linked(page: Path, part: str) -> str:
    """Returns a part whose links to results lead there from a page."""
    return re.sub(
        rf"\]\(({storage.RESULTS.as_posix()}/[^)]+)\)",
        lambda link: f"]({Path(os.path.relpath(link[1], page.parent)).as_posix()})",
        part,
    )


def filled(page: Path, parts: dict[str, str]) -> str:
    """Returns a page's text with each part put between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        before, marked, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not marked or not ended:
            raise ValueError(f"wanted the markers '{name}' in {page}: {begin}...{end}")
        text = before + begin + part + end + after
    return text

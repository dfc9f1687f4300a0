"""Packages of the library: what each is for, its modules, and which imports which."""

import ast
from pathlib import Path

import pandas as pd

import camdrift

LIBRARY = Path(camdrift.__file__).parent
# A package imports only from those before it. `evaluation` resamples by means of `analysis`.
ORDER = (
    "settings", "storage", "pipeline", "datasets", "models", "perturbations", "explain", "attacks",
    "scores", "analysis", "features", "detectors", "evaluation", "papers", "ops",
)  # fmt: skip


def table() -> pd.DataFrame:
    """Returns the packages in their order, with the first sentence of their docstrings."""
    rows = [
        {
            "package": f"`{name}`",
            "what it holds": _first_line(LIBRARY / name / "__init__.py"),
            "modules": ", ".join(f"`{module}`" for module in _modules(LIBRARY / name)),
        }
        for name in ORDER
    ]
    return pd.DataFrame(rows)


def graph() -> str:
    """Returns a Mermaid graph with an arrow to each import that no chain of others implies."""
    uses = imports()
    arrows = [
        f"  {name} --> {other}"
        for name in reversed(ORDER)
        for other in sorted(uses[name])
        if not any(other in _reached(uses, between) for between in uses[name] - {other})
    ]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```"])


def imports() -> dict[str, set[str]]:
    """Returns the packages that each package imports, by name."""
    names = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    return {
        name: set().union(*map(_imported, (LIBRARY / name).rglob("*.py"))) & names - {name}
        for name in names
    }


def _imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "camdrift":
                names |= {parts[1]} if parts[1:] else {alias.name for alias in node.names}
    return names


def _reached(uses: dict[str, set[str]], start: str) -> set[str]:
    return uses[start].union(*(_reached(uses, other) for other in uses[start]))


def _modules(folder: Path) -> list[str]:
    own = [file.stem for file in folder.glob("[a-z]*.py")]
    return sorted(own) + sorted(f"{path.parent.name}/" for path in folder.glob("*/__init__.py"))


def _first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")

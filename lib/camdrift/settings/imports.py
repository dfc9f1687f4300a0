"""The user's own functions, named in params.yaml as `package.module:function`."""

import ast
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from camdrift.settings import SettingsError

OWN = Path("lib/own")  # the user's modules, from the root of the repository


def function(path: str, place: str) -> Callable[..., Any]:
    """Returns the function that a setting names; importing its module runs the module's code.

    Modules are looked for in `OWN`, too, after all others.

    Args:
        path: `package.module:function`.
        place: the setting's path, for messages.

    Raises:
        SettingsError: the module cannot be imported, has no such function, or is in `OWN` and has
            the name of another.
    """
    if reason := unavailable(path):
        raise SettingsError(f"{place}: {reason}")
    try:
        value = pkgutil.resolve_name(path)
    except Exception as fault:  # a module may raise anything while it is imported
        where = f"; {_places()}" if isinstance(fault, ModuleNotFoundError) else ""
        text = f"{place}: cannot import '{path}': {message(fault)}{where}"
        raise SettingsError(text) from fault
    if not callable(value):
        raise SettingsError(
            f"{place}: wanted a function, got '{path}', which is a {type(value).__name__}"
        )
    return value


def unavailable(path: str) -> str:
    """Returns why a function's module cannot be imported, without importing it; '' if it may be."""
    _include_own()
    module = path.partition(":")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        return f"wanted a function as `module:function`, got '{path}'"
    first = module.partition(".")[0]
    if _origin(first) is None:
        return f"cannot import '{path}': no module '{first}'; {_places()}"
    for name in sorted(
        {file.relative_to(OWN).parts[0].removesuffix(".py") for file in files(path)}
    ):
        origin = _origin(name)
        if origin and not Path(origin).resolve().is_relative_to(OWN.resolve()):
            return f"{OWN}/{name} has the name of another module, {origin}; wanted another name"
    return ""


def _include_own() -> None:
    """Puts `OWN` of the current folder on the path, in the place of another folder's, if any."""
    own = str(OWN.resolve())
    for other in {path for path in _included if path != own}:
        _included.remove(other)
        sys.path[:] = [path for path in sys.path if path != other]
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{other}/"):
                del sys.modules[name]
    if own not in sys.path and OWN.is_dir():
        sys.path.append(own)  # last: a module here must not pass for another package's
        _included.add(own)
    importlib.invalidate_caches()


_included: set[str] = set()


def _origin(name: str) -> str | None:
    """Returns where a module of no package is, '' if it has no file, None if there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # imported, but without a spec
        return ""
    return None if spec is None else spec.origin or ""


def _places() -> str:
    """Returns where modules are looked for, in words."""
    there = [place for place in sys.path if place and place != str(OWN.resolve())]
    return f"modules of your own belong in {OWN}; looked for there and in {', '.join(there)}"


def files(path: str) -> list[Path]:
    """Returns the files in `OWN` of a function's module and of those that it imports there.

    None where the module is elsewhere. Nothing is imported.
    """
    waiting = [path.partition(":")[0]]
    known: set[Path] = set()
    while waiting:
        name = waiting.pop()
        for file in set(_files_of(name)) - known:
            known.add(file)
            waiting += _imports(file)
    return sorted(known)


def digest(path: str) -> str | None:
    """Returns a sha256 of the files of a function's module in `OWN`; None if it is elsewhere."""
    own = files(path)
    if not own:
        return None
    parts = (f"{file.relative_to(OWN).as_posix()}\n".encode() + file.read_bytes() for file in own)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _files_of(name: str) -> Iterator[Path]:
    """Yields the files of a module and of the packages that it is in."""
    folder = OWN
    for part in name.split("."):
        yield from (
            file
            for file in (folder / f"{part}.py", folder / part / "__init__.py")
            if file.is_file()
        )
        folder = folder / part


def _imports(file: Path) -> Iterator[str]:
    """Yields the names of modules that a file may import, wherever in it."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):  # importing it says so
        return
    here = file.relative_to(OWN).with_suffix("").parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(here[: -node.level]) if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def message(fault: Exception) -> str:
    """Returns an error's kind and message, and the line of the user's code that raised it."""
    frames = traceback.extract_tb(fault.__traceback__)
    ours = (__file__, importlib.__file__, pkgutil.__file__)
    own = [f for f in frames if not f.filename.startswith(("<frozen", *ours))]
    where = f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""
    return f"{type(fault).__name__}: {fault}{where}"

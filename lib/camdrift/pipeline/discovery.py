"""Discovery: modules of a package of which each is one of a kind, as a method or a detector."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from camdrift.settings import SettingsError
from camdrift.settings.imports import message


@cache
def members(package: str, marked_by: str) -> dict[str, ModuleType]:
    """Returns a package's modules that define a name, by their own names and in order of these.

    A file that is put into the package's folder is a member, and there is no list to add it to.
    Modules without the name are what members share; packages within it are left out.

    Args:
        package: its full name.
        marked_by: the name that each member defines.

    Raises:
        SettingsError: a module cannot be imported; the message holds its own error.
    """
    folder = import_module(package).__path__
    known = {}
    for name in sorted(module.name for module in iter_modules(folder) if not module.ispkg):
        try:
            known[name] = import_module(f"{package}.{name}")
        except Exception as fault:  # a module may raise anything while it is imported
            raise SettingsError(f"cannot import {package}.{name}: {message(fault)}") from fault
    return {name: module for name, module in known.items() if hasattr(module, marked_by)}

"""The user's own functions, named in params.yaml as `package.module:function`."""

import importlib
import pkgutil
import traceback
from collections.abc import Callable
from typing import Any

from camdrift.settings import SettingsError


def function(path: str, place: str) -> Callable[..., Any]:
    """Returns the function that a setting names; importing its module runs the module's code.

    Args:
        path: `package.module:function`.
        place: the setting's path, for messages.

    Raises:
        SettingsError: the module cannot be imported, or it has no such function.
    """
    try:
        value = pkgutil.resolve_name(path)
    except Exception as fault:  # a module may raise anything while it is imported
        raise SettingsError(f"{place}: cannot import '{path}': {message(fault)}") from fault
    if not callable(value):
        raise SettingsError(
            f"{place}: wanted a function, got '{path}', which is a {type(value).__name__}"
        )
    return value


def message(fault: Exception) -> str:
    """Returns an error's kind and message, and the line of the user's code that raised it."""
    frames = traceback.extract_tb(fault.__traceback__)
    ours = (__file__, importlib.__file__, pkgutil.__file__)
    own = [f for f in frames if not f.filename.startswith(("<frozen", *ours))]
    where = f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""
    return f"{type(fault).__name__}: {fault}{where}"

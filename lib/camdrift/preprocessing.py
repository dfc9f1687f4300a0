"""Preprocessing of pictures, before they are resized: aligned by a function, then cropped."""

import importlib
from collections.abc import Callable

import numpy as np

from camdrift.settings import SettingsError

Change = Callable[[np.ndarray], np.ndarray]  # a picture, uint8 (height, width, 3), to another


def preprocessor(chosen: dict | None) -> Change:
    """Returns what is done to each picture.

    `align` first: a function of the user's, `package.module:function`, picture -> picture, as one
    that turns faces upright by their eyes; then `crop` keeps that share of each side, the centre.

    Raises:
        SettingsError: the function cannot be imported, or what it returns is no picture.
    """
    if chosen is None:
        return lambda picture: picture
    align = _function(chosen["align"]) if chosen["align"] is not None else None

    def prepare(picture: np.ndarray) -> np.ndarray:
        aligned = picture if align is None else np.asarray(align(picture))
        if aligned.dtype != np.uint8 or aligned.ndim != 3 or aligned.shape[2] != 3:
            raise SettingsError(
                f"preprocessing.align: wanted a picture, uint8 (height, width, 3), from "
                f"'{chosen['align']}', got {aligned.dtype} {aligned.shape}"
            )
        height, width = (max(1, round(side * chosen["crop"])) for side in aligned.shape[:2])
        top, left = (aligned.shape[0] - height) // 2, (aligned.shape[1] - width) // 2
        return aligned[top : top + height, left : left + width]

    return prepare


def _function(path: str) -> Change:
    module, _, function = path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as fault:
        raise SettingsError(f"preprocessing.align: cannot import '{path}': {fault}") from fault

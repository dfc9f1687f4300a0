"""Preprocessing of pictures, before they are resized: aligned by a function, then cropped."""

from collections.abc import Callable

import numpy as np

from camdrift.settings import SettingsError, imports

Change = Callable[[np.ndarray], np.ndarray]  # picture -> picture, both uint8 (height, width, 3)


def preprocessor(settings: dict | None) -> Change:
    """Returns the function that preprocesses a picture.

    First `align`, the user's own function, `package.module:function`, picture -> picture, for
    example to turn faces upright by their eyes; then `crop` keeps that share of each side, centred.

    Raises:
        SettingsError: the function cannot be imported, or does not return a picture.
    """
    if settings is None:
        return lambda picture: picture
    align = None
    if settings["align"] is not None:
        align = imports.function(settings["align"], "preprocessing.align")

    def prepare(picture: np.ndarray) -> np.ndarray:
        aligned = picture if align is None else np.asarray(align(picture))
        if (
            aligned.dtype != np.uint8
            or aligned.ndim != 3
            or aligned.shape[2] != 3
            or not aligned.size
        ):
            raise SettingsError(
                f"preprocessing.align: wanted a picture, uint8 (height, width, 3), from "
                f"'{settings['align']}', got {aligned.dtype} {aligned.shape}; a picture is left "
                "out where the function raises an error"
            )
        height, width = (max(1, round(side * settings["crop"])) for side in aligned.shape[:2])
        top, left = (aligned.shape[0] - height) // 2, (aligned.shape[1] - width) // 2
        return aligned[top : top + height, left : left + width]

    return prepare

"""Pictures: decoded from files as upright RGB, and made tiles of a set's size and channels."""

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from camdrift.settings.section import sides

# A quarter of a gigabyte as RGB, the size at which Pillow warns of a decompression bomb. A tile
# needs several copies of its picture, and a file of a few bytes may declare any size.
MOST_PIXELS = 89_478_485
# Recognised by content, not by the file's name. Pillow's other formats are left out: an EPS is a
# program, which Ghostscript would run, and few of the others have a reader that many people test.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "AVIF", "JPEG2000")


def decode(file: Path) -> np.ndarray:
    """Returns the picture in a file as uint8 RGB (height, width, 3), upright.

    EXIF rotation is applied; grey, palette and CMYK become RGB; transparency is laid on white;
    16-bit grey is scaled by its type's range, not by the picture's own.

    Raises:
        ValueError: the picture has more than `MOST_PIXELS`, or grey values outside 16 bit.
        OSError: the file is truncated, corrupt, or none of `FORMATS`. Rubbish in the middle of a
            JPEG goes unnoticed: the format has no checksum, and its reader guesses the rest.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _read(file)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as fault:
            raise ValueError(f"{_too_large()}: {fault}") from fault


def _read(file: Path) -> np.ndarray:
    with Image.open(file, formats=_formats()) as opened:
        _refuse_size(*opened.size)
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image)
            if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
                raise ValueError(f"grey values of mode {image.mode} outside 16 bit")
            grey = np.round(values / 257).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.asarray(image.convert("RGB"))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF needs Pillow 11.3


@cache
def suffixes() -> frozenset[str]:
    """Returns the suffixes, in lower case, of files that may hold one of `FORMATS`."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in _formats())


def fit(
    picture: np.ndarray, resize: int, size: int | Sequence[int], channels: int = 3
) -> np.ndarray:
    """Returns the picture, resized in proportion (bilinear), its centre cropped.

    It is resized until it just covers an area of the proportions of `size` whose shorter side has
    `resize` px; for a square, its own shorter side then has `resize` px.

    Args:
        picture: uint8 RGB (height, width, 3).
        resize: in px, at least the shorter side of `size`.
        size: of the result in px: a side, or height and width.
        channels: of the result, see `with_channels`.

    Returns:
        uint8 (height, width, channels).

    Raises:
        ValueError: the picture has more than `MOST_PIXELS`, or would have after resizing, as a thin
            strip does.
    """
    _refuse_size(picture.shape[1], picture.shape[0])
    image = Image.fromarray(picture)
    tall, wide = sides(size)
    short = min(tall, wide)
    area = resize * wide / short, resize * tall / short
    scale = max(least / side for least, side in zip(area, image.size, strict=True))
    width, height = (
        max(least, round(side * scale))
        for least, side in zip((wide, tall), image.size, strict=True)
    )
    _refuse_size(width, height, f" when its shorter side of {min(image.size)} px is {resize} px")
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - wide) // 2, (height - tall) // 2
    cropped = np.asarray(image.crop((left, top, left + wide, top + tall)))
    return with_channels(cropped, channels)


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """Returns a picture of 3 channels, or of 1, the luma of ITU-R BT.601, which keeps a grey value.

    `picture` is uint8 RGB (height, width, 3); the result is uint8 (height, width, channels).
    """
    if channels == 3:
        return picture
    return np.asarray(Image.fromarray(picture).convert("L"))[..., None]


def _refuse_size(width: int, height: int, when: str = "") -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{_too_large()}: {width} x {height} px{when}")


def _too_large() -> str:
    return f"more than {MOST_PIXELS:,} pixels, which would take gigabytes"

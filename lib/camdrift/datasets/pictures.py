"""Pictures: decoded from files as upright RGB, and made tiles of a set's size and channels."""

import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from camdrift.settings.section import sides

# A quarter of a gigabyte as RGB, the size at which Pillow warns of a decompression bomb. A tile
# needs several copies of its picture, and a file of a few bytes may declare any size.
MOST_PIXELS = 89_478_485
# Recognised by content, not by the file's name. Pillow's other formats are left out: an EPS is a
# program, which Ghostscript would run, and few of the others have a reader that many people test.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "AVIF", "JPEG2000")
# The loss of a picture of more than 8 bit a channel, since sets hold 8.
GREY = "grey of 16 bit, rounded to 8"
FLOATS = "floating-point grey in [0, 1], rounded to 8 bit"
COLOURS = "colours of more than 8 bit, rounded to 8"
UPPER_HALF = "16 bit with colours or transparency, of which Pillow's reader keeps the upper 8"


class PictureError(ValueError):
    """A picture is too large, or its values have no place among 8-bit ones."""


class Picture(NamedTuple):
    """A picture as it was read.

    pixels: uint8 RGB (height, width, 3), upright.
    loss: of what was lost of a channel's bits, in words; '' if nothing was.
    """

    pixels: np.ndarray
    loss: str = ""


def decode(file: Path) -> np.ndarray:
    """Returns the pixels of the picture in a file, see `read`."""
    return read(file).pixels


def read(file: Path) -> Picture:
    """Returns the picture in a file.

    EXIF rotation is applied; palettes, CMYK and other colour spaces become RGB; transparency is
    laid on white. A channel keeps 8 bit, scaled by the range of its type, not of the picture: grey
    of 16 bit is rounded, `round(v / 257)`; of colours of 16 bit Pillow keeps the upper 8,
    `v // 256`; floating-point grey is taken to be in [0, 1], `round(255 v)`.

    Raises:
        PictureError: the picture has more than `MOST_PIXELS`, grey values outside 16 bit, or, in
            floating point, outside [0, 1].
        OSError: the file is truncated, corrupt, or none of `FORMATS`. Rubbish in the middle of a
            JPEG goes unnoticed: the format has no checksum, and its reader guesses the rest.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _read(file)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as fault:
            raise PictureError(f"{_too_large()}: {fault}") from fault
        except PictureError:
            raise
        except UnidentifiedImageError as fault:
            raise OSError(
                f"none of the formats that are read, which are {', '.join(_formats())}, or of a "
                "kind that Pillow does not read, as colours in floating point"
            ) from fault
        except OSError as fault:
            reason = fault.strerror if fault.errno else f"damaged, or cut short: {fault}"
            raise OSError(reason) from fault
        except Exception as fault:  # Pillow's readers raise anything
            told = str(fault) or type(fault).__name__
            raise OSError(f"damaged, or cut short: {told}") from fault


def _read(file: Path) -> Picture:
    with Image.open(file, formats=_formats()) as opened:
        _refuse_size(*opened.size)
        loss = _loss(opened)
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image)
            grey = _from_floats(values) if values.dtype.kind == "f" else _from_16_bit(values)
            if isinstance(level := image.info.get("transparency"), int):
                grey[values == level] = 255
            loss = FLOATS if values.dtype.kind == "f" else GREY
            return Picture(np.repeat(grey[..., None], 3, axis=2), loss)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return Picture(np.asarray(image.convert("RGB")), loss)


def _loss(opened: Image.Image) -> str:
    """Returns what the reader of a picture in colours loses, as its raw mode tells."""
    tiles = getattr(opened, "tile", ())
    if any(re.search(r";16[BLN]", str(tile[3])) for tile in tiles):
        return UPPER_HALF
    # The decoder `ppm` has a mode and the largest value, `ppm_plain` both, too.
    most = [tile[3][1] for tile in tiles if tile[0].startswith("ppm")]
    return COLOURS if max(most, default=255) > 255 else ""


def _from_16_bit(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(
            f"grey values outside 16 bit: wanted whole numbers from 0 to 65,535, got "
            f"{values.min():,} to {values.max():,}"
        )
    return np.round(values / 257).astype(np.uint8)


def _from_floats(values: np.ndarray) -> np.ndarray:
    wanted = "floating-point grey values: wanted 0 (black) to 1 (white), got"
    if not np.isfinite(values).all():
        raise PictureError(f"{wanted} some that are infinite or not a number")
    if values.min() < 0 or values.max() > 1:
        raise PictureError(
            f"{wanted} {values.min():g} to {values.max():g}; divide them by the value of white"
        )
    return np.round(values * 255).astype(np.uint8)


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
        PictureError: the picture has more than `MOST_PIXELS`, or would have after resizing, as a
            thin strip does.
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
        raise PictureError(f"{_too_large()}: {width} x {height} px{when}")


def _too_large() -> str:
    return f"more than {MOST_PIXELS:,} pixels, which would take gigabytes"

"""Pictures of every depth and colour space: the values that they have as 8-bit RGB."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from camdrift.datasets import images, pictures
from test_images import FOLDER

# Of 16 bit: their nearest 8-bit values v / 257, and their upper halves v // 256, which differ.
VALUES = np.array([[0, 127, 129, 255, 300, 32767, 32768, 65279, 65406, 65535]], np.uint16)
NEAREST = [0, 0, 1, 1, 1, 127, 128, 254, 254, 255]
UPPER = [0, 0, 0, 0, 1, 127, 128, 254, 255, 255]
COLOURS = np.stack([VALUES, VALUES, VALUES], axis=2)


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bit a channel, which Pillow does not write in colours."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    )


def tiff(pixels: np.ndarray) -> bytes:
    """A TIFF of three channels, 16 bit each or in floating point of 32 bit."""
    height, width, _ = pixels.shape
    content, bits = pixels.tobytes(), pixels.dtype.itemsize * 8
    kind = 3 if pixels.dtype.kind == "f" else 1
    entries = [
        (256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, 20), (277, 3),
        (278, height), (279, len(content)), (339, 14),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    for tag, value in entries:
        directory += struct.pack("<HHII", tag, 3, 3 if tag in (258, 339) else 1, value)
    head = struct.pack("<2sHI", b"II", 42, 20 + len(content))
    return head + struct.pack("<6H", *[bits] * 3, *[kind] * 3) + content + directory + bytes(4)


def rgb(file) -> np.ndarray:
    return pictures.decode(file)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bit_is_rounded(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(VALUES).save(file)
    read = pictures.read(file)
    assert read.loss == pictures.GREY == "grey of 16 bit, rounded to 8"
    np.testing.assert_array_equal(read.pixels, np.repeat(np.array([NEAREST])[..., None], 3, 2))


def test_colours_of_16_bit_keep_their_upper_half(tmp_path):
    whole = np.concatenate([COLOURS, np.full_like(COLOURS[..., :1], 65535)], axis=2)
    for name, content in [
        ("a.png", png(COLOURS)), ("b.png", png(whole)), ("c.png", png(whole[..., 2:])),
        ("d.tif", tiff(COLOURS)),
    ]:  # fmt: skip
        (tmp_path / name).write_bytes(content)
        read = pictures.read(tmp_path / name)
        assert read.loss == pictures.UPPER_HALF, name
        np.testing.assert_array_equal(read.pixels[0, :, 0], UPPER)
        np.testing.assert_array_equal(read.pixels[0, :, 2], UPPER)
    ppm = b"P6 10 1 65535\n" + COLOURS.astype(">u2").tobytes()
    (tmp_path / "e.ppm").write_bytes(ppm)
    read = pictures.read(tmp_path / "e.ppm")
    assert read.loss == pictures.COLOURS
    np.testing.assert_array_equal(read.pixels[0, :, 1], NEAREST)


def test_whole_numbers_outside_16_bit_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70_000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="wanted whole numbers from 0 to 65,535, got 0 to 70,000"):
        rgb(tmp_path / "a.tif")
    Image.fromarray(VALUES.astype(np.int32)).save(tmp_path / "b.tif")
    np.testing.assert_array_equal(rgb(tmp_path / "b.tif")[0, :, 0], NEAREST)


def test_floating_point_is_from_black_to_white(tmp_path):
    values = np.array([[0, 0.25, 0.5, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    read = pictures.read(tmp_path / "a.tif")
    assert read.pixels[0, :, 1].tolist() == [0, 64, 128, 255]
    assert read.loss == pictures.FLOATS
    for name, more, message in [
        (
            "b",
            values * 255,
            "wanted 0 .black. to 1 .white., got 0 to 255; divide",
        ),
        ("c", values - 1, "got -1 to 0;"),
        ("d", values + np.nan, "got some that are infinite or not a number"),
    ]:
        Image.fromarray(more).save(tmp_path / f"{name}.tif")
        with pytest.raises(ValueError, match=message):
            rgb(tmp_path / f"{name}.tif")
    (tmp_path / "e.tif").write_bytes(tiff(np.repeat(values[..., None], 3, axis=2)))
    with pytest.raises(OSError, match="Pillow does not read, as colours in floating point"):
        rgb(tmp_path / "e.tif")


def test_transparency_is_laid_on_white(tmp_path):
    two = Image.new("P", (2, 1), 0)
    two.putpalette([255, 0, 0, 0, 255, 0])
    two.putpixel((1, 0), 1)
    two.save(tmp_path / "hole.png", transparency=0)
    assert rgb(tmp_path / "hole.png").tolist() == [[[255, 255, 255], [0, 255, 0]]]
    two.save(tmp_path / "half.png", transparency=bytes([51, 255]))  # a fifth red, four fifths white
    assert rgb(tmp_path / "half.png").tolist() == [[[255, 204, 204], [0, 255, 0]]]
    Image.new("LA", (1, 1), (100, 51)).save(tmp_path / "grey.png")  # 0.2 * 100 + 0.8 * 255
    assert rgb(tmp_path / "grey.png").tolist() == [[[224, 224, 224]]]
    Image.fromarray(VALUES).save(tmp_path / "deep.png", transparency=300)
    assert rgb(tmp_path / "deep.png")[0, 3:6, 0].tolist() == [1, 255, 127]


def test_other_colours_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert (rgb(tmp_path / "a.tif") == [255, 0, 0]).all()
    Image.new("CMYK", (8, 8), (0, 0, 0, 155)).save(tmp_path / "b.jpg", quality=100)
    assert abs(rgb(tmp_path / "b.jpg").astype(int) - 100).max() <= 1
    Image.new("1", (8, 8), 1).save(tmp_path / "c.png")
    assert (rgb(tmp_path / "c.png") == 255).all()
    Image.new("YCbCr", (8, 8), (100, 128, 128)).save(tmp_path / "d.tif")
    assert (rgb(tmp_path / "d.tif") == 100).all()


def test_what_was_lost_is_said_once_for_all_images(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.png").write_bytes(png(np.repeat(COLOURS, 10, axis=0)))
    Image.fromarray(np.repeat(VALUES, 10, axis=0)).save(tmp_path / "a" / "3.tif")
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "4.png")
    shares = {"train": 0.0, "validation": 0.0, "test": 1.0}
    images.folder(**FOLDER | {"path": str(tmp_path), "shares": shares})
    assert capsys.readouterr().out.splitlines() == [
        f"3 of 5 images: {pictures.UPPER_HALF}", f"1 of 5 images: {pictures.GREY}"
    ]  # fmt: skip


def test_pillows_messages_say_what_they_are_of(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(OSError, match="none of the formats that are read, which are PNG, JPEG, "):
        rgb(tmp_path / "empty.png")
    Image.new("RGB", (60, 60), "red").save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[:-200])
    with pytest.raises(OSError, match=r"damaged, or cut short: \w+"):
        rgb(tmp_path / "cut.jpg")
    with pytest.raises(OSError, match="^No such file or directory$"):
        rgb(tmp_path / "nowhere.jpg")

"""Image sets: photographs that ship with two packages, digits, folders, torchvision.

Every function returns an `ImageSet`: uint8 pixels (n, height, width, channels) and an index table
with one row an image: `id, label, class_name, split, source, sha256, licence`. `source` is the
picture that the image was cut from; intervals are clustered by it. `size` is a side in px, or
height and width; `channels` are 3, or 1 for grey images.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from camdrift.datasets import folders, listing, pictures, table
from camdrift.datasets.links import Reach
from camdrift.datasets.preprocessing import preprocessor
from camdrift.datasets.splits import SPLITS, assign_splits, split_entries
from camdrift.pipeline import randomness
from camdrift.settings import SettingsError
from camdrift.settings.section import sides
from camdrift.storage import ImageSet

CC0 = "CC0-1.0"
PUBLIC_DOMAIN = "public domain, no known copyright restrictions"
# (class name, package that ships it, file, licence as its package states it)
PHOTOS = (
    ("astronaut", "skimage.data", "astronaut.png", f"{PUBLIC_DOMAIN} (NASA)"),
    ("brick", "skimage.data", "brick.png", CC0),
    ("camera", "skimage.data", "camera.png", f"{CC0} (Lav Varshney)"),
    ("cat", "skimage.data", "chelsea.png", f"{CC0} (Stefan van der Walt)"),
    ("cell", "skimage.data", "cell.png", f"{CC0} (Paul Müller et al.)"),
    ("clock", "skimage.data", "clock_motion.png", f"{PUBLIC_DOMAIN} (Stefan van der Walt)"),
    ("coffee", "skimage.data", "coffee.png", f"{CC0} (Rachel Michetti)"),
    ("coins", "skimage.data", "coins.png", f"{PUBLIC_DOMAIN} (Brooklyn Museum)"),
    ("flower", "sklearn.datasets", "images/flower.jpg", "CC BY 2.0 (vultilion)"),
    ("grass", "skimage.data", "grass.png", CC0),
    ("gravel", "skimage.data", "gravel.png", CC0),
    ("hubble", "skimage.data", "hubble_deep_field.jpg", f"{PUBLIC_DOMAIN} (NASA)"),
    ("moon", "skimage.data", "moon.png", "no licence stated, shipped with scikit-image"),
    (
        "motorcycle",
        "skimage.data",
        "motorcycle_left.png",
        "no licence stated, shipped with scikit-image (Middlebury 2014)",
    ),
    ("retina", "skimage.data", "retina.jpg", f"{CC0} (Mikael Häggström)"),
    ("rocket", "skimage.data", "rocket.jpg", f"{PUBLIC_DOMAIN} (SpaceX)"),
    ("temple", "sklearn.datasets", "images/china.jpg", "CC BY 2.0 (danielbuechele)"),
    ("tissue", "skimage.data", "ihc.png", f"{PUBLIC_DOMAIN} (CMMI)"),
)


MOST_LINES = 50  # of unreadable files that are named


class UnreadableError(SettingsError):
    """More files of a folder are unreadable than the settings allow."""


def photos(
    *,
    seed: int,
    size: int | Sequence[int],
    shares: dict[str, float],
    limits: dict[str, int],
    preprocessing: dict | None,
    channels: int = 3,
) -> ImageSet:
    """Returns `size` px tiles of the bundled photographs; a tile's class is its picture.

    Each picture is cut into a grid of `size` px cells, and the cells are dealt to the splits at
    random by `shares`, so no pixel belongs to two splits. Validation and test tiles are the cells
    themselves. Training tiles are all windows at half a cell's stride that lie in training cells
    only. `limits` bounds the tiles a class gives to each split, so that large pictures do not
    dominate. `preprocessing` applies to each tile, which is then resized back to `size` px.
    """
    prepare = preprocessor(preprocessing)
    tall, wide = sides(size)
    tiles, rows = [], []
    for label, (name, package, file, licence) in enumerate(PHOTOS):
        picture = pictures.decode(Path(str(files(package))) / file)
        rng = randomness.generator(seed, "photos", name)
        owner = _deal(picture.shape[0] // tall, picture.shape[1] // wide, shares, rng)
        for split in SPLITS:
            corners = _windows(owner == SPLITS.index(split), tall, wide, overlap=split == "train")
            picks = np.sort(rng.permutation(len(corners))[: limits[split]])
            for top, left in (corners[i] for i in picks):
                tile = prepare(picture[top : top + tall, left : left + wide])
                tiles.append(pictures.fit(tile, min(tall, wide), size, channels))
                rows.append((f"{name}_{top:04d}_{left:04d}", label, name, split, name, licence))
    return _image_set(tiles, rows)


def _deal(
    rows: int, columns: int, shares: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Returns the index of the split that owns each cell of a grid: (rows, columns)."""
    cells = rows * columns
    counts = [round(cells * shares[split]) for split in ("validation", "test")]
    owner = np.zeros(cells, dtype=int)
    order = rng.permutation(cells)
    owner[order[: counts[0]]] = SPLITS.index("validation")
    owner[order[counts[0] : sum(counts)]] = SPLITS.index("test")
    return owner.reshape(rows, columns)


def _windows(owned: np.ndarray, height: int, width: int, *, overlap: bool) -> list[tuple[int, int]]:
    """Returns the top left corners of the tiles that lie wholly inside the owned cells."""
    if not overlap:
        return [(row * height, column * width) for row, column in np.argwhere(owned)]
    halves = np.kron(owned, np.ones((2, 2), dtype=bool))  # each cell as 2 x 2 half cells
    whole = halves[:-1, :-1] & halves[1:, :-1] & halves[:-1, 1:] & halves[1:, 1:]
    return [(row * height // 2, column * width // 2) for row, column in np.argwhere(whole)]


def digits(
    *,
    seed: int,
    size: int | Sequence[int],
    shares: dict[str, float],
    limits: dict[str, int],
    preprocessing: dict | None,
    channels: int = 3,
) -> ImageSet:
    """Returns scikit-learn's 8 x 8 digits, grey, as RGB or of one channel, enlarged (nearest).

    A `size` that is no square stretches them.

    `limits` bounds the images that a class gives to each split.
    """
    prepare = preprocessor(preprocessing)
    tall, wide = sides(size)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * 255 / 16).astype(np.uint8)
    names = [f"digit_{i:04d}" for i in range(len(grey))]
    splits = assign_splits(names, bunch.target, shares, limits, seed)
    tiles, rows = [], []
    for image, name, label, split in zip(grey, names, bunch.target, splits, strict=True):
        if split:
            picture = prepare(np.asarray(Image.fromarray(image).convert("RGB")))
            enlarged = Image.fromarray(picture).resize((wide, tall), Image.Resampling.NEAREST)
            tiles.append(pictures.with_channels(np.asarray(enlarged), channels))
            rows.append((name, int(label), str(label), split, name, "CC BY 4.0 (UCI)"))
    return _image_set(tiles, rows)


def folder(
    *,
    path: str,
    seed: int,
    size: int | Sequence[int],
    resize: int,
    shares: dict[str, float],
    limits: dict[str, int],
    fold: int,
    preprocessing: dict | None,
    labels: dict | None,
    unreadable_share: float,
    licence: str,
    links: str | None = None,
    channels: int = 3,
) -> ImageSet:
    """Returns the images of a folder, resized and centre-cropped to `size` px, see `pictures.fit`.

    Layouts are those of `folders.entries`: a class a subfolder, splits above classes, or a table of
    labels. Files that cannot be read are named on the terminal and left out, and so are links that
    lead out of the folder, except into the folder `links`. The terminal also says how many images
    had more than 8 bit a channel.

    Raises:
        UnreadableError: more than `unreadable_share` of the files could not be read.
        SettingsError: as `folders.entries`, or `align` returns no picture.
    """
    root = Path(path)
    entries = folders.entries(root, labels, links)
    reach = Reach.from_settings(path, links)
    names, splits = split_entries(root, entries, shares, limits, seed, fold=fold)
    prepare = preprocessor(preprocessing)
    tiles, rows, unreadable, losses = [], [], [], []
    work = [item for item in zip(entries, names, splits, strict=True) if item[2]]
    for (file, label, class_name, _), name, split in tqdm(work, desc="reading", unit="image"):
        shown = listing.safe_name(name)
        try:
            picture = pictures.read(reach.within(file))
            tiles.append(pictures.fit(prepare(picture.pixels), resize, size, channels))
            losses += [picture.loss] if picture.loss else []
            rows.append((name, label, class_name, split, name, licence))
        except SettingsError as fault:
            raise SettingsError(f"{shown}: {fault}") from fault
        except Exception as fault:  # Pillow's readers and users' functions raise anything
            unreadable.append(f"{shown}: {str(fault) or type(fault).__name__}")
    for loss, count in Counter(losses).items():
        tqdm.write(f"{count:,} of {len(work):,} images: {loss}")
    for line in unreadable[:MOST_LINES]:
        tqdm.write(f"unreadable, left out: {line}")
    if (more := len(unreadable) - MOST_LINES) > 0:
        tqdm.write(f"unreadable, left out: {more:,} more")
    if len(unreadable) > unreadable_share * len(work):
        raise UnreadableError(
            f"{len(unreadable)} of {len(work)} files in {path} cannot be read, more than the share "
            f"of {unreadable_share} that unreadable_share allows. The first: {unreadable[0]}"
        )
    facts: dict[str, Any] = {"unreadable_files": len(unreadable)}
    if any(entry.split for entry in entries):
        facts["split_by"] = "folders"
    if not labels:
        facts["class_folders"] = folders.classes(root, links)
    return _image_set(tiles, rows, facts)


def torchvision_set(
    *,
    dataset: str,
    arguments: dict,
    seed: int,
    size: int | Sequence[int],
    resize: int,
    shares: dict[str, float],
    limits: dict[str, int],
    fold: int,
    preprocessing: dict | None,
    licence: str,
    channels: int = 3,
) -> ImageSet:
    """Returns the images of a `torchvision.datasets` class by name, called with `arguments`.

    Images are resized and centre-cropped as those of a folder, and held one at a time. Nothing is
    downloaded unless the user's `arguments` allow it, by `{download: true}`.

    Raises:
        SettingsError: there is no such class, it takes no such arguments, its files are not there
            or cannot be read, its items are not an image and a class, or it treats a hidden folder
            as a class.
    """
    source = _dataset(dataset, arguments)
    labels = _labels(source, dataset)
    names = [f"{dataset.lower()}_{i:06d}" for i in range(len(labels))]
    classes = _class_names(source, arguments, 1 + max(labels, default=0))
    hidden = [name for name in classes if listing.is_left_out(name)]
    if hidden:
        raise SettingsError(
            f"torchvision.datasets.{dataset} takes '{hidden[0]}', a hidden or system folder, for a "
            "class, which shifts the numbers of others; wanted it removed, or kind: folder"
        )
    splits = assign_splits(names, labels, shares, limits, seed, fold=fold)
    prepare = preprocessor(preprocessing)
    tiles, rows = [], []
    for i, (name, label, split) in enumerate(zip(names, labels, splits, strict=True)):
        if split:
            image, _ = _item(source, i, dataset)
            picture = prepare(np.asarray(image.convert("RGB")))
            tiles.append(pictures.fit(picture, resize, size, channels))
            rows.append((name, label, classes[label], split, name, licence))
    return _image_set(tiles, rows)


# They unpickle a file beside the images, which nothing verifies.
UNPICKLING = ("LSUN", "LSUNClass")


def _dataset(name: str, arguments: dict) -> Any:
    from camdrift.pipeline.vision import torchvision

    kind = getattr(torchvision.datasets, name, None)
    if not isinstance(kind, type) or name in UNPICKLING or not hasattr(kind, "__getitem__"):
        reason = ", which unpickles what it finds" if name in UNPICKLING else ""
        raise SettingsError(f"no dataset '{name}' in torchvision.datasets that is used{reason}")
    try:
        return kind(**arguments)
    except Exception as fault:  # bad arguments, missing files, failed downloads
        raise SettingsError(
            f"torchvision.datasets.{name} with {arguments}: {type(fault).__name__}: {fault}"
        ) from fault


def _labels(source: Any, dataset: str) -> list[int]:
    """Returns the class of each item; reads no image if the dataset lists the classes."""
    listed = np.asarray(getattr(source, "targets", ()))
    if listed.shape == (len(source),) and listed.dtype.kind == "i":
        return listed.tolist()
    return [_item(source, i, dataset)[1] for i in range(len(source))]


def _class_names(source: Any, arguments: dict, count: int) -> list[str]:
    binary = arguments.get("target_types") == "binary-category"  # OxfordIIITPet's cats and dogs
    classes = getattr(source, "bin_classes" if binary else "classes", None) or range(count)
    # Imagenette names a class by several words.
    return [name[0] if isinstance(name, tuple) else str(name) for name in classes]


def _item(source: Any, place: int, dataset: str) -> tuple[Image.Image, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image, label = source[place]
            return image, int(label)
    except Exception as fault:
        raise SettingsError(
            f"item {place} of torchvision.datasets.{dataset}: {type(fault).__name__}: {fault}. "
            "Wanted an image that can be read, and the number of its class"
        ) from fault


def _image_set(
    tiles: list[np.ndarray], rows: list[tuple], facts: dict[str, Any] | None = None
) -> ImageSet:
    columns = ["id", "label", "class_name", "split", "source", "licence"]
    if not any(row[columns.index("split")] == "test" for row in rows):
        raise SettingsError("the set has no test image; raise shares.test or limits.test")
    index = pd.DataFrame(rows, columns=columns)
    if not index["label"].between(0, table.MOST_CLASSES - 1).all():
        raise SettingsError(
            f"wanted class numbers from 0 to {table.MOST_CLASSES - 1:,}, got "
            f"{index['label'].min()} to {index['label'].max()}"
        )
    index["sha256"] = [hashlib.sha256(np.ascontiguousarray(t).tobytes()).hexdigest() for t in tiles]
    everywhere = {"unreadable_files": 0, "split_by": "shares"}
    return ImageSet(np.stack(tiles), index, everywhere | (facts or {}))


def datasheet(images: ImageSet) -> dict:
    """Returns a set's datasheet: counts, size, splits, classes, licences, checksum of pixels.

    `channels` stand in it where they are not 3.
    """
    index, channels = images.index, images.pixels.shape[3]
    return {
        "images": len(index),
        "unreadable_files": images.facts["unreadable_files"],
        "size_px": [int(side) for side in images.pixels.shape[1:3]],
        **({} if channels == 3 else {"channels": int(channels)}),
        "split_by": images.facts["split_by"],
        "splits": {split: int((index["split"] == split).sum()) for split in SPLITS},
        "sources": int(index["source"].nunique()),
        "classes": {
            str(name): {split: int((group["split"] == split).sum()) for split in SPLITS}
            for name, group in index.groupby("class_name", sort=True)
        },
        "licences": {
            str(licence): sorted(group["class_name"].unique().tolist())
            for licence, group in index.groupby("licence", sort=True)
        },
        "sha256": hashlib.sha256(images.pixels.tobytes()).hexdigest(),
    }

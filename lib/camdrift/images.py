"""Image sets: photographs that ship with two packages, digits, folders, torchvision.

Every function returns an `ImageSet`: uint8 pixels (n, height, width, 3) and an index table with one
row an image: `id, label, class_name, split, source, sha256, licence`. `source` is the picture that
an image was cut from; intervals are clustered by it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from camdrift import randomness
from camdrift.artifacts import ImageSet
from camdrift.preprocessing import preprocessor
from camdrift.settings import SettingsError

SPLITS = ("train", "validation", "test")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}

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


class UnreadableError(SettingsError):
    """More files of a folder are unreadable than the settings allow."""


def photos(
    *,
    seed: int,
    size: int,
    shares: dict[str, float],
    limits: dict[str, int],
    preprocessing: dict | None,
) -> ImageSet:
    """Returns `size` px tiles of the bundled photographs; a tile's class is its picture.

    Each picture is cut into a grid of `size` px cells, and the cells are dealt to the splits at
    random by `shares`, so no pixel belongs to two splits. Validation and test tiles are the cells
    themselves. Training tiles are all windows at half a cell's stride that lie in training cells
    only. `limits` bounds the tiles a class gives to each split, so that large pictures do not
    dominate. `preprocessing` is of each tile, which is brought back to `size` px.
    """
    prepare = preprocessor(preprocessing)
    tiles, rows = [], []
    for label, (name, package, file, licence) in enumerate(PHOTOS):
        picture = decode(Path(str(files(package))) / file)
        rng = randomness.generator(seed, "photos", name)
        owner = _deal(picture.shape[0] // size, picture.shape[1] // size, shares, rng)
        for split in SPLITS:
            corners = _windows(owner == SPLITS.index(split), size, overlap=split == "train")
            chosen = np.sort(rng.permutation(len(corners))[: limits[split]])
            for top, left in (corners[i] for i in chosen):
                tiles.append(
                    _fit(prepare(picture[top : top + size, left : left + size]), size, size)
                )
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


def _windows(owned: np.ndarray, size: int, *, overlap: bool) -> list[tuple[int, int]]:
    """Returns the top left corners of the tiles that lie wholly inside the owned cells."""
    if not overlap:
        return [(row * size, column * size) for row, column in np.argwhere(owned)]
    halves = np.kron(owned, np.ones((2, 2), dtype=bool))  # each cell as 2 x 2 half cells
    whole = halves[:-1, :-1] & halves[1:, :-1] & halves[:-1, 1:] & halves[1:, 1:]
    return [(row * size // 2, column * size // 2) for row, column in np.argwhere(whole)]


def digits(
    *,
    seed: int,
    size: int,
    shares: dict[str, float],
    limits: dict[str, int],
    preprocessing: dict | None,
) -> ImageSet:
    """Returns scikit-learn's 8 x 8 digits as grey RGB images, enlarged to `size` px (nearest).

    `limits` bounds the images that a class gives to each split.
    """
    prepare = preprocessor(preprocessing)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * 255 / 16).astype(np.uint8)
    names = [f"digit_{i:04d}" for i in range(len(grey))]
    splits = _split(names, bunch.target, shares, limits, seed)
    tiles, rows = [], []
    for image, name, label, split in zip(grey, names, bunch.target, splits, strict=True):
        if split:
            picture = prepare(np.asarray(Image.fromarray(image).convert("RGB")))
            enlarged = Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST)
            tiles.append(np.asarray(enlarged))
            rows.append((name, int(label), str(label), split, name, "CC BY 4.0 (UCI)"))
    return _image_set(tiles, rows)


def folder(
    *,
    path: str,
    seed: int,
    size: int,
    resize: int,
    shares: dict[str, float],
    limits: dict[str, int],
    fold: int,
    preprocessing: dict | None,
    labels: dict | None,
    unreadable_share: float,
    licence: str,
) -> ImageSet:
    """Returns the images of a folder, resized (shorter side) and centre-cropped to `size` px.

    The layout is ImageFolder's (a class a subfolder), or any folder with a table of labels: then
    `labels` names the CSV file and its columns. Files that cannot be read are named on the
    terminal and left out.

    Raises:
        UnreadableError: more than `unreadable_share` of the files could not be read.
        SettingsError: the folder holds no image, or a file has no label.
    """
    root = Path(path)
    entries = _from_table(root, **labels) if labels else _from_subfolders(root)
    names = [file.relative_to(root).as_posix() for file, _, _ in entries]
    splits = _split(names, [label for _, label, _ in entries], shares, limits, seed, fold=fold)
    prepare = preprocessor(preprocessing)
    tiles, rows, unreadable = [], [], []
    work = [item for item in zip(entries, names, splits, strict=True) if item[2]]
    for (file, label, class_name), name, split in tqdm(work, desc="reading", unit="image"):
        try:
            tiles.append(_fit(prepare(decode(file)), resize, size))
            rows.append((name, label, class_name, split, name, licence))
        except SettingsError:
            raise
        except Exception as fault:  # Pillow's readers and users' functions raise anything
            unreadable.append(f"{name}: {fault}")
    for line in unreadable:
        tqdm.write(f"unreadable, left out: {line}")
    if len(unreadable) > unreadable_share * len(work):
        raise UnreadableError(
            f"{len(unreadable)} of {len(work)} files in {path} cannot be read, more than the share "
            f"of {unreadable_share} that unreadable_share allows. The first: {unreadable[0]}"
        )
    return _image_set(tiles, rows, unreadable=len(unreadable))


def torchvision_set(
    *,
    dataset: str,
    arguments: dict,
    seed: int,
    size: int,
    resize: int,
    shares: dict[str, float],
    limits: dict[str, int],
    fold: int,
    preprocessing: dict | None,
    licence: str,
) -> ImageSet:
    """Returns a `torchvision.datasets` class by name, called with `arguments`.

    Images are resized and centre-cropped as those of a folder. Whether anything may be downloaded
    is the user's `arguments: {download: true}`.
    """
    from camdrift.vision import torchvision

    source = getattr(torchvision.datasets, dataset)(**arguments)
    items = [(image, int(label)) for image, label in source]
    names = [f"{dataset.lower()}_{i:06d}" for i in range(len(items))]
    classes = getattr(source, "classes", None) or [
        str(label) for label in range(1 + max(label for _, label in items))
    ]
    splits = _split(names, [label for _, label in items], shares, limits, seed, fold=fold)
    prepare = preprocessor(preprocessing)
    tiles, rows = [], []
    for (image, label), name, split in zip(items, names, splits, strict=True):
        if split:
            tiles.append(_fit(prepare(np.asarray(image.convert("RGB"))), resize, size))
            rows.append((name, label, str(classes[label]), split, name, licence))
    return _image_set(tiles, rows)


def decode(file: Path) -> np.ndarray:
    """Returns the picture in a file as uint8 RGB (height, width, 3), upright.

    EXIF rotation is applied; grey, palette and CMYK become RGB; transparency is laid on white;
    16-bit grey is scaled by its type's range, not by the picture's own.
    """
    with Image.open(file) as opened:
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


def _fit(picture: np.ndarray, resize: int, size: int) -> np.ndarray:
    """Returns the picture with its shorter side at `resize` px (bilinear), centre `size` px."""
    image = Image.fromarray(picture)
    scale = resize / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _from_subfolders(root: Path) -> list[tuple[Path, int, str]]:
    """Returns (file, label, class name) of an ImageFolder layout, in sorted order."""
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    entries = [
        (file, label, name) for label, name in enumerate(classes) for file in _pictures(root / name)
    ]
    if not entries:
        raise SettingsError(
            f"no image in the subfolders of {root}; wanted {root}/<class>/<image>, or set "
            "`labels:` with the CSV file that names each image's class"
        )
    return entries


def _from_table(
    root: Path, *, csv: str, image: str, label: str, offset: int
) -> list[tuple[Path, int, str]]:
    """Returns (file, label, class name) of a folder whose labels stand in a CSV file.

    The `image` column holds paths or file names, with or without suffix. A numeric `label` column
    is the class index plus `offset`; any other is a class name, numbered in sorted order over the
    whole table. Images in the table that are not in the folder are passed over: a table may
    describe a larger set.
    """
    table = pd.read_csv(root / csv, dtype={image: str})
    for column in (image, label):
        if column not in table:
            raise SettingsError(f"no column '{column}' in {root / csv}; it has {list(table)}")
    rows = {name: i for i, name in enumerate(table[image])}
    files = list(_pictures(root))
    found = []
    for file in files:
        path = file.relative_to(root)
        names = (path.as_posix(), path.with_suffix("").as_posix(), path.name, path.stem)
        row = next((rows[name] for name in names if name in rows), None)
        if row is None:
            raise SettingsError(f"{path} has no row in {csv}, column '{image}'")
        found.append(row)
    if not files:
        raise SettingsError(f"no image in {root}")
    if (
        len(set(found)) < len(found)
        or table[image].iloc[found].isin(table[image][table[image].duplicated()]).any()
    ):
        raise SettingsError(f"column '{image}' of {csv} does not name each image once")
    values = table[label].iloc[found]
    if values.isna().any():
        raise SettingsError(f"{int(values.isna().sum())} images have no '{label}' in {csv}")
    if pd.api.types.is_numeric_dtype(values):
        numbers = values - offset
        if (numbers < 0).any() or (numbers % 1 != 0).any():
            raise SettingsError(
                f"'{label}' of {csv} minus the offset {offset}: wanted whole numbers from 0, got "
                f"{numbers.min():g} to {numbers.max():g}"
            )
        numbers = numbers.astype(int)
        class_names = numbers.astype(str)
    else:
        class_names = values.astype(str)
        known = sorted(table[label].dropna().astype(str).unique())
        numbers = class_names.map({name: i for i, name in enumerate(known)})
    return list(zip(files, numbers.astype(int), class_names, strict=True))


def _pictures(root: Path) -> Iterator[Path]:
    return (f for f in sorted(root.rglob("*")) if f.suffix.lower() in SUFFIXES and f.is_file())


def _split(
    names: Sequence[str],
    labels: Sequence[int],
    shares: dict[str, float],
    limits: dict[str, int],
    seed: int,
    *,
    fold: int = 0,
) -> list[str]:
    """Returns each image's split, or '' where its class is over the limit of its split.

    Within a class the images are ordered by a hash of (seed, name) and cut at the shares: a new
    image changes no other's place in the order. Each further `fold` turns the order on by as many
    images as are tested, so that no image is tested in two folds.

    Raises:
        SettingsError: a class has too few images for that many folds.
    """
    frame = pd.DataFrame({"name": names, "label": labels})
    frame["rank"] = [randomness.entropy(seed, "split", name) for name in names]
    chosen = [""] * len(frame)
    for _, group in frame.groupby("label"):
        order = group.sort_values("rank").index
        ends = np.round(np.cumsum([shares[split] for split in SPLITS]) * len(order)).astype(int)
        tested = ends[2] - ends[1]
        if (fold + 1) * tested > len(order):
            raise SettingsError(
                f"fold {fold} would test images of another fold again: a class has {len(order)} "
                f"images and a fold tests {tested}; wanted a smaller shares.test or fewer folds"
            )
        order = np.roll(order, fold * tested)
        for split, start, end in zip(SPLITS, [0, *ends[:-1]], ends, strict=True):
            for i in order[start : min(end, start + limits[split])]:
                chosen[i] = split
    return chosen


def _image_set(tiles: list[np.ndarray], rows: list[tuple], *, unreadable: int = 0) -> ImageSet:
    columns = ["id", "label", "class_name", "split", "source", "licence"]
    if not any(row[columns.index("split")] == "test" for row in rows):
        raise SettingsError("the set has no test image; raise shares.test or limits.test")
    index = pd.DataFrame(rows, columns=columns)
    index["sha256"] = [hashlib.sha256(np.ascontiguousarray(t).tobytes()).hexdigest() for t in tiles]
    return ImageSet(pixels=np.stack(tiles), index=index, unreadable={"files": unreadable})


def datasheet(images: ImageSet) -> dict:
    """Returns a set's datasheet: counts, size, class balance, licences, checksum of the pixels."""
    index = images.index
    return {
        "images": len(index),
        "unreadable_files": images.unreadable["files"],
        "size_px": [int(side) for side in images.pixels.shape[1:3]],
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

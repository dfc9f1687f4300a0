"""Workers and images: how fast two workers are beside one, and what ten times the images take.

`python tests/benchmarks/scaling.py` after `make repro`; a part of `make bench`.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.ops import benchmarks
from camdrift.storage import ImageSet, Maps, files

ROOT = Path(__file__).resolve().parents[2]
STUDY, SET, MODEL = "layers", "photos", "vgg16_quarter"
SPREAD = "dlfuzz"  # the cell whose maps one and two workers make
GROWN, IMAGES = "fgsm", 96  # the cell whose maps of these images are averaged down
SHARD = 128  # images: a whole shard, and ten times as many, of which that cell is built
STAGES = ("attack", "noise", "cam", "score")
SIDES = (16, 32)  # of `cams.max_side`, in px
PAPERS = ("renkhoff_imagenet", "noisecam_imagenet")
DECODE = 0.01  # seconds to read and resize a picture; a thousandth of the whole


def main() -> None:
    """Writes what workers and images take into the benchmarks."""
    before = benchmarks.measurements()
    work = {"workers": lambda: list(workers()), "growth": growth, "sides": lambda: list(sides()),
            "papers": lambda: list(papers())}  # fmt: skip
    names = sys.argv[1:] or list(work)
    scaling = before.get("scaling", {}) | {name: work[name]() for name in names}
    files.write_json(benchmarks.PATH, before | {"scaling": scaling})


def workers() -> Iterator[dict]:
    """Yields `workers, seconds, pace` of the cam stage with Dask, a thread a worker.

    Seconds are of the whole stage, from its start to its end; the pace, in images a second, is of
    the shards, the start of the workers in it. Bytes are compared.
    """
    manifests = []
    with _copy() as folder:
        for count in (1, 2):
            took = _stage(
                folder, f"cam@{SPREAD}", CAMDRIFT_BACKEND="dask", CAMDRIFT_WORKERS=str(count),
                OMP_NUM_THREADS="1",
            )  # fmt: skip
            place = folder / storage.cell_folder(STUDY, SPREAD, "cam")
            manifests.append((place / files.MANIFEST).read_bytes())
            pace = took["images_a_second"]["shard"]
            yield {"workers": count, "seconds": took["seconds"], "pace": pace}
    assert manifests[0] == manifests[1], "two workers wrote other bytes than one"


def growth() -> list[dict]:
    """Returns `stage, images, peak_memory_mb, seconds` of a cell of some and of ten times as many.

    Each stage is a process of its own, serial, on all cores.
    """
    rows = []
    for times in (1, 10):
        with _copy() as folder:
            _repeat(folder, times)
            for group in STAGES:
                took = _stage(folder, f"{group}@{GROWN}")
                facts = {key: took[key] for key in ("peak_memory_mb", "seconds")}
                rows.append({"stage": group, "images": SHARD * times, **facts})
    return rows


def sides() -> Iterator[dict]:
    """Yields what `cams.max_side` saves of a cell's maps, and how far it moves similarities.

    `side`, `bytes` of the stored values over those of full maps, `error`: the largest absolute
    difference of a layer's mean cosine, and `pair`: the mean one of a single pair.
    """
    from camdrift import settings
    from camdrift.explain import packing
    from camdrift.scores import comparison
    from camdrift.settings.params import load

    with contextlib.chdir(ROOT):
        cell = load().cells[GROWN]
        folder = storage.cell_folder(STUDY, GROWN, "cam")
        maps = storage.read(Maps, folder)
        images = storage.read(
            storage.Attacked, storage.cell_folder(STUDY, GROWN, "attack")
        ).images.iloc[:IMAGES]
        first = settings.protocols(load().protocols)[cell.protocols[0]]
        alone = pd.DataFrame(index=images["image"])
        maps = comparison.part(maps, alone.index, np.empty(0))
        size = maps.pictures.shape[2]

        def cosines(these: Maps) -> pd.Series:
            table = comparison.drift(these, [first], alone, size=size, beside=[])
            table = table[(table["score"] == "cosine") & (table["method"] == maps.methods[0])]
            keys = ["variant", "strength", "draw", "target", "layer", "image"]
            return table.astype({"layer": str}).set_index(keys)["value"].sort_index()

        whole = cosines(maps)
        for side in SIDES:
            small = _shrunk(maps, side, packing.shrunk)
            apart = (cosines(small) - whole).abs()
            means = whole.groupby(level=["variant", "strength", "layer"]).mean()
            moved = cosines(small).groupby(level=["variant", "strength", "layer"]).mean() - means
            yield {
                "side": side, "bytes": small.values.nbytes / maps.values.nbytes,
                "error": float(moved.abs().max()), "pair": float(apart.mean()),
            }  # fmt: skip


def _shrunk(maps: Maps, side: int, shrink) -> Maps:
    import torch

    parts, sizes = [], []
    for layer in maps.layers.itertuples():
        flat = maps.values[:, layer.start : layer.start + layer.height * layer.width]
        full = torch.from_numpy(flat.astype(np.float32)).view(-1, layer.height, layer.width)
        (small,) = shrink((full,), side)
        tops = small.flatten(1).amax(1).clamp_min(1e-30)[:, None]
        parts.append((small.flatten(1) / tops).half().numpy())
        sizes.append(small.shape[1:])
    layers = maps.layers.assign(
        height=[height for height, _ in sizes], width=[width for _, width in sizes],
        start=np.cumsum([0, *(h * w for h, w in sizes)])[:-1],
    )  # fmt: skip
    values = np.concatenate(parts, axis=1)
    return Maps(values, maps.maxima, maps.rows, layers, maps.pictures, maps.examples)


def papers() -> Iterator[dict]:
    """Yields what studies of 5,000 ImageNet images would take here, a row a preset and stage.

    `preset, stage, seconds, disk` (MB): in proportion to what their stages take of a few images of
    noise, see `camdrift.ops.forecast`. Only the images are not there.
    """
    from camdrift.ops import build, estimate, forecast
    from camdrift.ops.needs import Counted
    from camdrift.settings import presets

    with contextlib.chdir(ROOT), tempfile.TemporaryDirectory() as empty:
        for name in PAPERS:
            content = build.placed(presets.read(name), {"DATA": Path(empty)})
            plan = build.resolved(content, [])
            (images,) = plan.sets
            size = plan.sets[images].size
            looks = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
            native = 3.0 * 500 * 375  # bytes of a usual ImageNet picture
            classes = np.arange(len(looks))
            count = Counted({"test": 5000}, 1000, looks, classes, DECODE, native, 50_000)
            estimates = forecast.estimates(plan, {images: count})
            for row in estimate.table(estimates).itertuples():
                yield {"preset": name, "stage": row.stage, "seconds": row.seconds, "disk": row.disk}


@contextlib.contextmanager
def _copy() -> Iterator[Path]:
    """Lends a copy of the repository with a cell's inputs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("lib", "stages", "params.yaml", "dvc.yaml", "constraints.txt"):
            (folder / part).symlink_to(ROOT / part)
        places = [storage.set_folder(SET), storage.model_folder(MODEL)]
        places += [storage.cell_folder(STUDY, SPREAD, part) for part in ("attack", "noise")]
        for place in places:
            shutil.copytree(ROOT / place, folder / place)
        with contextlib.chdir(folder):
            yield folder


def _repeat(folder: Path, times: int) -> None:
    """Leaves a set of the first test images, each several times under ids of its own."""
    images = storage.read(ImageSet, storage.set_folder(SET))
    rows = images.index.index[images.index["split"] == "test"][:SHARD].to_numpy()
    pixels = np.concatenate([images.pixels[rows]] * times)
    index = pd.concat([images.index.iloc[rows]] * times, ignore_index=True)
    index["id"] = [f"{name}-{i}" for i, name in enumerate(index["id"])]
    storage.write(storage.set_folder(SET), ImageSet(pixels, index, images.facts))


def _stage(folder: Path, name: str, **environment: str) -> dict:
    """Runs a stage and returns what it took."""
    own = {"CAMDRIFT_PYTHON": sys.executable, "CAMDRIFT_RUNS": "data/run"}
    subprocess.run(
        ["sh", "stages/run", name], cwd=folder, check=True,
        env=os.environ | own | environment,
    )  # fmt: skip
    return files.read_json(folder / "data" / "run" / f"{name}.json")


if __name__ == "__main__":
    main()

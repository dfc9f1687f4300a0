"""The dashboard's pages on a cell of 5,000 images, made of the default study's by repetition.

`python tests/benchmarks/browsing.py` after `make repro`; a part of `make bench`.
"""

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from camdrift import storage
from camdrift.ops import benchmarks
from camdrift.storage import Attacked, ImageSet, Maps, Noise, Scores, files

ROOT = Path(__file__).resolve().parents[2]
STUDY, CELL, SET, IMAGES = "layers", "fgsm", "photos", 5000
PARTS = {"attack": Attacked, "noise": Noise, "cam": Maps, "score": Scores}


def main() -> None:
    """Writes what pages take into the benchmarks."""
    before = benchmarks.measurements()
    files.write_json(benchmarks.PATH, before | {"browsing": measured()})


def measured() -> list[dict]:
    """Returns a row a page and interaction: `images, page, what, seconds`, the median of five.

    Seconds are those of the page's script, without what the browser takes to draw it.
    """
    rows = list(_pages(ROOT, 305))
    with tempfile.TemporaryDirectory() as folder:
        _repeat(Path(folder))
        rows += _pages(Path(folder), IMAGES)
    return rows


def _repeat(folder: Path) -> None:
    """Makes a repository with a cell of many images; maps on the disk are shared by repetitions."""
    shutil.copytree(ROOT / "dashboard", folder / "dashboard")  # it finds its results beside itself
    for name in ("lib", "params.yaml", "dvc.lock"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data").mkdir()
    for name in ("results", "reports"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    before = storage.read(ImageSet, storage.set_folder(SET))
    cells = {name: storage.cell_folder(STUDY, CELL, name) for name in PARTS}
    parts = {name: storage.read(kind, cells[name]) for name, kind in PARTS.items()}
    old = parts["attack"].images["image"].to_numpy()
    times = -(-IMAGES // len(old))
    new = np.arange(times * len(old))  # the set is of the cell's images alone
    place = dict(zip(old, range(len(old)), strict=True))

    def array(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values] * times) if len(values) == len(old) else values

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        if "image" not in rows:
            return rows
        first = rows["image"].map(place)
        return pd.concat(
            [rows.assign(image=first + k * len(old)) for k in range(times)], ignore_index=True
        )

    index = pd.concat([before.index.iloc[old]] * times, ignore_index=True)
    index["id"] = [f"{name}-{i}" for i, name in enumerate(index["id"])]
    pixels = np.concatenate([before.pixels[old]] * times)
    attack, noise, maps = parts["attack"], parts["noise"], parts["cam"]
    images = table(attack.images).assign(id=index["id"].to_numpy(), image=new)
    artefacts = {
        "attack": Attacked(array(attack.perturbation), attack.last_step, images, attack.log),
        "noise": Noise(array(noise.draws), noise.controls, noise.facts, table(noise.scales),
                       noise.raised, noise.boundary),
        "cam": Maps(maps.values, maps.maxima, table(maps.rows), maps.layers, maps.pictures,
                    maps.examples),
    }  # fmt: skip
    values = parts["score"].values
    first = values["image"].map(place)
    # Part by part, as the stage writes them.
    scores = (Scores(values.assign(image=first + k * len(old))) for k in range(times))
    with contextlib.chdir(folder):
        storage.write(storage.set_folder(SET), ImageSet(pixels, index, before.facts))
        for name, part in artefacts.items():
            storage.write(cells[name], part)
        storage.join(cells["score"], scores)


def _pages(folder: Path, images: int) -> Iterator[dict]:
    """Yields a row a page and interaction, each of a session of its own."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    before, path = Path.cwd(), sys.path[:]
    os.chdir(folder)
    acts: dict[tuple[str, str], Callable] = {
        ("image", "next image"): lambda app, i: app.button[1].click(),
        ("image", "strength"): lambda app, i: app.selectbox(key="at_strength").set_value(
            [0.25, 0.5, 2.0, 4.0, 1.0][i]),
        ("image", "method"): lambda app, i: app.selectbox(key="with_method").set_value(
            ["LayerCAM", "GradCAM", "HiResCAM", "GradCAM", "LayerCAM"][i]),
        ("layers", "layer of the strip"): lambda app, i: app.selectbox(key="layer").set_value(
            ["1-1", "2-1", "3-1", "4-1", "5-1"][i]),
        ("detectors", "prevalence"): lambda app, i: app.slider(key="prevalence").set_value(20 + i),
        ("claims", "claim"): lambda app, i: app.selectbox(key="claim").set_value(f"A{i + 2}"),
    }  # fmt: skip
    try:
        for (page, what), act in acts.items():
            app = AppTest.from_file(str(folder / "dashboard" / "app.py"), default_timeout=300)
            app.query_params["study"] = page if page == "detectors" else STUDY
            app.query_params["cell"] = CELL
            app.run()
            st.cache_data.clear()
            st.cache_resource.clear()
            start = time.perf_counter()
            app.switch_page(f"app_pages/{page}.py").run()
            first, took = time.perf_counter() - start, []
            for i in range(5):
                start = time.perf_counter()
                act(app, i).run()
                took.append(time.perf_counter() - start)
                assert not app.exception, (page, what, app.exception)
            if page == "image":
                assert len(app.selectbox(key="image").options) >= images
            yield {"images": images, "page": page, "what": what, "first": round(first, 2),
                   "seconds": round(statistics.median(took), 2)}  # fmt: skip
    finally:
        os.chdir(before)
        sys.path[:] = path


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as fault:
        sys.exit(str(fault))

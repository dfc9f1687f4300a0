"""The record of a cell, and the tables of a study's report."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from camdrift import storage
from camdrift.analysis import statistics
from camdrift.pipeline import randomness
from camdrift.settings import (
    Cell,
    Protocol,
    Settings,
    SettingsError,
    StatisticsSettings,
    Study,
    owners,
    params,
)
from camdrift.settings.studies import OWNERS
from camdrift.storage import Maps, Record, files
from camdrift.storage.record import VARIANT

Tables = dict[str, pd.DataFrame]
Place = Callable[[str, str], Path]  # of a study, the path of a part of its results

# Groups of images, by whether the attack succeeds at strength 1.
GROUPS = {"all": [True, False], "success": [True], "failure": [False]}


@dataclass(frozen=True)
class Results:
    """The record of one cell, as tables.

    protocols: of the cell, by name, the one that decides its tables first.
    images: of the record.
    every: scores of every method and reading, with `source`, `success` (of the attack at strength
        1) and `fold`.
    flipped: whether the prediction differs from that on the clean image, by (recipe, variant,
        strength, draw, image).
    """

    name: str
    cell: Cell
    protocols: dict[str, Protocol]
    record: Record
    images: pd.DataFrame
    every: pd.DataFrame
    flipped: pd.Series

    @property
    def first(self) -> Protocol:
        """The protocol that decides the cell's tables and figures."""
        return next(iter(self.protocols.values()))

    @property
    def layers(self) -> list[str]:
        """Labels of the layers, in forward order."""
        return list(self.record.layers["label"])

    @property
    def methods(self) -> list[str]:
        """Methods of the maps, the one that decides first."""
        return self.record.facts["methods"]

    @property
    def sizes(self) -> pd.DataFrame:
        """The sizes of attack and noise, see `Noise.scales`."""
        return self.record.sizes

    @property
    def moves(self) -> pd.DataFrame:
        """Correlations of maps' movements and perturbations, see `Record.moves`."""
        return self.record.moves

    @cached_property
    def bits(self) -> dict[tuple[str, float], np.ndarray]:
        """Covered neurons by (variant, strength): bool (images, neurons)."""
        return self.record.bits()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores of the method that decides."""
        return self.every[self.every["method"] == self.methods[0]]

    @cached_property
    def focus(self) -> dict:
        """Correlations of maps and perturbations that are known, see `focus.correlations`."""
        return {}

    @cached_property
    def arrays(self) -> dict:
        """Arrays that are known to one `Evidence`, for others of the same images."""
        return {}

    @property
    def measured_by(self) -> list[str]:
        """Scores of attack and noise under the first protocol: the cosine, then those beside it."""
        names = self.scores["score"].unique()
        return ["cosine", *sorted(set(names) - {"cosine"})]

    def main(self, score: str = "cosine", *, method: str | None = None) -> pd.DataFrame:
        """Returns a score under attack and noise, first protocol; None: of the first method."""
        rows = self.every[self.every["method"] == (method or self.methods[0])]
        arms = rows["variant"].isin([storage.ADVERSARIAL, storage.NOISE])
        reading = rows["reading"] == self.first.reading
        return rows[arms & reading & (rows["score"] == score)]


@dataclass(frozen=True)
class Example:
    """One attacked image for a figure.

    pictures: uint8 (rows, h, w, channels), one a row of `labels`.
    maps: float32 (rows, h, w) a layer, each divided by its maximum.
    labels: of the rows.
    layers: labels of the layers, in forward order.
    """

    pictures: np.ndarray
    maps: list[np.ndarray]
    labels: list[str]
    layers: list[str]


def read(
    study: str,
    name: str,
    cell: Cell,
    protocols: dict[str, Protocol],
    settings: StatisticsSettings,
    *,
    seed: int,
) -> Results:
    """Returns the results of a cell, from its record."""
    record = storage.read(Record, storage.results(study, f"records/{name}"))
    facts = record.images.set_index("image")[["source", "success"]]
    rng = randomness.generator(seed, "folds")
    facts["fold"] = statistics.folds(facts["source"], count=settings.folds, rng=rng)
    scores = record.scores.join(facts, on="image")
    clean = record.images.set_index("image")["clean"]
    flipped = record.variants.set_index(VARIANT)["prediction"]
    flipped = flipped != clean.loc[record.variants["image"]].to_numpy()
    own = {key: protocols[key] for key in cell.protocols}
    return Results(
        name, cell, own, record, record.images, scores, flipped.rename("flipped").sort_index()
    )


def published(study: str, part: str) -> Path:
    """Returns the path of a part of a study's published results, which are in git."""
    return storage.published(storage.results(study, part))


def load(study: str, place: Place = storage.shown) -> Tables:
    """Returns the tables of a study as its report wrote them.

    Args:
        study: its name.
        place: `storage.shown`, `storage.results` or `published`.

    Raises:
        FileNotFoundError: there are none; the message names the command that writes them.
    """
    folder = place(study, "tables")
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"no tables in {folder}; run `make repro STUDY={study}`")
    # A cell may be called 'none' or 'nan': only an empty field is a missing value.
    texts = (
        "cell", "layer", "printed", "detail", "published_detail", "published_flags", "protocols",
        "flags", "rests_on", "text", "touches", "detector", "note", "fitted_cell", "rule",
        "positives", "negatives", "arm", "kind", "reading", "model", "on", "attack", "split",
        "number", "class_before", "class_after", "budget", "network", "method", "made_on",
        "family", "after_holm",
    )  # fmt: skip
    tables = {}
    for file in files:
        table = pd.read_csv(
            file, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(texts, str)
        )
        columns = [name for name in texts if name in table]
        table[columns] = table[columns].fillna("")
        tables[file.stem] = table
    return tables


def study_settings(study: str, settings: Settings, reads: Iterable[str]) -> Settings:
    """Returns the settings that a study's report reads, without those of other studies."""
    values = {name: getattr(settings, name) for name in (*reads, "studies")}
    used = set()
    for part in values.keys() & OWNERS.keys():
        values[part] = {key: item for key, item in values[part].items() if study in owners(item)}
        used |= {item.set for item in values[part].values()}
    if "sets" in values:
        values["sets"] = {key: item for key, item in values["sets"].items() if key in used}
    return params.holding(values)


def write_settings(study: str, settings: Settings) -> None:
    """Writes the settings of a study beside its results."""
    content = settings.model_dump(mode="json")
    for item in content.get("sets", {}).values():
        item["path"] = Path(item["path"]).name  # paths on this machine are private
        if "root" in item.get("arguments", {}):
            item["arguments"]["root"] = Path(item["arguments"]["root"]).name
    files.write_json(storage.results(study, "settings.json"), content)


def settings_of(study: str, place: Place = storage.shown) -> Settings:
    """Returns the settings of a study's results, as its report wrote them; `place` as of `load`.

    Raises:
        SettingsError: they are of an earlier revision that had other settings.
    """
    file = place(study, "settings.json")
    try:
        return params.typed(files.read_json(file))
    except (KeyError, ValidationError) as fault:
        raise SettingsError(
            f"{file} is of an earlier revision, whose settings were others; build '{study}' again, "
            f"or delete {file.parent} to see what is published"
        ) from fault


def elsewhere(settings: Settings, place: Place = storage.shown) -> dict[str, Study]:
    """Returns the studies that have results but are not in params.yaml; `place` as of `load`."""
    others: dict[str, Study] = {}
    for root in (storage.RESULTS, storage.REPORTS):
        for name in sorted(file.parent.name for file in root.glob("*/settings.json")):
            if place(name, "settings.json").exists():
                with contextlib.suppress(SettingsError):  # one of an earlier revision
                    others |= settings_of(name, place).studies
    return {name: plan for name, plan in others.items() if name not in settings.studies}


def example(study: str, name: str) -> Example:
    """Returns the first kept example of a cell: clean, adversarial and noise at strength 1."""
    maps = storage.read(Maps, storage.cell_folder(study, name, "cam"))
    image = maps.examples["image"].iloc[0]
    examples = maps.examples[maps.examples["image"] == image].reset_index(drop=True)
    variants = [("clean", 0.0, "clean"), ("adversarial", 1.0, "attack"), ("noise", 1.0, "noise")]
    places = [
        int(examples.index[(examples["variant"] == v) & (examples["strength"] == s)][0])
        for v, s, _ in variants
    ]
    rows = maps.select().query("image == @image and target == @storage.OWN")
    recipe = maps.rows.loc[maps.rows["variant"] == storage.ADVERSARIAL, "recipe"].iloc[0]
    rows = rows[(rows["draw"] == 0) & rows["recipe"].isin(["", recipe])]
    rows = rows.set_index(["variant", "strength"])["map"]
    numbers = [int(rows.loc[(v, s)]) for v, s, _ in variants]
    stacks = [
        np.asarray(
            maps.values[numbers, layer.start : layer.start + layer.height * layer.width],
            dtype=np.float32,
        ).reshape(-1, layer.height, layer.width)
        for layer in maps.layers.itertuples()
    ]
    return Example(
        maps.pictures[0][places],
        stacks,
        [text for *_, text in variants],
        list(maps.layers["label"]),
    )

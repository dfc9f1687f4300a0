"""Retraining: what attacks change becomes training data; the models so made are attacked anew.

klawikowska2020, section 3 and table 1. The paper tries its retrained models on what attacks made of
the baseline model; here they are attacked themselves, too, and by attacks that they have not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from camdrift import attacks
from camdrift.models import loading
from camdrift.models.devices import Precision
from camdrift.models.model import Model
from camdrift.models.tensors import Labels, Logits, Pixels
from camdrift.papers.klawikowska2020.controls import control
from camdrift.perturbations import perturbation
from camdrift.pipeline import randomness
from camdrift.settings import (
    ATTACKING,
    EXTENDING,
    RETRAINED,
    RETRAINED_8BIT,
    Descent,
    Retraining,
    retrained_model,
)
from camdrift.storage import BASELINE, CLEAN, LARGER, ImageSet, Retrained, Weights, as_8bit
from camdrift.storage.pixels import from_8bit, to_8bit


@dataclass(frozen=True)
class Images:
    """Images of one split: pixels, labels and their rows of the set's index."""

    pixels: Pixels
    labels: Labels
    index: pd.DataFrame


def draw(images: ImageSet, split: str, count: int | None, *, seed: int) -> Images:
    """Returns some images of a split, drawn by their id alone; all of them if `count` is None."""
    rows = images.index[images.index["split"] == split]
    if count is not None:
        key = [randomness.entropy(seed, "hardening", name) for name in rows["id"]]
        rows = rows.iloc[np.sort(np.argsort(key)[:count])]
    pixels = torch.from_numpy(from_8bit(images.pixels[rows.index]))
    return Images(pixels, torch.tensor(rows["label"].to_numpy()), rows)


def attack(
    model: Model,
    name: str,
    settings: dict,
    shown: Images,
    *,
    seed: int,
    key: str,
    outputs: Logits | None = None,
) -> tuple[Pixels, pd.DataFrame]:
    """Returns attacked pixels, clipped, and a row an image.

    Only images that the model gets right are attacked; an image on which it is wrong already stays
    as it is, and no success is counted for it. Columns: `image, source, label`, those of
    `perturbation.measure`, `right` (on the clean image) and `gain` (of an attack that raises it,
    else missing). `outputs` are the model's of the images as they are, None to compute them.
    """
    if outputs is None:
        outputs = _outputs(model, shown)
    right = outputs.argmax(1) == shown.labels
    change, effect = perturbation.run(
        attacks.perturbing(name), model, model, shown.pixels, shown.labels,
        generators=[randomness.generator(seed, "hardening", key, i) for i in shown.index["id"]],
        settings=settings, only=right, shard=4 * model.micro_batch, outputs=outputs,
    )  # fmt: skip
    gain = pd.Series({row["image"]: row.get("gain") for row in change.log}, dtype=float)
    table = shown.index.reset_index(names="image")[["image", "source", "label"]]
    table = pd.concat([table, effect.assign(right=right.numpy())], axis=1)
    return (shown.pixels + change.pixels).clamp(0, 1), table.assign(gain=gain)


def _outputs(model: Model, shown: Images) -> Logits:
    with torch.no_grad():
        return model(shown.pixels)


def retrain(
    images: ImageSet,
    baseline: Weights,
    plan: Retraining,
    common: Mapping[str, Mapping[str, Any]],
    *,
    controls: Mapping[str, Sequence[str]],
    name: str,
    seed: int,
    micro_batch: int,
    precision: Precision = "float32",
    threads: int | None = None,
) -> tuple[Retrained, dict[str, Weights]]:
    """Returns what a retraining finds, and the weights of its models by kind (see `RETRAINED`).

    Of the models retrained on images of 8 bit (see `RETRAINED_8BIT`) there are no weights: they
    meet the attack whose images they were retrained on, made anew.

    Args:
        images: the set.
        baseline: the model that is attacked, and from which the others are trained on.
        plan: the retraining's settings.
        common: settings of all attacks, `attacks:` of params.yaml.
        controls: names of those that each attack is compared with, by attack.
        name: of the retraining, part of the seeds.
        seed: of all draws.
        micro_batch: at which models are called.
        precision: of these calls; training has single precision.
        threads: of training, see `loading.retrained`.
    """
    settings = {kind: attacks.resolved(kind, common, getattr(plan, kind)) for kind in ATTACKING}
    larger = plan.fgsm | {"eps": min(1.0, plan.larger * settings["fgsm"]["eps"])}
    settings[LARGER] = attacks.resolved("fgsm", common, larger)
    tests = draw(images, "test", plan.attacked.test, seed=seed)
    trains = draw(images, "train", plan.attacked.train, seed=seed)
    ready = partial(loading.ready, micro_batch=micro_batch, precision=precision)
    known = {BASELINE: ready(baseline)}
    clean: dict[tuple[str, str], Logits] = {}  # by model and split
    tables: list[pd.DataFrame] = []
    beside: list[pd.DataFrame] = []

    def tried(model: str, kind: str, split: str, shown: Images) -> tuple[Pixels, pd.DataFrame]:
        file = "fgsm" if kind == LARGER else kind
        # Seeds hold the name that the baseline had when results were first published.
        key = f"{name} {'clear' if model == BASELINE else model} {kind} {split}"
        if (model, split) not in clean:
            clean[model, split] = _outputs(known[model], shown)
        changed, table = attack(
            known[model], file, settings[kind], shown, seed=seed, key=key,
            outputs=clean[model, split],
        )  # fmt: skip
        tables.append(table.assign(model=model, attack=kind, split=split))
        if split == "test":
            key = f"{name} {model} {kind}"
            names = controls[kind]
            flips = _controlled(known[model], shown, changed, table, names, seed=seed, key=key)
            beside.append(flips.assign(model=model, attack=kind))
        return changed, table

    def trained(
        kind: str, extension: tuple[Pixels, Labels] | None, against: Descent | None = None
    ) -> Weights:
        split = _extended(images, extension, seed=seed)
        return loading.retrained(
            baseline,
            plan.training,
            split,
            seed=seed,
            name=retrained_model(name, kind),
            threads=threads,
            adversary=against,
        )

    weights, changed, counts, survivors = {}, {}, {}, {}
    for kind in EXTENDING:
        more, table = tried(BASELINE, kind, "train", trains)
        changed[kind], _ = tried(BASELINE, kind, "test", tests)
        added, in_8bit = (
            torch.from_numpy(table[column].to_numpy(copy=True))
            for column in ("success", "success_8bit")
        )
        counts[kind] = int(added.sum())
        weights[kind] = trained(kind, (more[added], trains.labels[added]))
        survivors[kind] = _levels(more[in_8bit]), trains.labels[in_8bit]
    weights["retrained"] = trained("retrained", None)
    weights["pgd"] = trained("pgd", None, plan.adversary)
    known |= {kind: ready(weights[kind]) for kind in RETRAINED}
    for model in known:
        for kind in settings:
            if not (model == BASELINE and kind in EXTENDING):
                tried(model, kind, "test", tests)
    sets = {CLEAN: tests.pixels} | changed
    predictions = [_predicted(model, known[model], sets, tests) for model in known]
    sets |= {as_8bit(kind): _levels(pixels) for kind, pixels in changed.items()}
    counts_8bit = {kind: len(labels) for kind, (_, labels) in survivors.items()}
    for kind, model in RETRAINED_8BIT.items():
        if plan.minimum_8bit is not None and counts_8bit[kind] >= plan.minimum_8bit:
            known[model] = ready(trained(model, survivors[kind]))
            tried(model, kind, "test", tests)
            predictions.append(_predicted(model, known[model], sets, tests))
    rows = pd.concat(tables, ignore_index=True)
    first = ["model", "attack", "split"]
    facts = tests.index.reset_index(names="image")[["image", "id", "source", "label", "class_name"]]
    return Retrained(
        rows[[*first, *(n for n in rows if n not in first)]],
        pd.concat(predictions, ignore_index=True),
        pd.concat(beside, ignore_index=True),
        facts,
        torch.stack([changed[kind] for kind in EXTENDING]).numpy(),
        {
            "settings": settings,
            "added": counts,
            "added_8bit": counts_8bit,
            "minimum_8bit": plan.minimum_8bit,
        },
    ), weights


def _levels(pixels: Pixels) -> Pixels:
    """Returns pixels rounded to 256 levels, in [0, 1]."""
    return torch.from_numpy(from_8bit(to_8bit(pixels.numpy())))


def _controlled(
    model: Model,
    shown: Images,
    changed: Pixels,
    table: pd.DataFrame,
    controls: Sequence[str],
    *,
    seed: int,
    key: str,
) -> pd.DataFrame:
    """Returns whether each control of an attack changes a model's class, see `Retrained`."""
    parts = []
    ids = shown.index["id"].to_list()
    for kind in controls:
        pixels = control(kind, shown.pixels, changed, ids, seed=seed, key=key)
        with torch.no_grad():
            top = model(pixels).argmax(1).numpy()
        part = table[["image", "source", "right"]]
        parts.append(part.assign(control=kind, flipped=top != table["clean"]))
    return pd.concat(parts, ignore_index=True)


def _extended(
    images: ImageSet, extension: tuple[Pixels, Labels] | None, *, seed: int
) -> loading.Split:
    """Returns the set's splits, the training one with more images at its end."""

    def split(name: str) -> tuple[Pixels, Labels]:
        whole = draw(images, name, None, seed=seed)
        if extension is None or name != "train":
            return whole.pixels, whole.labels
        return torch.cat([whole.pixels, extension[0]]), torch.cat([whole.labels, extension[1]])

    return split


def _predicted(name: str, model: Model, sets: dict[str, Pixels], tests: Images) -> pd.DataFrame:
    parts = []
    for kind, pixels in sets.items():
        with torch.no_grad():
            top = model(pixels).argmax(1)
        table = tests.index.reset_index(names="image")[["image", "source", "label"]]
        parts.append(table.assign(model=name, on=kind, prediction=top.numpy()))
    return pd.concat(parts, ignore_index=True)

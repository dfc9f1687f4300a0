"""Trains a model, or loads its weights, and writes its card."""

from pathlib import Path

import torch

from camdrift import storage
from camdrift.datasets import numbering
from camdrift.models import loading
from camdrift.pipeline import run
from camdrift.settings.section import size_of
from camdrift.storage import files
from camdrift.storage.pixels import from_8bit


def main(stage: run.Stage) -> None:
    plan = stage.settings.models[stage.key]
    images = storage.read(storage.ImageSet, storage.set_folder(plan.set))
    if "class_folders" in images.facts:
        numbering.refuse_other_classes(stage.key, plan, images.facts["class_folders"])
    size = size_of(*images.pixels.shape[1:3])
    seed = stage.settings.seed

    def split(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows = (images.index["split"] == name).to_numpy()
        labels = torch.tensor(images.index["label"].to_numpy()[rows])
        return torch.from_numpy(from_8bit(images.pixels[rows])), labels

    labels, threads = images.index["label"], stage.training_threads
    weights = loading.obtain(
        plan, size=size, labels=labels, split=split, seed=seed, name=stage.key, threads=threads
    )
    storage.write(storage.model_folder(stage.key), weights)
    card = (
        plan.model_dump()
        | {"weights": Path(str(plan.weights)).name if plan.is_file else plan.weights}
        | {key: fact for key, fact in weights.facts.items() if key != "source"}
        | {"curve": weights.curve.dropna(axis=1).to_dict("records")}
    )
    files.write_json(storage.model_card(stage.key), card)


if __name__ == "__main__":
    run.stage(main, trains=True)

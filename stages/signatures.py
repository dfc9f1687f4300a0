"""Explains clean and attacked images by LRP, and maps their signatures to a plane."""

import torch

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.models.model import Model
from camdrift.papers.klawikowska2020 import inspection
from camdrift.pipeline import run
from camdrift.storage.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key = stage.key
    hardening = stage.settings.hardenings[key]
    images = storage.read(storage.ImageSet, storage.set_folder(hardening.set))
    hardened = storage.read(storage.Hardened, storage.hardening_folder(key, "harden"))

    def load(kind: str) -> Model:
        name = hardening.model if kind == storage.CLEAR else settings.hardened(key, kind)
        return loading.load(name, **stage.calling)

    clean = torch.from_numpy(from_8bit(images.pixels[hardened.tests["image"].to_numpy()]))
    signatures = inspection.inspect(load, clean, hardened, hardening, seed=stage.settings.seed)
    storage.write(storage.hardening_folder(key, "signatures"), signatures)


if __name__ == "__main__":
    run.stage(main)

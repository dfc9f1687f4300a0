"""Explains clean and attacked images by LRP, and lays their signatures out in a plane."""

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.models.model import Model
from camdrift.papers.klawikowska2020 import inspection
from camdrift.pipeline import run
from camdrift.storage.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key = stage.key
    chosen = stage.settings.hardenings[key]
    images = storage.read(storage.ImageSet, storage.set_folder(chosen.set))
    found = storage.read(storage.Hardened, storage.hardening_folder(key, "harden"))

    def load(kind: str) -> Model:
        name = chosen.model if kind == storage.CLEAR else settings.hardened(key, kind)
        return loading.load(name, **stage.calling)

    clean = from_8bit(images.pixels[found.tests["image"].to_numpy()])
    made = inspection.inspect(load, clean, found, chosen, seed=stage.settings.seed)
    storage.write(storage.hardening_folder(key, "signatures"), made)


if __name__ == "__main__":
    run.stage(main)

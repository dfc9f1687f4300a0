"""Explains clean and attacked images by LRP, and maps their signatures to a plane."""

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.models.model import Model
from camdrift.papers.klawikowska2020 import controls, inspection
from camdrift.pipeline import run


def main(stage: run.Stage) -> None:
    key = stage.key
    retraining = stage.settings.retrainings[key]
    images = storage.read(storage.ImageSet, storage.set_folder(retraining.set))
    retrained = storage.read(
        storage.Retrained, storage.cell_folder(retraining.study, key, "retrain")
    )

    def load(kind: str) -> Model:
        name = retraining.model if kind == storage.BASELINE else settings.retrained_model(key, kind)
        return loading.load(name, **stage.calling)

    pictures = images.pixels[retrained.tests["image"].to_numpy()]
    signatures = inspection.inspect(
        load, pictures, retrained, stage.settings.signatures,
        controls=controls.names(stage.settings.noise, retraining),
        name=key, seed=stage.settings.seed,
    )  # fmt: skip
    storage.write(storage.cell_folder(retraining.study, key, "signatures"), signatures)


if __name__ == "__main__":
    run.stage(main)

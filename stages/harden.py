"""Retrains a model on attacked training images, and attacks the retrained models."""

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.papers.klawikowska2020 import experiment
from camdrift.pipeline import run


def main(stage: run.Stage) -> None:
    key = stage.key
    hardening = stage.settings.hardenings[key]
    images = storage.read(storage.ImageSet, storage.set_folder(hardening.set))
    clear = loading.stored(hardening.model)
    hardened, weights = experiment.harden(
        images,
        clear,
        hardening,
        stage.settings.attacks,
        name=key,
        seed=stage.settings.seed,
        **stage.calling,
    )
    for kind, trained in weights.items():
        storage.write(storage.model_folder(settings.hardened(key, kind)), trained)
    storage.write(storage.hardening_folder(key, "harden"), hardened)


if __name__ == "__main__":
    run.stage(main)

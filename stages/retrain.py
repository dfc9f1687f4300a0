"""Retrains a model on attacked training images, and attacks the retrained models."""

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.papers.klawikowska2020 import controls, experiment
from camdrift.pipeline import run


def main(stage: run.Stage) -> None:
    key = stage.key
    retraining = stage.settings.retrainings[key]
    images = storage.read(storage.ImageSet, storage.set_folder(retraining.set))
    baseline = loading.stored(retraining.model)
    retrained, weights = experiment.retrain(
        images,
        baseline,
        retraining,
        stage.settings.attacks,
        controls=controls.names(stage.settings.noise, retraining),
        name=key,
        seed=stage.settings.seed,
        threads=stage.training_threads,
        **stage.calling,
    )
    for kind, trained in weights.items():
        storage.write(storage.model_folder(settings.retrained_model(key, kind)), trained)
    storage.write(storage.cell_folder(retraining.study, key, "retrain"), retrained)


if __name__ == "__main__":
    run.stage(main)

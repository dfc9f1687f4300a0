"""Retrains a model on what attacks made of its training images, and attacks the models anew."""

from camdrift import artifacts, hardening, models, run, settings


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    chosen = settings.Hardening.model_validate(params["hardenings"][key])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(chosen.set))
    clear = models.stored(chosen.model)
    found, weights = hardening.harden(
        images,
        clear,
        chosen,
        settings.Attacks.model_validate(params["attacks"]),
        name=key,
        seed=params["seed"],
        **stage.calling,
    )
    for kind, trained in weights.items():
        artifacts.write(artifacts.model_folder(settings.hardened(key, kind)), trained)
    artifacts.write(artifacts.hardening_folder(key, "harden"), found)


if __name__ == "__main__":
    run.stage(main)

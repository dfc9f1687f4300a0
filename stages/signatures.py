"""Explains clean and attacked images by LRP, and lays their signatures out in a plane."""

from camdrift import artifacts, inspection, models, run, settings
from camdrift.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    chosen = settings.Hardening.model_validate(params["hardenings"][key])
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(chosen.set))
    found = artifacts.read(artifacts.Hardened, artifacts.hardening_folder(key, "harden"))

    def load(kind: str) -> models.Model:
        name = chosen.model if kind == artifacts.CLEAR else settings.hardened(key, kind)
        return models.load(name, **stage.calling)

    clean = from_8bit(images.pixels[found.tests["image"].to_numpy()])
    made = inspection.inspect(load, clean, found, chosen, seed=params["seed"])
    artifacts.write(artifacts.hardening_folder(key, "signatures"), made)


if __name__ == "__main__":
    run.stage(main)

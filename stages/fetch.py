"""Builds an image set and its datasheet."""

from collections.abc import Callable

from camdrift import storage
from camdrift.datasets import images
from camdrift.pipeline import run
from camdrift.storage import files


def main(stage: run.Stage) -> None:
    chosen = stage.settings.sets[stage.key]
    builders: dict[str, Callable[..., storage.ImageSet]] = {
        "photos": images.photos,
        "digits": images.digits,
        "folder": images.folder,
        "torchvision": images.torchvision_set,
    }
    needless = {"kind"} if chosen.kind == "folder" else {"kind", "path"}
    built = builders[chosen.kind](seed=stage.settings.seed, **chosen.model_dump(exclude=needless))
    storage.write(storage.set_folder(stage.key), built)
    files.write_json(storage.set_datasheet(stage.key), images.datasheet(built))


if __name__ == "__main__":
    run.stage(main)

"""Builds an image set and its datasheet."""

import sys
from collections.abc import Callable

from camdrift import storage
from camdrift.datasets import images
from camdrift.pipeline import run
from camdrift.settings import imports
from camdrift.storage import files


def main(stage: run.Stage) -> None:
    plan = stage.settings.sets[stage.key]
    builders: dict[str, Callable[..., storage.ImageSet]] = {
        "photos": images.photos,
        "digits": images.digits,
        "folder": images.folder,
        "torchvision": images.torchvision_set,
    }
    align = plan.preprocessing and plan.preprocessing.align
    if align and not imports.files(align):
        sys.stdout.write(
            f"sets.{stage.key}: the module of '{align}' is not in {imports.OWN}, so that an edit "
            f"of it is not noticed; after one, run `dvc repro -f fetch@{stage.key}`\n"
        )
    needless = {"kind"} if plan.kind == "folder" else {"kind", "path"}
    image_set = builders[plan.kind](seed=stage.settings.seed, **plan.model_dump(exclude=needless))
    storage.write(storage.set_folder(stage.key), image_set)
    files.write_json(storage.set_datasheet(stage.key), images.datasheet(image_set))


if __name__ == "__main__":
    run.stage(main)

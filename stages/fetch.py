"""Builds an image set and its datasheet."""

from collections.abc import Callable

from pydantic import TypeAdapter

from camdrift import artifacts, files, images, run, settings


def main(stage: run.Stage) -> None:
    chosen = TypeAdapter(settings.ImageSetSettings).validate_python(stage.params["sets"][stage.key])
    builders: dict[str, Callable[..., artifacts.ImageSet]] = {
        "photos": images.photos,
        "digits": images.digits,
        "folder": images.folder,
        "torchvision": images.torchvision_set,
    }
    needless = {"kind"} if chosen.kind == "folder" else {"kind", "path"}
    built = builders[chosen.kind](seed=stage.params["seed"], **chosen.model_dump(exclude=needless))
    artifacts.write(artifacts.set_folder(stage.key), built)
    files.write_json(artifacts.set_datasheet(stage.key), images.datasheet(built))


if __name__ == "__main__":
    run.stage(main)

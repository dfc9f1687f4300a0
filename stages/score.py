"""Scores the drift of every map."""

from camdrift import artifacts, run, scores, settings, shards


def shard(stage: run.Stage, places: slice) -> artifacts.Scores:
    """Returns the scores of some of the images' maps."""
    cell, seed = stage.cell, stage.params["seed"]
    count = settings.ScoreSettings.model_validate(stage.params["scores"]).unrelated
    attack, cam = (artifacts.cell_folder(cell.study, stage.key, part) for part in ("attack", "cam"))
    images = artifacts.read(artifacts.Attacked, attack).images
    strangers = scores.partners(images, places, count=count, seed=seed)
    both = {*strangers.index, *strangers.to_numpy().ravel()}
    maps = artifacts.read(artifacts.Maps, cam, only={"rows": {"image": sorted(both)}})
    size = maps.pictures.shape[2]
    maps = scores.part(maps, strangers.index, strangers.to_numpy().ravel())
    return artifacts.Scores(scores.drift(maps, stage.protocols, strangers, size=size))


def main(stage: run.Stage) -> None:
    shards.of_attacked(stage, artifacts.Scores, size=SHARD)


SHARD = 32  # images, whose maps are in memory together


if __name__ == "__main__":
    run.stage(main)

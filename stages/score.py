"""Scores the drift of every map, and gathers the record of each image."""

from camdrift import storage
from camdrift.pipeline import run, shards
from camdrift.scores import comparison
from camdrift.scores.record import record
from camdrift.settings.section import size_of


def shard(stage: run.Stage, places: slice) -> storage.Scores:
    """Returns the scores of some of the images' maps."""
    cell, seed = stage.cell, stage.settings.seed
    scoring = stage.settings.scores
    attack, cam = (storage.cell_folder(cell.study, stage.key, part) for part in ("attack", "cam"))
    images = storage.read(storage.Attacked, attack).images
    partners = comparison.unrelated_partners(images, places, count=scoring.unrelated, seed=seed)
    both = {*partners.index, *partners.to_numpy().ravel()}
    maps = storage.read(storage.Maps, cam, only={"rows": {"image": sorted(both)}})
    size = size_of(*maps.pictures.shape[2:4])
    maps = comparison.part(maps, partners.index, partners.to_numpy().ravel())
    return storage.Scores(
        comparison.drift(maps, stage.protocols, partners, size=size, beside=scoring.beside)
    )


def main(stage: run.Stage) -> None:
    cell, key = stage.cell, stage.key
    shards.by_image(stage, "shard", storage.Scores, "score", size=SHARD)
    images = storage.read(storage.Attacked, storage.cell_folder(cell.study, key, "attack")).images
    scores = storage.read(storage.Scores, storage.cell_folder(cell.study, key, "score"))
    similarities = comparison.at_full_strength(scores.values, images)
    storage.write(storage.cell_folder(cell.evaluation, key, "similarity"), similarities)
    whole = record(cell.study, key, cell, stage.protocols)
    storage.write(storage.cell_folder(cell.study, key, "record"), whole)


SHARD = 32  # images, whose maps are in memory together


if __name__ == "__main__":
    run.stage(main)

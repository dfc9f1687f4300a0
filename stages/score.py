"""Scores the drift of every map."""

from camdrift import artifacts, run, scores, settings


def main(stage: run.Stage) -> None:
    cell, seed = stage.cell, stage.params["seed"]
    chosen = settings.ScoreSettings.model_validate(stage.params["scores"])
    attack, cam = (artifacts.cell_folder(cell.study, stage.key, part) for part in ("attack", "cam"))
    images = artifacts.read(artifacts.Attacked, attack).images
    maps = artifacts.read(artifacts.Maps, cam)
    strangers = scores.partners(images["id"], images["source"], count=chosen.unrelated, seed=seed)
    size = maps.pictures.shape[2]
    values = artifacts.Scores(scores.drift(maps, stage.protocols, strangers, size=size))
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "score"), values)


if __name__ == "__main__":
    run.stage(main)

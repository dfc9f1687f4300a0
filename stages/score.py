"""Scores the drift of every map."""

from camdrift import artifacts, run, scores


def main(stage: run.Stage) -> None:
    cell = stage.cell
    maps = artifacts.read(artifacts.Maps, artifacts.cell_folder(cell.study, stage.key, "cam"))
    size = maps.pictures.shape[2]
    values = artifacts.Scores(scores.drift(maps, size=size))
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "score"), values)


if __name__ == "__main__":
    run.stage(main)

"""Explains every variant of every attacked image, at every conv layer."""

from camdrift import artifacts, models, packing, run, settings, variants


def main(stage: run.Stage) -> None:
    cell = stage.cell
    chosen = settings.CamSettings.model_validate(stage.params["cams"])
    attacked, made = variants.of_cell(cell, stage.key, stage.protocols)
    model = models.load(cell.model, micro_batch=stage.params["micro_batch"])

    facts = attacked.images.set_index("image")
    values, maxima, rows = packing.of_variants(
        model, made, facts["clean"], facts["success"], methods=chosen.methods
    )
    examples, pictures = variants.examples(attacked, made, count=chosen.examples)
    maps = artifacts.Maps(values, maxima, rows, packing.layer_table(model), pictures, examples)
    artifacts.write(artifacts.cell_folder(cell.study, stage.key, "cam"), maps)


if __name__ == "__main__":
    run.stage(main)

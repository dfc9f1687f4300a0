"""Tries every source's attack on a target; explains two of them, their noise and controls."""

import torch

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.papers.chakraborty2022 import experiment
from camdrift.pipeline import randomness, run
from camdrift.scores import comparison
from camdrift.storage.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.settings
    target = params.targets[key]
    name, plan = target.study, params.study(target.study, settings.TransferStudy)
    sources = {
        end: source
        for end, source in params.sources.items()
        if (source.study, source.set) == (name, target.set)
    }
    images = storage.read(storage.ImageSet, storage.set_folder(target.set))
    rows = images.index[images.index["split"] == "test"].reset_index(names="image")
    pixels = torch.from_numpy(from_8bit(images.pixels[rows["image"].to_numpy()]))
    signs = {}
    for end, source in sources.items():
        folder = storage.end_folder(name, "signs", end)
        source_signs = storage.read(storage.Signs, folder)
        assert source_signs.images["id"].equals(rows["id"])  # of the same set
        signs[source.network] = torch.from_numpy(source_signs.sign.copy())
    seed, names = params.seed, rows["id"].to_list()
    own = next((s.network for s in sources.values() if s.model == target.model), None)
    levels = [settings.RANGES[plan.ranges[0]] * eps for eps in plan.eps]
    attacks = experiment.Attacks(
        pixels, signs, own, plan.transferred, levels,
        controls=params.noise.controls, seeds=(seed, target.set), names=names,
    )  # fmt: skip
    partners = comparison.unrelated_partners(rows, count=params.scores.unrelated, seed=seed)
    order = [randomness.entropy(seed, "example", i) for i in names]
    examples = sorted(range(len(order)), key=order.__getitem__)[: plan.examples]
    model = loading.load(target.model, **stage.calling)
    columns = ["image", "id", "source", "label", "class_name"]
    transferred = experiment.transfer(
        model, attacks, rows[columns], plan, partners, shown=examples, explained=target.maps
    )
    storage.write(storage.end_folder(name, "transferred", key), transferred)


if __name__ == "__main__":
    run.stage(main)

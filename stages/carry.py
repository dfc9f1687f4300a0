"""Carries every source's attack to a target, and explains its own, the carried one and noise."""

import torch

from camdrift import artifacts, models, noise, randomness, run, settings, transfer
from camdrift.pixels import from_8bit


def main(stage: run.Stage) -> None:
    key, params = stage.key, stage.params
    target = settings.Target.model_validate(params["targets"][key])
    name = target.generalisation
    plan = settings.Generalisation.model_validate(params["generalisations"][name])
    sources = {
        end: settings.Source.model_validate(source)
        for end, source in params["sources"].items()
        if (source["generalisation"], source["set"]) == (name, target.set)
    }
    images = artifacts.read(artifacts.ImageSet, artifacts.set_folder(target.set))
    rows = images.index[images.index["split"] == "test"].reset_index(names="image")
    pixels = from_8bit(images.pixels[rows["image"].to_numpy()])
    signs = {}
    for end, source in sources.items():
        folder = artifacts.generalisation_folder(name, "signs", end)
        found = artifacts.read(artifacts.Signs, folder)
        assert found.images["id"].equals(rows["id"])  # of the same set
        signs[source.network] = torch.from_numpy(found.sign.copy())
    seed, names = params["seed"], rows["id"]
    generators = [randomness.generator(seed, "carry", target.set, i) for i in names]
    own = next((s.network for s in sources.values() if s.model == target.model), None)
    normal = noise.draw(pixels.shape[1:], generators)
    levels = [settings.RANGES[plan.ranges[0]] * eps for eps in plan.eps]
    attacks = transfer.Attacks(pixels, signs, normal, own, plan.carried, levels)
    order = [randomness.entropy(seed, "example", i) for i in names]
    shown = sorted(range(len(order)), key=order.__getitem__)[: plan.examples]
    model = models.load(target.model, **stage.calling)
    columns = ["image", "id", "source", "label", "class_name"]
    done = transfer.carry(model, attacks, rows[columns], plan, shown=shown, explained=target.maps)
    artifacts.write(artifacts.generalisation_folder(name, "carried", key), done)


if __name__ == "__main__":
    run.stage(main)

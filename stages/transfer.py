"""Tries every source's attack on a target; explains two of them, their noise and controls."""

import torch

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.papers.chakraborty2022 import experiment
from camdrift.pipeline import run, shards
from camdrift.scores import comparison
from camdrift.storage.pixels import from_8bit


def shard(stage: run.Stage, places: slice) -> storage.Transferred:
    """Returns the effect of the attacks on some of the test images."""
    params, target = stage.settings, stage.settings.targets[stage.key]
    plan = params.study(target.study, settings.TransferStudy)
    images = storage.read(storage.ImageSet, storage.set_folder(target.set))
    rows = images.tests[places].reset_index(drop=True)
    sources = params.sources_on(target.study, target.set).values()
    attacks = experiment.Attacks(
        torch.from_numpy(from_8bit(images.pixels[rows["image"].to_numpy()])),
        {network: sign[places] for network, sign in signs(stage).items()},
        next((source.network for source in sources if source.model == target.model), None),
        plan.transferred, [settings.RANGES[plan.ranges[0]] * eps for eps in plan.eps],
        params.noise.controls, seeds=(params.seed, target.set), names=rows["id"].to_list(),
    )  # fmt: skip
    examples = experiment.examples(images.tests, count=plan.examples, seed=params.seed)
    shown = rows.index[rows["image"].isin(examples)].to_list()
    model = loading.load(target.model, **stage.calling)
    return experiment.transfer(model, attacks, rows, plan, shown=shown, explained=target.maps)


def signs(stage: run.Stage) -> dict[str, torch.Tensor]:
    """Returns the signs of each source on the target's set, by its network."""
    target, signs = stage.settings.targets[stage.key], {}
    for key, source in stage.settings.sources_on(target.study, target.set).items():
        folder = storage.end_folder(source.study, "signs", key)
        signs[source.network] = torch.tensor(storage.read(storage.Signs, folder).sign)
    return signs


def main(stage: run.Stage) -> None:
    params, target = stage.settings, stage.settings.targets[stage.key]
    count = params.study(target.study, settings.TransferStudy).examples
    rows = storage.read(storage.ImageSet, storage.set_folder(target.set)).tests
    partners = comparison.unrelated_partners(rows, count=params.scores.unrelated, seed=params.seed)
    with shards.results(stage, "shard", len(rows), size=params.micro_batch) as folders:
        parts = list(storage.each(storage.Transferred, folders))
        examples = experiment.examples(rows, count=count, seed=params.seed)
        whole = experiment.joined(parts, signs(stage), partners, examples)
        storage.write(storage.end_folder(target.study, "transferred", stage.key), whole)


if __name__ == "__main__":
    run.stage(main)

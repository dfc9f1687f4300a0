"""Tries every source's attack on a target; explains two of them, their noise and controls."""

import torch

from camdrift import settings, storage
from camdrift.models import loading
from camdrift.papers.chakraborty2022 import attacks, experiment
from camdrift.pipeline import run, shards
from camdrift.storage.pixels import from_8bit


def shard(stage: run.Stage, places: slice) -> storage.Transferred:
    """Returns the effect of the attacks on some of the test images."""
    params, target = stage.settings, stage.settings.targets[stage.key]
    plan = params.study(target.study, settings.TransferStudy)
    images = storage.read(storage.ImageSet, storage.set_folder(target.set))
    rows = images.tests[places].reset_index(drop=True)
    sources = params.sources_on(target.study, target.set).values()
    own = attacks.Attacks(
        torch.from_numpy(from_8bit(images.pixels[rows["image"].to_numpy()])),
        {network: sign[places] for network, sign in signs(stage).items()},
        next((source.network for source in sources if source.model == target.model), None), plan,
        params.noise.controls, seeds=(params.seed, target.set), names=rows["id"].to_list(),
    )  # fmt: skip
    shown = experiment.examples(images.tests, plan, seed=params.seed)
    model = loading.load(target.model, **stage.calling)
    return experiment.transfer(model, own, rows, plan, shown=shown, explained=target.maps)


def signs(stage: run.Stage) -> dict[str, torch.Tensor]:
    """Returns the signs of each source on the target's set, by its network."""
    target, signs = stage.settings.targets[stage.key], {}
    for key, source in stage.settings.sources_on(target.study, target.set).items():
        folder = storage.end_folder(source.study, "signs", key)
        signs[source.network] = torch.tensor(storage.read(storage.Signs, folder).sign)
    return signs


def main(stage: run.Stage) -> None:
    params, target = stage.settings, stage.settings.targets[stage.key]
    plan, draws = params.study(target.study, settings.TransferStudy), params.scores.unrelated
    count = len(storage.read(storage.ImageSet, storage.set_folder(target.set)).tests)
    with shards.results(stage, "shard", count, size=params.micro_batch) as folders:
        parts = list(storage.each(storage.Transferred, folders))
        whole = experiment.joined(parts, signs(stage), plan, unrelated=draws, seed=params.seed)
        storage.write(storage.end_folder(target.study, "transferred", stage.key), whole)


if __name__ == "__main__":
    run.stage(main)

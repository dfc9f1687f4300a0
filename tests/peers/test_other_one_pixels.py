"""One-pixel attacks of other libraries, at as many queries as ours."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from camdrift.attacks import one_pixel
from camdrift.pipeline.vision import torchvision  # the peers import torchvision, too
from conftest import as_model, small_network

assert torchvision
POPULATION, GENERATIONS = 400, 2  # ART has no setting for its 400
IMAGES, SIZE = 80, 32


class Counting(nn.Module):
    """A model that counts the images it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.asked = 0

    def forward(self, pixels):
        self.asked += len(pixels)
        return self.model(pixels)


@pytest.fixture(scope="module")
def attacked():
    """A model, images at all distances from its classes' borders, and its predictions."""
    pixels = torch.rand(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= as_model(network, size=SIZE)(pixels).mean(0)
    model = as_model(network, size=SIZE, micro_batch=100)
    with torch.no_grad():
        return model, pixels, model(pixels).argmax(1)


@pytest.fixture(scope="module")
def searched(attacked):
    """What our attack finds, by what it takes for a success."""
    model, pixels, labels = attacked
    return {
        success: one_pixel.perturb(
            model, pixels, labels, generators=[np.random.default_rng(i) for i in range(IMAGES)],
            pixels=1, population=POPULATION, generations=GENERATIONS, mutation=[0.5, 1.0],
            recombination=1.0, bounds=[0.0, 1.0], success=success, target=None,
        )
        for success in ("any", "best")
    }  # fmt: skip


def by_torchattacks(model, image, label):
    torchattacks = pytest.importorskip("torchattacks")
    attack = torchattacks.OnePixel(model, steps=GENERATIONS, popsize=POPULATION)
    return attack(image, label)


def by_art(model, image, label):
    pytest.importorskip("art")
    from art.attacks.evasion import PixelAttack
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(image.shape[1:]), 4, clip_values=(0.0, 1.0)
    )
    attack = PixelAttack(estimator, th=1, es=1, max_iter=GENERATIONS)
    return torch.from_numpy(attack.generate(image.numpy(), label.numpy())).float()


@pytest.mark.parametrize("peer", [by_torchattacks, by_art])
def test_success_is_that_of_others_at_as_many_queries(attacked, searched, peer):
    model, pixels, labels = attacked
    counting = Counting(model)
    theirs, queries = [], []
    for i in range(IMAGES):
        counting.asked = 0
        np.random.seed(i)  # noqa: NPY002  the only generator that they ask
        changed = peer(counting, pixels[i : i + 1], labels[i : i + 1])
        queries.append(counting.asked)
        with torch.no_grad():
            theirs.append(bool(model(changed).argmax(1) != labels[i]))
    for success, attack in searched.items():
        with torch.no_grad():
            ours = model((pixels + attack.pixels).clamp(0, 1)).argmax(1) != labels
        assert attack.evaluations.max() <= max(queries)
        assert attack.evaluations.sum() <= sum(queries)
        assert 0 < ours.sum() < IMAGES
        if success == "any":
            assert ours.sum() >= sum(theirs)
        # 'best' ends a search where theirs do, so that chance decides: they differ by as much.
        alone = ours.numpy() & ~np.array(theirs), ~ours.numpy() & np.array(theirs)
        mine, others = (int(part.sum()) for part in alone)
        assert binomtest(mine, max(1, mine + others), alternative="less").pvalue > 0.05

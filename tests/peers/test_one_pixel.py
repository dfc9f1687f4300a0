"""One-pixel attacks of other libraries, at as many queries as ours."""

import numpy as np
import pytest
import torch
from torch import nn

from camdrift import artifacts, models
from camdrift.artifacts import ImageSet
from camdrift.attacks import one_pixel
from camdrift.pixels import from_8bit
from camdrift.vision import torchvision  # the peers import torchvision, too
from conftest import inside

assert torchvision
POPULATION, GENERATIONS = 400, 4  # ART has no setting for its 400


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
def attacked(tiny):
    """The tiny study's model, and the test images that it gets right."""
    with inside(tiny.folder):
        model = models.load("vgg11_eighth", micro_batch=32)
        images = artifacts.read(ImageSet, artifacts.set_folder("digits"))
        test = images.index[images.index["split"] == "test"]
        pixels = from_8bit(images.pixels[test.index])
    labels = torch.tensor(test["label"].to_numpy())
    with torch.no_grad():
        right = model(pixels).argmax(1) == labels
    return model, pixels[right], labels[right]


def torchattacks_one(model, image, label, seed):
    torchattacks = pytest.importorskip("torchattacks")
    attack = torchattacks.OnePixel(model, steps=GENERATIONS, popsize=POPULATION)
    np.random.seed(seed)  # noqa: NPY002  the only one that it asks
    return attack(image, label)


def art_one(model, image, label, seed):
    pytest.importorskip("art")
    from art.attacks.evasion import PixelAttack
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(image.shape[1:]), 10, clip_values=(0.0, 1.0)
    )
    np.random.seed(seed)  # noqa: NPY002  the only one that it asks
    changed = PixelAttack(estimator, th=1, es=1, max_iter=GENERATIONS).generate(
        image.numpy(), label.numpy()
    )
    return torch.from_numpy(changed).float()


@pytest.mark.parametrize("peer", [torchattacks_one, art_one])
def test_success_is_that_of_others_at_as_many_queries(attacked, peer):
    model, pixels, labels = attacked
    settings = {"pixels": 1, "population": POPULATION, "generations": GENERATIONS,
                "mutation": [0.5, 1.0], "recombination": 1.0, "bounds": [0.0, 1.0],
                "target": None}  # fmt: skip
    found = one_pixel.perturb(
        model, pixels, labels, generators=[np.random.default_rng(i) for i in range(len(pixels))],
        **settings,
    )  # fmt: skip
    counting = Counting(model)
    theirs, asked = [], []
    for i in range(len(pixels)):
        counting.asked = 0
        changed = peer(counting, pixels[i : i + 1], labels[i : i + 1], i)
        asked.append(counting.asked)
        with torch.no_grad():
            theirs.append(bool(model(changed).argmax(1) != labels[i]))
    with torch.no_grad():
        ours = model((pixels + found.pixels).clamp(0, 1)).argmax(1) != labels
    print(
        int(ours.sum()),
        sum(theirs),
        len(pixels),
        found.evaluations.float().mean(),
        np.mean(asked),
        max(asked),
    )

"""Other libraries as oracles; `make peers` installs them."""

import pytest
import torch

from camdrift.attacks import fgsm, pgd
from camdrift.pipeline.vision import torchvision  # the peers import torchvision, too

assert torchvision


@pytest.fixture
def labels(model, pixels):
    return model(pixels).argmax(1)


def foolbox_model(model):
    foolbox = pytest.importorskip("foolbox")
    return foolbox, foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")


def test_fgsm_is_foolboxs_bit_by_bit(model, pixels, labels):
    foolbox, theirs = foolbox_model(model)
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, expected, _ = attack(theirs, pixels, labels, epsilons=0.03)
    ours = fgsm.perturb(model, pixels, labels, generators=[], eps=0.03, gains=1, target=None)
    assert torch.equal((pixels + ours.pixels).clamp(0, 1), expected)


@pytest.mark.parametrize("steps", [1, 7])
def test_pgd_is_foolboxs_bit_by_bit(model, pixels, labels, steps):
    foolbox, theirs = foolbox_model(model)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.01, steps=steps, random_start=False)
    _, expected, _ = attack(theirs, pixels, labels, epsilons=0.03)
    ours = pgd.perturb(model, pixels, labels, generators=[], eps=0.03, step=0.01, steps=steps,
                       random_start=False, early_stop=False)  # fmt: skip
    assert torch.equal((pixels + ours.pixels).clamp(0, 1), expected)

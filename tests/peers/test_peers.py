"""Other libraries as oracles; `make peers` installs them."""

import numpy as np
import pytest
import torch

from camdrift import cams
from camdrift.attacks import fgsm, pgd
from camdrift.vision import torchvision  # the peers import torchvision, too
from conftest import as_model, small_network

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


def normalised(pixels):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    return (pixels - mean) / std


def test_grad_cam_is_torchcams(pixels):
    methods = pytest.importorskip("torchcam.methods")
    network = small_network().eval()
    model = as_model(small_network(), micro_batch=4)
    batch = pixels[:4]
    logits, own, _ = cams.explain(model, batch, model(batch).argmax(1))
    classes = logits.argmax(1).tolist()
    with methods.GradCAM(network, target_layer=["2", "5"]) as extractor:
        scores = network(normalised(batch).requires_grad_())
        expected = extractor(classes, scores, normalized=False)
    for ours, theirs in zip(own, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_grad_cam_is_pytorch_grad_cams_without_in_place(pixels):
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = small_network().eval()
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    model = as_model(small_network(), micro_batch=4)
    batch = pixels[:4]
    logits, own, _ = cams.explain(model, batch, model(batch).argmax(1))
    targets = [ClassifierOutputTarget(int(c)) for c in logits.argmax(1)]
    with grad_cam.GradCAM(network, [network[2]]) as extractor:
        expected = extractor(normalised(batch), targets=targets)
    # Theirs is scaled to a maximum of almost 1: it adds 1e-7 to what it divides by, twice.
    ours = (own[0] - own[0].amin((1, 2), keepdim=True)).numpy()
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine / mine.max(), theirs / theirs.max(), atol=1e-5)

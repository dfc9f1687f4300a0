"""Auto-PGD beside torchattacks', which is the authors' code, from the same starting points."""

import numpy as np
import pytest
import torch

from camdrift.attacks import apgd
from camdrift.perturbations.limits import Limits
from conftest import as_model

EPS = {"ce": 0.02, "dlr": 0.02}


@pytest.fixture
def smooth(pixels):
    """A model without kinks, which takes the images for different classes."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.Softplus(5), torch.nn.Conv2d(6, 8, 3, stride=2),
        torch.nn.Softplus(5), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 4),
    )  # fmt: skip
    with torch.no_grad():
        network[-1].bias -= as_model(network)(pixels).mean(0)
    return as_model(network, micro_batch=len(pixels))


@pytest.mark.parametrize("loss", EPS)
def test_a_walk_is_the_authors(smooth, pixels, loss, monkeypatch):
    torchattacks = pytest.importorskip("torchattacks")
    eps, labels = EPS[loss], smooth(pixels).argmax(1)
    drawn = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(3))
    theirs = torchattacks.APGD(smooth, eps=eps, steps=40, loss=loss)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", lambda *_, **__: drawn.clone())
        best, right, highest, flipping = theirs.attack_single_run(pixels, labels)
    own, losses, flips = apgd._walk(
        smooth, pixels, labels, apgd.LOSSES[loss], 2 * drawn - 1,
        Limits(torch.full((len(pixels),), eps)), steps=40, rho=0.75,
    )  # fmt: skip
    assert 0 < flips.sum() < len(pixels)
    np.testing.assert_array_equal(flips, right == 0)
    torch.testing.assert_close(losses, highest, rtol=1e-4, atol=1e-5)
    changed = torch.where(flips.view(-1, 1, 1, 1), flipping, best) - pixels
    # A gradient close to 0 may have either sign.
    assert ((own - changed).abs() < 1e-5).float().mean() > 0.95

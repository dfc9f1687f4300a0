"""Attention rollout and its weighted form, against twins in loops."""

import numpy as np
import pytest
import torch
from torch import nn

from camdrift.explain import rollout
from camdrift.models.calls import UnwatchableError
from conftest import small_network
from test_transformers import Transformer

KINDS = ["function", "written out", "batch first"]


class Shown(nn.Module):
    """Attention written out, whose weights are kept."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.weights = inner, None

    def forward(self, x):
        n, t, d = x.shape
        qkv = (
            nn.functional.linear(x, self.inner.inner.in_proj_weight, self.inner.inner.in_proj_bias)
            if hasattr(self.inner, "inner") else self.inner.qkv(x)
        )  # fmt: skip
        project = self.inner.inner.out_proj if hasattr(self.inner, "inner") else self.inner.proj
        q, k, v = qkv.reshape(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        self.weights = ((q @ k.transpose(-2, -1)) / (d // 2) ** 0.5).softmax(-1)
        return project((self.weights @ v).transpose(1, 2).reshape(n, t, d))


def shown(kind, images, extra):
    """Returns a network's logits, and the weights of each block."""
    network = Transformer(kind, extra).eval()
    for block in network.blocks:
        block.mix = Shown(block.mix)
    logits = network(images)
    return logits, [block.mix.weights for block in network.blocks]


@pytest.mark.parametrize("extra", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_rollout_is_the_product_of_mean_weights_and_identities(kind, extra):
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    _, weights = shown(kind, images, extra)
    maps = rollout.attention_rollout(Transformer(kind, extra).eval(), images)
    for n in range(2):
        rolled = np.eye(9 + extra)
        for part in weights:
            heads = part[n].detach().numpy()
            mean = sum(heads) / len(heads) + np.eye(9 + extra)
            rolled = np.array([row / row.sum() for row in mean]) @ rolled
        expected = rolled[0, extra:].reshape(3, 3)
        np.testing.assert_allclose(maps[n], expected, rtol=1e-5)
        assert rolled[0].sum() == pytest.approx(1)


@pytest.mark.parametrize("extra", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_weighted_rollout_grows_by_positive_weights_times_gradients(kind, extra):
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    logits, weights = shown(kind, images, extra)
    classes = torch.tensor([0, 3])
    gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), weights)
    maps = rollout.weighted_rollout(Transformer(kind, extra).eval(), images, classes)
    for n in range(2):
        rolled = np.eye(9 + extra)
        for part, gradient in zip(weights, gradients, strict=True):
            mean = np.zeros_like(rolled)
            for head, slope in zip(part[n].detach().numpy(), gradient[n].numpy(), strict=True):
                mean += np.maximum(head * slope, 0) / len(part[n])
            rolled = rolled + mean @ rolled
        np.testing.assert_allclose(maps[n], rolled[0, extra:].reshape(3, 3), rtol=1e-4, atol=1e-9)
    own = rollout.weighted_rollout(Transformer(kind, extra).eval(), images)
    top = rollout.weighted_rollout(Transformer(kind, extra).eval(), images, logits.argmax(1))
    assert torch.equal(own, top)


def test_images_may_be_wide_and_the_network_is_left_alone():
    network, images = Transformer("function").train(), torch.rand(2, 3, 8, 20)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert rollout.attention_rollout(network, images).shape == (2, 2, 5)
    assert rollout.weighted_rollout(network, images, 1).shape == (2, 2, 5)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize(
    "network",
    [Transformer("function", 0), Transformer("windows", 0), Transformer("mixer", 1, 17),
     small_network()],
    ids=["no class token", "windows", "no attention", "no tokens"],
)  # fmt: skip
def test_other_networks_are_refused_with_the_reason(network):
    with pytest.raises(UnwatchableError, match="wanted a network with a class token"):
        rollout.attention_rollout(network, torch.rand(1, 3, 16, 16))

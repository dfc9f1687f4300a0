"""A dozen networks of torchvision and timm, as `make zoo` explains them all."""

import pytest
import torch

from benchmarks import zoo
from camdrift.explain import cam

CONVS = [
    "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5",
    "timm:tf_efficientnet_b0", "timm:eca_nfnet_l0", "timm:mobilevit_xxs",
]  # fmt: skip
BLOCKS = [
    "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224", "timm:xcit_nano_12_p16_224",
    "timm:mixer_s32_224", "timm:levit_128s", "timm:coat_lite_tiny", "timm:edgenext_xx_small",
]  # fmt: skip


@pytest.mark.parametrize("name", CONVS + BLOCKS)
def test_the_zoo_is_explained(name):
    network, size = zoo.build(name)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images)
    # Of several classes: the map of one may be negative everywhere, and so empty.
    explanation = cam.all_layers(network, images, torch.arange(zoo.CLASSES).expand(2, zoo.CLASSES))
    assert float((explanation.logits - logits).abs().max()) <= 1e-5 * float(logits.abs().max())
    maps = explanation.maps["GradCAM"]
    assert len(maps) >= (3 if name in BLOCKS else 20)
    assert all(bool(layer.isfinite().all()) for layer in maps)
    assert all(bool(layer.any()) for layer in maps)
    kind = "blocks" if name in BLOCKS else "convs"
    assert cam.all_layers(network, images, 0, hook_points=kind).layers == explanation.layers

"""Maps of networks that mix tokens, against a twin that hooks modules and reshapes by loops."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camdrift.explain import cam
from camdrift.models import engine, selection
from camdrift.models.calls import UnwatchableError

WIDTH, PATCH = 8, 4


class Attention(nn.Module):
    """Of two heads, by PyTorch's function or written out."""

    def __init__(self, written_out):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.written_out = written_out

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4).unbind(0)
        if self.written_out:
            scaled = q * (d // 2) ** -0.5
            x = (scaled @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(n, t, d))


class Windowed(nn.Module):
    """Attention within shifted windows of 2 x 2 tokens."""

    def __init__(self):
        super().__init__()
        self.inner = Attention(written_out=True)

    def forward(self, x):
        n, h, w, d = x.shape
        x = torch.roll(x, (-1, -1), (1, 2))
        x = x.view(n, h // 2, 2, w // 2, 2, d).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, d)
        x = self.inner(x).view(n, h // 2, w // 2, 2, 2, d).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(x.reshape(n, h, w, d), (1, 1), (1, 2))


class Heads(nn.Module):
    """PyTorch's own module."""

    def __init__(self, batch_first):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


class Mixer(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(count, 5), nn.GELU(), nn.Linear(5, count))

    def forward(self, x):
        return self.tokens(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.mlp = mix, nn.Sequential(nn.Linear(WIDTH, 9), nn.GELU(), nn.Linear(9, WIDTH))

    def forward(self, x):
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Two blocks over patches, with some tokens of no place before them."""

    def __init__(self, kind, extra=1, count=9):
        super().__init__()
        torch.manual_seed(0)
        make = {
            "function": lambda: Attention(written_out=False),
            "written out": lambda: Attention(written_out=True),
            "batch first": lambda: Heads(batch_first=True),
            "tokens first": lambda: Heads(batch_first=False),
            "windows": Windowed, "mixer": lambda: Mixer(count),
        }[kind]  # fmt: skip
        self.kind, self.extra = kind, extra
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.more = nn.Parameter(torch.randn(1, extra, WIDTH))
        self.blocks = nn.Sequential(Block(make()), Block(make()))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x):
        x = self.embed(x)
        if self.kind == "windows":
            return self.head(self.norm(self.blocks(x.permute(0, 2, 3, 1))).mean((1, 2)))
        x = x.flatten(2).transpose(1, 2)
        if self.extra:
            x = torch.cat([self.more.expand(len(x), -1, -1), x], 1)
        x = self.blocks(x.transpose(0, 1)).transpose(0, 1) if self.kind[:3] == "tok" else (
            self.blocks(x)
        )  # fmt: skip
        x = self.norm(x)
        return self.head(x[:, 0] if self.extra else x.mean(1))


def twin(network, images, classes):
    """Grad-CAM at each block's norm1, token by token."""
    outputs = []
    hooks = [
        block.norm1.register_forward_hook(lambda m, i, out: outputs.append(out))
        for block in network.blocks
    ]
    logits = network(images)
    for hook in hooks:
        hook.remove()
    score = logits.gather(1, classes[:, None]).sum()
    height, width = (side // PATCH for side in images.shape[-2:])
    maps = []
    for tokens, gradients in zip(outputs, torch.autograd.grad(score, outputs), strict=True):
        heat = torch.zeros(len(images), height, width)
        for n in range(len(images)):

            def at(values, row, column, n=n):
                if network.kind == "windows":
                    return values[n, row, column]
                place = network.extra + row * width + column
                return values[place, n] if network.kind[:3] == "tok" else values[n, place]

            places = [(row, column) for row in range(height) for column in range(width)]
            weights = sum(at(gradients, *place) for place in places) / len(places)
            for row, column in places:
                heat[n, row, column] = (weights * at(tokens, row, column)).sum().clamp_min(0)
        maps.append(heat.detach())
    return logits.detach(), maps


KINDS = ["function", "written out", "batch first", "tokens first", "mixer"]
CASES = [(kind, extra, (12, 12)) for kind in KINDS for extra in (0, 1, 3)]
CASES += [(kind, 1, (8, 20)) for kind in KINDS]
CASES += [("windows", 0, (16, 16)), ("windows", 0, (8, 24))]


@pytest.mark.parametrize(("kind", "extra", "size"), CASES)
def test_maps_of_blocks_are_those_of_the_twin(kind, extra, size):
    count = (size[0] // PATCH) * (size[1] // PATCH) + extra
    network = Transformer(kind, extra, count).eval()
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 3, 1])
    explanation = cam.all_layers(network, images, classes)
    logits, expected = twin(network, images, classes)
    assert explanation.layers == ("blocks.0", "blocks.1")
    torch.testing.assert_close(explanation.logits, logits)
    assert all(layer.any() for layer in expected)
    for ours, by_hand in zip(explanation.maps["GradCAM"], expected, strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-5, atol=1e-6)


def test_the_last_block_of_a_class_token_has_maps_where_its_output_has_none():
    network, images = Transformer("function").eval(), torch.rand(2, 3, 12, 12)
    entering = cam.all_layers(network, images, 0).maps["GradCAM"][-1]
    leaving = cam.all_layers(network, images, 0, hook_points=["blocks.1"]).maps["GradCAM"][0]
    assert entering.any()
    assert not leaving.any()


def test_a_module_is_explained_by_its_name_and_convs_on_request():
    network, images = Transformer("written out").eval(), torch.rand(2, 3, 12, 12)
    blocks = cam.all_layers(network, images, 0)
    named = cam.all_layers(network, images, 0, hook_points=["blocks.1.norm1", "blocks.0.norm1"])
    assert named.layers == ("blocks.0.norm1", "blocks.1.norm1")
    for one, other in zip(blocks.maps["GradCAM"], named.maps["GradCAM"], strict=True):
        assert torch.equal(one, other)
    assert cam.all_layers(network, images, 0, hook_points="convs").layers == ("embed",)
    part = cam.all_layers(network, images, 0, layers=[-1])
    assert part.layers == ("blocks.1",)
    torch.testing.assert_close(part.maps["GradCAM"][0], blocks.maps["GradCAM"][1])


@pytest.mark.parametrize(("size", "extra"), [((8, 8), 5), ((16, 16), 9), ((12, 12), 7)])
def test_registers_are_no_part_of_the_grid(size, extra):
    """Their number and that of the tokens may add up to a square."""
    network = Transformer("function", extra).eval()
    explanation = cam.all_layers(network, torch.rand(2, 3, *size), 0)
    side = size[0] // PATCH
    assert [tuple(layer.shape) for layer in explanation.maps["GradCAM"]] == [(2, side, side)] * 2


def test_a_class_token_behind_the_others_requires_a_function(monkeypatch):
    join = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, axis: join(parts[::-1], axis))
    network, images = Transformer("function").eval(), torch.rand(2, 3, 12, 12)
    with pytest.raises(UnwatchableError, match="places in the image are unknown"):
        cam.all_layers(network, images, hook_points="blocks")


def test_hook_points_may_be_a_function_of_the_recording():
    network, images = Transformer("function").eval(), torch.rand(2, 3, 12, 12)

    def last(recording):
        return selection.select(recording, "blocks")[-1:]

    assert cam.all_layers(network, images, 0, hook_points=last).layers == ("blocks.1",)


@pytest.mark.parametrize(
    ("hook_points", "fault", "message"),
    [
        ("layers", ValueError, "wanted hook points 'convs', 'blocks' or names, got 'layers'"),
        (["blocks.7"], ValueError, "no module 'blocks.7' returns a tensor; wanted names such as"),
        (["head"], UnwatchableError, r"'head' returns \(1, 5\), and its places .* `reshape=`"),
        ([], UnwatchableError, "wanted a hook point at least"),
    ],
)
def test_hook_points_that_are_not_there_are_refused(hook_points, fault, message):
    with pytest.raises(fault, match=message):
        cam.all_layers(Transformer("function"), torch.rand(1, 3, 12, 12), hook_points=hook_points)


class Unordered(nn.Module):
    """Tokens of a grid of other proportions than the image's, in the order of columns."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, WIDTH, (2, 6), (2, 6))
        self.block, self.head = Block(Attention(written_out=False)), nn.Linear(WIDTH, 4)

    def forward(self, x):
        x = self.embed(x).transpose(2, 3).flatten(2).transpose(1, 2)
        return self.head(self.block(x).mean(1))


def test_tokens_in_another_order_require_a_function_that_orders_them():
    network, images = Unordered().eval(), torch.rand(2, 3, 12, 12)
    with pytest.raises(UnwatchableError, match=r"enter block.mix are \(1, 12, 8\).*`reshape=`"):
        cam.all_layers(network, images, hook_points="blocks")
    assert cam.all_layers(network, images).layers == ("embed",)

    def reshape(tokens):
        return tokens.unflatten(1, (2, 6)).permute(0, 3, 2, 1)

    for method in ("GradCAM", "LayerCAM", "EigenCAM", "ScoreCAM"):
        explanation = cam.all_layers(
            network, images, 1, hook_points="blocks", reshape=reshape, methods=[method]
        )
        assert explanation.layers == ("block",)
        assert explanation.maps[method][0].shape == (2, 6, 2)
    outputs = []
    hook = network.block.norm1.register_forward_hook(lambda m, i, out: outputs.append(out))
    (gradients,) = torch.autograd.grad(network(images)[:, 1].sum(), outputs)
    hook.remove()
    weights = gradients.mean(1, keepdim=True)
    by_hand = (weights * outputs[0]).sum(2).clamp_min(0).reshape(2, 2, 6).transpose(1, 2)
    explanation = cam.all_layers(network, images, 1, hook_points="blocks", reshape=reshape)
    torch.testing.assert_close(explanation.maps["GradCAM"][0], by_hand.detach())


@pytest.mark.parametrize("method", ["ScoreCAM", "AblationCAM", "EigenCAM", "LayerCAM", "HiResCAM"])
def test_every_method_explains_tokens(method):
    network, images = Transformer("written out").eval(), torch.rand(2, 3, 8, 20)
    maps = cam.all_layers(network, images, 2, methods=[method]).maps[method]
    assert [tuple(layer.shape) for layer in maps] == [(2, 2, 5)] * 2
    assert all(bool(layer.any()) for layer in maps)


def test_a_conv_network_with_attention_over_convs_is_explained_at_its_convs():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.qkv = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 18, 1)
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            x = torch.relu(self.conv(x))
            q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
            mixed = v @ (q.transpose(1, 2) @ k).softmax(-1)
            return self.head((x + mixed.unflatten(2, x.shape[-2:])).mean((2, 3)))

    network, images = Local(), torch.rand(2, 3, 10, 10)
    assert cam.all_layers(network, images).layers == ("conv", "qkv")
    explanation = cam.all_layers(network, images, 1, hook_points="blocks")
    assert explanation.layers == ("qkv",)
    assert explanation.maps["GradCAM"][0].shape == (2, 8, 8)
    watched = engine.watch(network, images[:1])
    (point,) = selection.select(watched.recording, "blocks")
    _, (entering,) = watched(images, [point])
    torch.testing.assert_close(entering, torch.relu(network.conv(images)), rtol=1e-5, atol=1e-5)


def test_attention_over_a_single_channel_is_no_block():
    """As in timm's csatv2, where such attention weighs the places of a conv block."""

    class Weighing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.qkv = nn.LayerNorm(1), nn.Linear(1, 3)

        def forward(self, x):
            weights = self.norm(x.mean(1, keepdim=True).flatten(2).transpose(1, 2))
            q, k, v = self.qkv(weights).split(1, 2)
            mixed = ((q @ k.transpose(1, 2)).softmax(-1) @ v).transpose(1, 2)
            return x * mixed.unflatten(2, x.shape[2:])

    class Hybrid(Transformer):
        def __init__(self, mixes):
            super().__init__("written out", extra=0)
            self.conv, self.weigh = nn.Conv2d(3, 3, 3, padding=1), Weighing()
            self.mixes = mixes

        def forward(self, x):
            x = self.weigh(torch.relu(self.conv(x)))
            if self.mixes:
                return super().forward(x)
            return self.head(torch.relu(self.embed(x)).mean((2, 3)))

    images = torch.rand(2, 3, 12, 12)
    assert cam.all_layers(Hybrid(mixes=True), images, 0).layers == ("blocks.0", "blocks.1")
    network = Hybrid(mixes=False)
    assert cam.all_layers(network, images, 0).layers == ("conv", "embed")
    with pytest.raises(UnwatchableError, match="no block that mixes tokens"):
        cam.all_layers(network, images, 0, hook_points="blocks")


class Perceiver(nn.Module):
    """Learned latents that read the image's tokens, and then mix among themselves."""

    def __init__(self, latents):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.latents, self.q = nn.Parameter(torch.randn(latents, WIDTH)), nn.Linear(WIDTH, WIDTH)
        self.kv, self.block = nn.Linear(WIDTH, 2 * WIDTH), Block(Attention(written_out=False))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x):
        keys, values = self.kv(self.embed(x).flatten(2).transpose(1, 2)).chunk(2, -1)
        queries = self.latents.expand(len(x), -1, -1)
        read = queries + F.scaled_dot_product_attention(self.q(queries), keys, values)
        return self.head(self.block(read).mean(1))


@pytest.mark.parametrize("latents", [9, 16])
def test_learned_tokens_have_no_places_in_the_image(latents):
    network, images = Perceiver(latents), torch.rand(2, 3, 12, 12)
    with pytest.raises(UnwatchableError, match="places in the image are unknown"):
        cam.all_layers(network, images, hook_points="blocks")
    assert cam.all_layers(network, images).layers == ("embed",)


def test_a_named_module_may_return_channels_before_tokens():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.head = nn.Conv2d(3, 64, PATCH, PATCH), nn.Linear(64, 4)
            self.flat = nn.Flatten(2)

        def forward(self, x):
            return self.head(self.flat(torch.tanh(self.embed(x))).mean(2))

    network, images = Flat(), torch.rand(2, 3, 12, 12)
    named = cam.all_layers(network, images, 1, hook_points=["flat"]).maps["GradCAM"][0]
    assert named.shape == (2, 3, 3)
    plain = cam.all_layers(network, images, 1, hook_points="convs").maps["GradCAM"][0]
    torch.testing.assert_close(named, plain)


def test_blocks_of_two_kinds_of_windows_are_explained_before_their_partition():
    from camdrift.pipeline.vision import torchvision

    torch.manual_seed(0)
    network = torchvision.models.MaxVit(
        input_size=(32, 32), stem_channels=8, partition_size=2, block_channels=[8, 16],
        block_layers=[1, 1], head_dim=4, stochastic_depth_prob=0.0, num_classes=4,
    ).eval()  # fmt: skip
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    images = torch.rand(2, 3, 32, 32)
    names = [
        f"blocks.{block}.layers.0.layers.{kind}_attention"
        for block in (0, 1)
        for kind in ("window", "grid")
    ]
    entering = []
    for name in names:
        network.get_submodule(name).register_forward_pre_hook(lambda m, i: entering.append(*i))
    logits = network(images)
    tensors = entering[:]
    explained = cam.all_layers(network, images, torch.tensor([range(4)] * 2), methods=["LayerCAM"])
    assert [layer.split(".layers.0")[0] for layer in explained.layers] == ["blocks.0"] * 2 + [
        "blocks.1"
    ] * 2
    for target in range(4):
        gradients = torch.autograd.grad(logits[:, target].sum(), tensors, retain_graph=True)
        for ours, tokens, gradient in zip(
            explained.maps["LayerCAM"], tensors, gradients, strict=True
        ):
            by_hand = (gradient.relu() * tokens).sum(1).relu().detach()
            torch.testing.assert_close(ours[:, target], by_hand, rtol=1e-4, atol=1e-8)
    assert all(layer.any() for layer in explained.maps["LayerCAM"])

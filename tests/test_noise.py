import numpy as np
import pytest
import torch

from camdrift.perturbations import boundary, controls, noise, size
from conftest import as_model, small_network
from test_changes import protocol


def slow_scale(clean, base, target):
    """Bisection on the size of the clipped noise."""

    def size(factor):
        return float(((clean + factor * base).clamp(0, 1) - clean).norm())

    low, high = 0.0, 1.0
    while size(high) < target and high < 1e6:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    return high


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(6, 3, 8, 8, generator=generator, dtype=torch.float64)
    clean[0] = 0  # black: half of the noise is clipped away
    clean[1] = clean[1].round()  # black and white
    base = torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64) * 0.05
    base[:, 0, 0, 0] = 0
    return clean, base


def test_scale_twin(images):
    clean, base = images
    targets = torch.tensor([[0.01, 0.3, 1.0, 4.0]], dtype=torch.float64).expand(6, -1)
    scales = size.scale_to(clean, base, targets)
    for i in range(6):
        for j in range(4):
            expected = slow_scale(clean[i], base[i], float(targets[i, j]))
            assert float(scales[i, j]) == pytest.approx(expected, rel=1e-9)


def fit(clean, change, draw, *, scaling="after_clipping", **switches):
    return noise.fit(
        clean.numpy(), change.numpy(), change[:0].numpy(), [draw.numpy()], [0.25, 1.0, 4.0],
        protocol=protocol(**switches), scaling=scaling,
    )  # fmt: skip


def test_noise_is_as_large_as_the_attack_after_clipping(images):
    clean, draw = images[0].float(), images[1].float() * 20
    change = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.1
    for applied in ("exact", "accumulating"):
        table = fit(clean, change, draw, strengths=applied)
        assert np.allclose(table["noise_l2"], table["attack_l2"], rtol=1e-5)
    unclipped = fit(clean, change, draw, scaling="unclipped")
    assert (unclipped["scale"] == unclipped["strength"]).all()
    black = unclipped.query("row == 0")
    assert not np.allclose(black["noise_l2"], black["attack_l2"], rtol=0.01)


def test_published_noise_is_not_of_the_attacks_size(images):
    clean, draw = images[0].float(), images[1].float() * 20
    change = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.01
    table = fit(clean, change, draw, noise="with_negated_attack", strengths="accumulating")
    assert (table["scale"] == table["strength"]).all()
    rows = table.query("row > 1 and strength == 1")  # an offset of -1.25 and a draw, against 0.25
    assert (rows["noise_l2"] / rows["attack_l2"] > 3).all()


def test_noise_that_cannot_be_large_enough_is_at_its_largest():
    clean, base = torch.full((1, 3, 1, 1), 0.5), torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    factor = size.scale_to(clean, base, torch.tensor([[3.0]]))
    assert float(((clean + float(factor) * base).clamp(0, 1) - clean).norm()) == 0.5


@pytest.mark.parametrize(("base", "target"), [(0.0, 1.0), (1.0, 0.0)])
def test_nothing_to_match_gives_nothing(base, target):
    clean = torch.full((1, 3, 2, 2), 0.5)
    factor = size.scale_to(clean, torch.full_like(clean, base), torch.tensor([[target]]))
    assert float(factor) == 0


def test_draws_are_standard_normal_and_an_images_own():
    drawn = noise.draw((3, 64, 64), [np.random.default_rng(i) for i in range(2)])
    assert np.abs(drawn.mean((1, 2, 3))).max() < 0.03
    assert np.abs(drawn.std((1, 2, 3)) - 1).max() < 0.03
    assert np.array_equal(noise.draw((3, 64, 64), [np.random.default_rng(1)])[0], drawn[1])


CLEAN = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(4))
CHANGE = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3)) * 0.01 + 0.002


def spectrum(change):
    return torch.fft.fft2(change.double()).abs()


def turned(kind, seed=0):
    return controls.CONTROLS[kind](CLEAN, CHANGE, np.random.default_rng(seed))


def test_controls_keep_what_they_promise_and_no_more():
    assert torch.equal(turned("negated"), -CHANGE)
    shuffled = turned("sign_shuffled")
    assert torch.equal(shuffled.abs(), CHANGE.abs())
    assert shuffled.sign().sum() == CHANGE.sign().sum()
    assert 0.3 < (shuffled == CHANGE).float().mean() < 0.7
    sparse = CHANGE * (torch.arange(16) == 3)  # a zero has no sign to deal
    dealt = controls.sign_shuffled(CLEAN, sparse, np.random.default_rng(0))
    assert torch.equal(dealt.abs(), sparse.abs())
    moved = turned("permuted")
    pixels = {tuple(p) for p in CHANGE.flatten(1).T.tolist()}
    assert {tuple(p) for p in moved.flatten(1).T.tolist()} == pixels
    assert (moved == CHANGE).float().mean() < 0.05
    phases = turned("phase_randomised")
    torch.testing.assert_close(spectrum(phases), spectrum(CHANGE), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(phases.mean((1, 2)), CHANGE.mean((1, 2)), rtol=1e-3, atol=1e-7)
    together = torch.corrcoef(torch.stack([phases.flatten(), CHANGE.flatten()]))[0, 1]
    assert abs(float(together)) < 0.2


@pytest.mark.parametrize("kind", ["sign_shuffled", "permuted", "phase_randomised", "displaced"])
def test_controls_depend_on_their_generator(kind):
    assert torch.equal(turned(kind, 1), turned(kind, 1))
    assert not torch.equal(turned(kind, 1), turned(kind, 2))


def test_displaced_pixels_keep_their_colours():
    change = torch.zeros(3, 16, 16)
    change[:, 2, 5], change[:, 9, 9] = torch.tensor([0.2, -0.1, 0.0]), 0.3
    moved = controls.displaced(CLEAN, change, np.random.default_rng(0))
    places = moved.any(0).nonzero()
    assert len(places) == 2
    assert not moved[:, 2, 5].any()
    painted = (CLEAN + moved)[:, places[:, 0], places[:, 1]]
    expected = (CLEAN + change)[:, [2, 9], [5, 9]]
    for colour in expected.T:
        assert (painted.T - colour).abs().amax(1).min() < 1e-6
    nothing = controls.displaced(CLEAN, change * 0, np.random.default_rng(0))
    assert not nothing.any()


@pytest.mark.parametrize(
    "kind", [kind for kind in controls.CONTROLS if kind not in controls.OWN_SIZE]
)
def test_controls_have_the_attacks_size_after_clipping(kind, images):
    clean = images[0].float()
    change = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.1
    control = controls.rearranged(kind, clean, change, [np.random.default_rng(i) for i in range(6)])
    sizes = [size.l2((clean + c).clamp(0, 1) - clean) for c in (control, change)]
    assert torch.allclose(sizes[0], sizes[1], rtol=1e-5)


def test_noise_is_raised_until_the_prediction_flips():
    class Bright(torch.nn.Module):
        """Tells whether the mean is above one half."""

        def forward(self, x):
            return torch.stack([x.new_full((len(x),), 0.5), x.mean((1, 2, 3))], dim=1)

    # An L2 norm of s moves each of the 48 values by s / 48 ** 0.5.
    clean = torch.tensor([0.42, 0.1, 0.3, 0.49]).view(4, 1, 1, 1).expand(4, 3, 4, 4)
    base = torch.ones_like(clean) * torch.tensor([1.0, 1.0, -1.0, 0.0]).view(4, 1, 1, 1)
    sizes = torch.full((4,), 0.1 * 3**0.5)
    table = noise.raised(Bright(), clean, base, sizes, raise_by=2.0, raise_to=20.0)
    # 0.1/4 x 4 is the first power of two that adds 0.08; up to 16 adds 0.4; the last two never do.
    assert table["flipped"].tolist() == [True, False, False, False]
    assert table["size"].tolist()[:3] == [4.0, 16.0, 16.0]
    assert table["scale"].tolist() == pytest.approx([0.1, 0.4, 0.3, 0.0])


def test_the_boundary_is_where_brute_force_meets_it():
    model = as_model(small_network())
    rng = np.random.default_rng(0)
    clean = torch.from_numpy(rng.random((12, 3, 8, 8), dtype=np.float32))
    change = torch.from_numpy(rng.standard_normal((12, 3, 8, 8)).astype(np.float32))
    table = boundary.crossed(model, clean, change, bisections=4)
    top = model(clean).argmax(1)
    assert table["flipped"].any()

    def flips(row, part):
        pixels = (clean[row : row + 1] + np.float32(part) * change[row : row + 1]).clamp(0, 1)
        return bool(model(pixels).argmax(1) != top[row])

    for row, (below, above, flipped) in enumerate(table.itertuples(index=False)):
        assert flipped == flips(row, 1)
        if not flipped:
            assert (below, above) == (0, 1)
            continue
        assert above - below == 1 / 16
        assert flips(row, above) and not flips(row, below)
        crossings = [k for k in range(16) if flips(row, (k + 1) / 16) and not flips(row, k / 16)]
        assert below * 16 in crossings


def test_a_boundary_on_paper():
    class Bright(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x.new_full((len(x),), 0.5), x.mean((1, 2, 3))], dim=1)

    clean = torch.full((3, 3, 2, 2), 0.25)
    change = torch.tensor([0.75, 0.4, 0.0]).view(3, 1, 1, 1) * torch.ones_like(clean)
    table = boundary.crossed(Bright(), clean, change, bisections=3)
    # 0.25 + part x 0.75 passes 0.5 at a third; 0.25 + part x 0.4 at 0.625, which is no flip yet.
    assert table["flipped"].tolist() == [True, True, False]
    assert table["below"].tolist() == [2 / 8, 5 / 8, 0.0]
    assert table["above"].tolist() == [3 / 8, 6 / 8, 1.0]

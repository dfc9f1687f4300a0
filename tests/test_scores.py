import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from camdrift import scores
from camdrift.scores import comparison, cosine, jet_cosine, resizing, ssim

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("side", [2, 3, 8, 24])
def test_upsampling_is_torchs_bilinear(side):
    maps = torch.rand(2, side, side, dtype=torch.float64)
    matrix = resizing.upsampling(side, 24)
    expected = F.interpolate(maps[:, None], 24, mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(matrix @ maps.numpy() @ matrix.T, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((side, side), 24) for side in (2, 3, 8, 24, 40)]
    + [((5, 9), 24), ((96, 96), 128), ((100, 97), 200)],
)
def test_cosine_twin_upsamples_first(shape, size):
    a, b = RNG.random((2, 5, *shape))
    values = cosine.score(a, b, size=size)
    single = cosine.score(a.astype(np.float32), b.astype(np.float32), size=size)
    for i in range(5):
        big = [
            F.interpolate(torch.tensor(m[i])[None, None], (size, size), mode="bilinear").flatten()
            for m in (a, b)
        ]
        expected = float(torch.dot(*big) / (big[0].norm() * big[1].norm()))
        assert values[i] == pytest.approx(expected, abs=1e-9)
        assert single[i] == pytest.approx(expected, abs=2e-7)


def test_cosine_on_paper():
    a, b = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    a[0, 0], b[0, 0, 0] = 1, 3
    assert cosine.score(a, b, size=2)[0] == pytest.approx(2**-0.5)
    assert cosine.score(a, 7 * a, size=16)[0] == pytest.approx(1)


def test_scores_of_an_empty_map_are_missing():
    a = RNG.random((2, 8, 8))
    a[1] = 0
    b = RNG.random((2, 8, 8))
    for values in (cosine.score(a, b, size=8), ssim.score(a, b, size=8), ssim.score(b, a, size=8)):
        assert np.isnan(values).tolist() == [False, True]


@pytest.mark.parametrize("side", [3, 4, 5, 7, 14, 64])
def test_ssim_is_scikit_images_pair_by_pair(side):
    a, b = RNG.random((2, 4, side, side))
    b[0] = a[0]
    b[1] = 0.5  # a flat map
    values = ssim.score(a, b, size=8)
    for i in range(4):
        expected = structural_similarity(a[i], b[i], data_range=1, win_size=ssim.window(side))
        assert values[i] == pytest.approx(expected, abs=1e-6)
    assert values[0] == pytest.approx(1)


def test_windows_are_odd_and_small_maps_have_none():
    assert [ssim.window(side) for side in (1, 2, 3, 4, 5, 6, 7, 8, 64)] == [
        None, None, 3, 3, 5, 5, 7, 7, 7
    ]  # fmt: skip
    assert np.isnan(ssim.score(np.ones((1, 2, 2)), np.ones((1, 2, 2)), size=8)).all()


def slow_jet(heatmap, size, alpha=0.4):
    """The public code of renkhoff2022 for one map, with Pillow and matplotlib themselves."""

    def array_to_img(array):
        array = np.asarray(array, dtype=np.float32)
        array = array - array.min()
        if array.max() != 0:
            array /= array.max()
        return Image.fromarray((array * 255).astype(np.uint8))

    colours = mpl.colormaps["jet"](np.arange(256))[:, :3]
    image = array_to_img(colours[np.uint8(255 * heatmap)]).resize(
        (size, size) if isinstance(size, int) else size
    )
    return np.asarray(array_to_img(np.asarray(image, dtype=np.float32) * alpha))


@pytest.mark.parametrize("side", [4, 8, 16, 32, 64])
def test_jet_pictures_are_the_published_ones(side):
    maps = RNG.random((6, side, side)).astype(np.float32)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    maps[0] = 0
    pictures = np.moveaxis(jet_cosine.jet_rgb(maps, size=64), 1, 3).astype(int)
    expected = np.stack([slow_jet(heatmap, 64) for heatmap in maps]).astype(int)
    assert np.mean(pictures != expected) < 1e-3  # ties of a rounding
    assert np.abs(pictures - expected).max() <= 2


def test_the_published_picture_fills_its_range_for_any_alpha():
    heatmap = RNG.random((8, 8))
    for alpha in (0.1, 0.4, 0.9):
        picture = slow_jet(heatmap / heatmap.max(), 24, alpha)
        assert [picture.min(), picture.max()] == [0, 255]
    stack = np.stack([heatmap / heatmap.max(), heatmap / heatmap.max() / 2]).astype(np.float32)
    assert [stack[0].min() < 0.2, jet_cosine.jet_rgb(stack, size=24).max()] == [True, 255]
    half = jet_cosine.score_places(stack, np.array([0, 0]), np.array([0, 1]), size=24)
    assert half[0] == pytest.approx(1)
    assert half[1] < 0.98  # the raw cosine is 1
    assert cosine.score(stack[:1], stack[1:], size=24)[0] == pytest.approx(1)


def test_unrelated_maps_share_the_blue_of_jet():
    maps = RNG.random((40, 6, 6)).astype(np.float32) ** 6
    maps /= maps.max(axis=(1, 2), keepdims=True)
    first, second = np.arange(20), np.arange(20, 40)
    raw = cosine.score(maps[:20], maps[20:], size=48).mean()
    assert jet_cosine.score_places(maps, first, second, size=48).mean() > raw + 0.1


def test_partners_are_of_other_sources():
    ids, sources = [f"i{k}" for k in range(9)], list("aaabbbccc")
    images = pd.DataFrame({"image": np.arange(9) + 20, "id": ids, "source": sources})
    partners = comparison.unrelated_partners(images, count=5, seed=1)
    assert partners.shape == (9, 5)
    assert list(partners.index) == list(images["image"])
    source = images.set_index("image")["source"]
    assert (
        source.to_numpy() != source.loc[partners.to_numpy().ravel()].to_numpy().reshape(9, 5).T
    ).all()
    pd.testing.assert_frame_equal(comparison.unrelated_partners(images, count=5, seed=1), partners)
    assert not comparison.unrelated_partners(images, count=5, seed=2).equals(partners)
    some = comparison.unrelated_partners(images, slice(2, 5), count=5, seed=1)
    pd.testing.assert_frame_equal(some, partners.iloc[2:5])
    assert comparison.unrelated_partners(images.assign(source="a"), count=5, seed=1).shape == (9, 0)


MAPS = RNG.random((2, 12, 9, 9)).astype(np.float32)
MAPS /= MAPS.max(axis=(2, 3), keepdims=True)
# Between the second map and it, the first is moved further and further.
WEIGHTS = np.linspace(0, 1, 12)[:, None, None].astype(np.float32)


@pytest.mark.parametrize("name", scores.by_name())
def test_every_score_keeps_what_its_file_says_of_it(name):
    of = scores.by_name()[name]
    one, other = np.broadcast_to(MAPS[0, :1], MAPS[0].shape), MAPS[1]
    values = of.score(one, other, size=24)
    assert values.shape == (12,)
    assert (values >= of.RANGE[0]).all() and (values <= of.RANGE[1]).all()
    best = of.RANGE[of.HIGHER_IS_ALIKE]
    np.testing.assert_allclose(of.score(other, other, size=24), best, atol=1e-6)
    far = of.score(one, (1 - WEIGHTS) * one + WEIGHTS * other[:1], size=24)
    assert (far[0] > far[-1]) == of.HIGHER_IS_ALIKE
    places = np.arange(12)
    stack = np.concatenate([one, other])
    by_place = comparison.score_pairs(name, stack, places, places + 12, size=24)
    np.testing.assert_allclose(by_place, values, rtol=1e-6)
    assert of.LABEL


def test_a_name_without_a_file_is_told_with_those_that_have_one():
    (fault,) = scores.check(["ssim", "psnr"])
    assert fault == "wanted a score, got 'psnr'; there are: cosine, jet_cosine, nissim, ssim"

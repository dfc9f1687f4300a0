import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from camdrift.scores import similarity

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("side", [2, 3, 8, 24])
def test_upsampling_is_torchs_bilinear(side):
    maps = torch.rand(2, side, side, dtype=torch.float64)
    matrix = similarity.upsampling(side, 24)
    expected = F.interpolate(maps[:, None], 24, mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(matrix @ maps.numpy() @ matrix.T, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((side, side), 24) for side in (2, 3, 8, 24, 40)]
    + [((5, 9), 24), ((96, 96), 128), ((100, 97), 200)],
)
def test_cosine_twin_upsamples_first(shape, size):
    a, b = RNG.random((2, 5, *shape))
    found = similarity.cosine(a, b, size=size)
    single = similarity.cosine(a.astype(np.float32), b.astype(np.float32), size=size)
    for i in range(5):
        big = [
            F.interpolate(torch.tensor(m[i])[None, None], (size, size), mode="bilinear").flatten()
            for m in (a, b)
        ]
        expected = float(torch.dot(*big) / (big[0].norm() * big[1].norm()))
        assert found[i] == pytest.approx(expected, abs=1e-9)
        assert single[i] == pytest.approx(expected, abs=2e-7)


def test_cosine_on_paper():
    a, b = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    a[0, 0], b[0, 0, 0] = 1, 3
    assert similarity.cosine(a, b, size=2)[0] == pytest.approx(2**-0.5)
    assert similarity.cosine(a, 7 * a, size=16)[0] == pytest.approx(1)


def test_scores_of_an_empty_map_are_missing():
    a = RNG.random((2, 8, 8))
    a[1] = 0
    b = RNG.random((2, 8, 8))
    for found in (similarity.cosine(a, b, size=8), similarity.ssim(a, b), similarity.ssim(b, a)):
        assert np.isnan(found).tolist() == [False, True]


@pytest.mark.parametrize("side", [3, 4, 5, 7, 14, 64])
def test_ssim_is_scikit_images_pair_by_pair(side):
    a, b = RNG.random((2, 4, side, side))
    b[0] = a[0]
    b[1] = 0.5  # a flat map
    found = similarity.ssim(a, b)
    for i in range(4):
        expected = structural_similarity(
            a[i], b[i], data_range=1, win_size=similarity.ssim_window(side)
        )
        assert found[i] == pytest.approx(expected, abs=1e-6)
    assert found[0] == pytest.approx(1)


def test_windows_are_odd_and_small_maps_have_none():
    assert [similarity.ssim_window(side) for side in (1, 2, 3, 4, 5, 6, 7, 8, 64)] == [
        None, None, 3, 3, 5, 5, 7, 7, 7
    ]  # fmt: skip
    assert np.isnan(similarity.ssim(np.ones((1, 2, 2)), np.ones((1, 2, 2)))).all()


def slow_jet(heatmap, size, alpha=0.4):
    """The public code of renkhoff2022 for one map, with Pillow and matplotlib themselves."""

    def array_to_img(array):
        array = np.asarray(array, dtype=np.float32)
        array = array - array.min()
        if array.max() != 0:
            array /= array.max()
        return Image.fromarray((array * 255).astype(np.uint8))

    colours = mpl.colormaps["jet"](np.arange(256))[:, :3]
    image = array_to_img(colours[np.uint8(255 * heatmap)]).resize((size, size))
    return np.asarray(array_to_img(np.asarray(image, dtype=np.float32) * alpha))


@pytest.mark.parametrize("side", [4, 8, 16, 32, 64])
def test_jet_pictures_are_the_published_ones(side):
    maps = RNG.random((6, side, side)).astype(np.float32)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    maps[0] = 0
    found = np.moveaxis(similarity.jet_rgb(maps, size=64), 1, 3).astype(int)
    expected = np.stack([slow_jet(heatmap, 64) for heatmap in maps]).astype(int)
    assert np.mean(found != expected) < 1e-3  # ties of a rounding
    assert np.abs(found - expected).max() <= 2


def test_the_published_picture_fills_its_range_for_any_alpha():
    heatmap = RNG.random((8, 8))
    for alpha in (0.1, 0.4, 0.9):
        picture = slow_jet(heatmap / heatmap.max(), 24, alpha)
        assert [picture.min(), picture.max()] == [0, 255]
    stack = np.stack([heatmap / heatmap.max(), heatmap / heatmap.max() / 2]).astype(np.float32)
    assert [stack[0].min() < 0.2, similarity.jet_rgb(stack, size=24).max()] == [True, 255]
    half = similarity.jet_cosine(stack, np.array([0, 0]), np.array([0, 1]), size=24)
    assert half[0] == pytest.approx(1)
    assert half[1] < 0.98  # the raw cosine is 1
    assert similarity.cosine(stack[:1], stack[1:], size=24)[0] == pytest.approx(1)


def test_unrelated_maps_share_the_blue_of_jet():
    maps = RNG.random((40, 6, 6)).astype(np.float32) ** 6
    maps /= maps.max(axis=(1, 2), keepdims=True)
    first, second = np.arange(20), np.arange(20, 40)
    raw = similarity.cosine(maps[:20], maps[20:], size=48).mean()
    assert similarity.jet_cosine(maps, first, second, size=48).mean() > raw + 0.1


def test_partners_are_of_other_sources():
    ids, sources = [f"i{k}" for k in range(9)], list("aaabbbccc")
    images = pd.DataFrame({"image": np.arange(9) + 20, "id": ids, "source": sources})
    found = similarity.partners(images, count=5, seed=1)
    assert found.shape == (9, 5)
    assert list(found.index) == list(images["image"])
    source = images.set_index("image")["source"]
    assert (
        source.to_numpy() != source.loc[found.to_numpy().ravel()].to_numpy().reshape(9, 5).T
    ).all()
    pd.testing.assert_frame_equal(similarity.partners(images, count=5, seed=1), found)
    assert not similarity.partners(images, count=5, seed=2).equals(found)
    some = similarity.partners(images, slice(2, 5), count=5, seed=1)
    pd.testing.assert_frame_equal(some, found.iloc[2:5])
    assert similarity.partners(images.assign(source="a"), count=5, seed=1).shape == (9, 0)

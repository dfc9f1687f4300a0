import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from camdrift import scores

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("side", [2, 3, 8, 24])
def test_upsampling_is_torchs_bilinear(side):
    maps = torch.rand(2, side, side, dtype=torch.float64)
    matrix = scores.upsampling(side, 24)
    expected = F.interpolate(maps[:, None], 24, mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(matrix @ maps.numpy() @ matrix.T, expected, atol=1e-12)


@pytest.mark.parametrize("side", [2, 3, 8, 24])
def test_cosine_twin_upsamples_first(side):
    a, b = RNG.random((2, 5, side, side))
    found = scores.cosine(a, b, size=24)
    for i in range(5):
        big = [
            F.interpolate(torch.tensor(m[i])[None, None], 24, mode="bilinear").flatten()
            for m in (a, b)
        ]
        expected = float(torch.dot(*big) / (big[0].norm() * big[1].norm()))
        assert found[i] == pytest.approx(expected, abs=1e-9)


def test_cosine_on_paper():
    a, b = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    a[0, 0], b[0, 0, 0] = 1, 3
    assert scores.cosine(a, b, size=2)[0] == pytest.approx(2**-0.5)
    assert scores.cosine(a, 7 * a, size=16)[0] == pytest.approx(1)


def test_scores_of_an_empty_map_are_missing():
    a = RNG.random((2, 8, 8))
    a[1] = 0
    b = RNG.random((2, 8, 8))
    for found in (scores.cosine(a, b, size=8), scores.ssim(a, b), scores.ssim(b, a)):
        assert np.isnan(found).tolist() == [False, True]


@pytest.mark.parametrize("side", [3, 4, 5, 7, 14, 64])
def test_ssim_is_scikit_images_pair_by_pair(side):
    a, b = RNG.random((2, 4, side, side))
    b[0] = a[0]
    b[1] = 0.5  # a flat map
    found = scores.ssim(a, b)
    for i in range(4):
        expected = structural_similarity(
            a[i], b[i], data_range=1, win_size=scores.ssim_window(side)
        )
        assert found[i] == pytest.approx(expected, abs=1e-6)
    assert found[0] == pytest.approx(1)


def test_windows_are_odd_and_small_maps_have_none():
    assert [scores.ssim_window(side) for side in (1, 2, 3, 4, 5, 6, 7, 8, 64)] == [
        None, None, 3, 3, 5, 5, 7, 7, 7
    ]  # fmt: skip
    assert np.isnan(scores.ssim(np.ones((1, 2, 2)), np.ones((1, 2, 2)))).all()

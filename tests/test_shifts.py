import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional as F

from camdrift.scores import nissim, psnr, resizing, vid


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 6, 9, 11)).astype(np.float32)
    first[3], second[4] = 0, 0  # empty ones are compared as they are
    return first, second


def test_nissim_is_half_of_what_ssim_lacks_to_one(maps):
    for a, b, value in zip(*maps, nissim.shift(*maps), strict=True):
        expected = (1 - structural_similarity(a, b, data_range=1.0)) / 2
        assert value == pytest.approx(expected, abs=1e-6)
    assert nissim.shift(maps[0], maps[0]) == pytest.approx(0, abs=1e-12)
    assert np.isnan(nissim.shift(maps[0][:, :2, :2], maps[1][:, :2, :2])).all()


def test_enlarged_maps_are_torchs_bilinear(maps):
    expected = F.interpolate(torch.from_numpy(maps[0])[None], (40, 40), mode="bilinear")[0]
    np.testing.assert_allclose(resizing.enlarged(maps[0], size=40), expected, atol=1e-6)


def test_vid_is_the_papers_equations_in_loops():
    shift = np.random.default_rng(1).random((5, 4))
    for image, spread in zip(shift, vid.spread(shift), strict=True):
        mean = sum(image) / len(image)
        expected = (sum((value - mean) ** 2 for value in image) / len(image)) ** 0.5
        assert spread == pytest.approx(expected)
    assert np.isnan(vid.spread(np.array([[0.1, np.nan]]))).all()


def test_psnr_is_scikit_images_and_what_eps_says_where_nothing_is_clipped():
    clean = torch.full((2, 3, 8, 8), 0.5)
    clean[1] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    sign = torch.randint(0, 2, clean.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    changed = (clean + 0.1 * sign).clamp(0, 1)
    ratios = psnr.ratio(clean.numpy(), changed.numpy())
    for a, b, value in zip(clean, changed, ratios, strict=True):
        expected = peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1.0)
        assert float(value) == pytest.approx(expected, abs=1e-4)
    assert float(ratios[0]) == pytest.approx(psnr.ratio_at_eps(0.1), abs=1e-4) == 20
    assert float(ratios[1]) > 20  # clipping takes some of it away
    assert np.isinf(psnr.ratio(clean.numpy(), clean.numpy())).all()
    assert [round(psnr.ratio_at_eps(eps), 1) for eps in (0.01, 0.05, 0.075, 0.1)] == [
        40.0, 26.0, 22.5, 20.0
    ]  # fmt: skip

"""The sensitivity of layers: against a slow twin, and on paper."""

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift.evaluation import sensitivity
from camdrift.explain.methods import grad_cam
from conftest import as_model, small_network


def facts(*, sources: list[int], success: list[bool], split: str = "calibrate") -> pd.DataFrame:
    return pd.DataFrame({"source": sources, "success": success, "split": split})


def slow_maps(image: torch.Tensor) -> list[np.ndarray]:
    """The Grad-CAM of an image's own top class at each layer, one image at a time."""
    single, maps = as_model(small_network(), micro_batch=1), []
    for place in range(2):
        logits, tensor = single.probe(place)(image[None])
        (gradient,) = torch.autograd.grad(logits[0, logits[0].argmax()], tensor)
        maps.append(grad_cam.maps(tensor.detach(), gradient)[0].double().numpy())
    return maps


def slow_cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.sqrt((a**2).sum()) * np.sqrt((b**2).sum())
    return float((a * b).sum() / norms) if norms else np.nan


def test_it_is_the_normalised_similarity_of_a_slow_twin(model, pixels):
    draw = torch.Generator().manual_seed(3)
    attacked, noisy = (
        (pixels + size * torch.randn(pixels.shape, generator=draw)).clamp(0, 1)
        for size in (0.3, 0.05)
    )
    images = facts(sources=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], success=[True, False] * 5)
    result = sensitivity.measure(model, pixels, attacked, noisy, images)
    assert result["place"].to_list() == [1, 2]
    assert result["layer"].to_list() == [point.label for point in model.maps]
    clean_maps, attacked_maps, noisy_maps = (
        [slow_maps(image) for image in arm] for arm in (pixels, attacked, noisy)
    )
    for layer, row in result.iterrows():
        flipped = [i for i in range(10) if images["success"][i]]
        attack, noise = (
            np.nanmean([slow_cosine(clean_maps[i][layer], arm[i][layer]) for i in flipped])
            for arm in (attacked_maps, noisy_maps)
        )
        floor = np.nanmean([
            slow_cosine(clean_maps[i][layer], clean_maps[j][layer])
            for i in range(10) for j in range(i)
            if images["source"][i] != images["source"][j]
        ])  # fmt: skip
        assert row["raw_attack"] == pytest.approx(attack, abs=1e-4)
        assert row["raw_noise"] == pytest.approx(noise, abs=1e-4)
        assert row["floor"] == pytest.approx(floor, abs=1e-4)
        assert row["normalised_attack"] == pytest.approx((attack - floor) / (1 - floor), abs=1e-3)


def layers(attack: list[float], noise: list[float], empty: list[float]) -> pd.DataFrame:
    return pd.DataFrame({
        "place": np.arange(len(attack)) + 1, "normalised_attack": attack,
        "normalised_noise": noise, "empty": empty, "raw_attack": noise, "raw_noise": noise,
    })  # fmt: skip


def test_the_most_sensitive_layer_has_the_lowest_ranks_in_both_arms():
    # Ranks 1, 2, 3 under attack and 3, 1, 2 under noise; the first has by far the lowest mean, as
    # its floor is close to 1; the last has a tenth of empty maps too many. By the raw similarities,
    # here those under noise in both arms, the order is that under noise.
    result = sensitivity.ranked(
        layers([-9, 0.4, 0.5, -9], [0.9, 0.2, 0.3, -9], [0.0, 0.1, 0.05, 0.2])
    )
    np.testing.assert_array_equal(result["rank"], [2, 1, 3, np.nan])
    np.testing.assert_array_equal(result["raw_rank"], [3, 1, 2, np.nan])
    assert sensitivity.most_sensitive(result) == 2


def test_among_layers_of_equal_ranks_the_lowest_mean_is_the_most_sensitive():
    result = sensitivity.ranked(layers([0.1, 0.2], [0.5, 0.3], [0, 0]))
    assert sensitivity.most_sensitive(result) == 2
    # All have too many empty maps: those with the fewest are compared.
    result = sensitivity.ranked(layers([0.3, 0.2, 0.1], [0.3, 0.2, 0.1], [0.2, 0.2, 0.9]))
    assert sensitivity.most_sensitive(result) == 2
    # No map anywhere: the last layer.
    nothing = [np.nan, np.nan]
    assert sensitivity.most_sensitive(sensitivity.ranked(layers(nothing, nothing, [1, 1]))) == 2


def test_without_a_calibration_image_or_an_unrelated_pair_the_last_layer_is_read(model, pixels):
    unknown = sensitivity.unknown(model)
    assert unknown["layer"].to_list() == [point.label for point in model.maps]
    assert unknown[["raw_attack", "floor", "rank", "raw_rank"]].isna().all(axis=None)
    assert sensitivity.most_sensitive(unknown) == 2
    images = facts(sources=[0] * 10, success=[False] * 10)
    one_picture = sensitivity.measure(model, pixels, pixels, pixels, images)
    assert one_picture["raw_attack"].to_numpy() == pytest.approx(1)
    assert one_picture["floor"].isna().all()
    assert sensitivity.most_sensitive(one_picture) == 2
    assert list(one_picture.columns) == list(unknown.columns)


def test_of_many_calibration_images_the_flipped_ones_take_part_first(monkeypatch):
    monkeypatch.setattr(sensitivity, "MOST", 3)
    images = facts(sources=[0, 1, 2, 3, 4], success=[False, True, False, False, True])
    images.loc[4, "split"] = "test"
    assert sensitivity.select(images).index.to_list() == [0, 1, 2]
    images.loc[3, "success"] = True
    assert sensitivity.select(images).index.to_list() == [0, 1, 3]

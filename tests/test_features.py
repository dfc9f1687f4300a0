"""Features: each against a slow twin or another library, and on bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import median_filter
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA

from camdrift.detectors import (
    behaviour,
    confidence,
    drift,
    energy,
    noisecam,
    residual,
    squeezing,
)
from camdrift.detectors.families import families
from camdrift.evaluation import measuring
from camdrift.explain.methods import grad_cam, noise_cam
from camdrift.features import cleaning, comparison, profile
from camdrift.features.images import Images
from conftest import as_model, deep_network, small_network
from test_adaptive import reference
from test_detectors import changed


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(count)]


def test_the_probe_is_the_network_with_a_graph_that_begins_at_its_layer(model, pixels):
    batch = pixels[:4]
    logits, leaf = model.probe(-1)(batch)
    whole, activations = model.activations(batch.clone().requires_grad_())
    torch.testing.assert_close(logits, whole)
    assert leaf.is_leaf
    (ours,) = torch.autograd.grad(logits[:, 1].sum(), leaf)
    (theirs,) = torch.autograd.grad(whole[:, 1].sum(), activations[-1])
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(leaf.detach(), activations[-1].detach())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_cleaning_is_scikit_learns_pca_of_each_channel(variance):
    images = torch.rand(2, 3, 11, 9, generator=torch.Generator().manual_seed(0))
    result = cleaning.rebuild(images, variance=variance)
    for image, clean in zip(images.numpy(), result.numpy(), strict=True):
        for channel, rebuilt in zip(image, clean, strict=True):
            pca = PCA(n_components=variance, svd_solver="full").fit(channel)
            expected = pca.inverse_transform(pca.transform(channel))
            np.testing.assert_allclose(rebuilt, expected, atol=1e-5)


def test_a_constant_image_is_clean_as_it_is_and_looks_benign(model):
    flat = torch.full((2, 3, 12, 12), 0.4)
    torch.testing.assert_close(cleaning.rebuild(flat, variance=0.99), flat)
    assert residual.norm(flat, variance=0.99).max() < 1e-6
    settings = behaviour.Settings(variance=0.99, copies=5, probe=-1)
    result = behaviour.measure(Images(model, flat, generators(2)), settings)
    np.testing.assert_allclose(result["similarity"], 1, atol=1e-5)
    np.testing.assert_allclose(result["copies_median"], 1, atol=1e-5)


def test_copies_have_the_moments_of_what_cleaning_removed():
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    clean = cleaning.rebuild(images, variance=0.9)
    copies = torch.stack(list(behaviour.copies(images, clean, generators(1), count=200)))
    noise, copy_noise = images - clean, copies - clean
    assert copy_noise.mean().item() == pytest.approx(noise.mean().item(), abs=1e-3)
    assert copy_noise.std().item() == pytest.approx(noise.std().item(), rel=0.01)


def slow_behaviour(model, image, rng, *, variance, count):
    """tan2023, section III-D, steps 1-4, one image and one copy at a time."""

    def heat(picture):
        logits, tensors = model.activations(picture[None].clone().requires_grad_())
        (gradient,) = torch.autograd.grad(logits.max(), tensors[-1])
        return grad_cam.maps(tensors[-1].detach(), gradient)[0].flatten().double()

    clean = cleaning.rebuild(image[None], variance=variance)[0]
    noise, base = (image - clean).double(), heat(clean)
    drifts = []
    for _ in range(count):
        draw = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        copy = heat(clean + (noise.mean() + noise.std(correction=0) * draw).float())
        drifts.append(float(copy @ base / copy.norm() / base.norm()))
    own = heat(image)
    return float(own @ base / own.norm() / base.norm()), np.array(drifts)


def test_behaviour_twin(model, pixels):
    single = as_model(small_network(), micro_batch=1)
    twin_settings = {"variance": 0.9, "count": 7}
    settings = behaviour.Settings(variance=0.9, copies=7, probe=-1)
    result = behaviour.measure(Images(model, pixels[:3], generators(3)), settings)
    for i, rng in enumerate(generators(3)):
        similarity, drifts = slow_behaviour(single, pixels[i], rng, **twin_settings)
        assert result["similarity"][i] == pytest.approx(similarity, abs=1e-5)
        assert result["copies_median"][i] == pytest.approx(np.median(drifts), abs=1e-5)
        assert result["copies_quantile"][i] == pytest.approx(np.quantile(drifts, 0.05), abs=1e-5)
        assert result["copies_mean"][i] == pytest.approx(drifts.mean(), abs=1e-5)
        assert result["copies_std"][i] == pytest.approx(drifts.std(), abs=1e-5)


def test_empty_maps_have_a_similarity():
    empty, full = torch.zeros(2, 3), torch.ones(2, 3)
    pairs = torch.stack([empty, empty, full]), torch.stack([empty, full, full])
    torch.testing.assert_close(comparison.similarity(*pairs), torch.tensor([1.0, 0.0, 1.0]))
    tiny = torch.tensor([[1e-30, 0.0]]), torch.tensor([[1e-30, 1e-30]])
    assert comparison.similarity(*tiny).item() == pytest.approx(0.5**0.5)


def test_each_image_is_measured_on_its_own(pixels):
    model = as_model(deep_network())
    detectors = families(changed(behaviour={"probe": -1, "copies": 3}, noisecam={"layer": 1}))
    known = reference(model, pixels)
    whole, _ = measuring.measure_images(
        model, pixels, lambda name: generators(10), detectors, known
    )
    alone, _ = measuring.measure_images(
        model, pixels[4:5], lambda name: generators(5)[4:], detectors, known
    )
    assert list(whole.columns) == list(alone.columns)
    np.testing.assert_allclose(whole.iloc[4], alone.iloc[0], rtol=1e-5, atol=1e-6)
    assert whole.notna().all().all()


def test_raw_masses_are_those_of_maps_that_nothing_is_divided_by(model, pixels):
    family = next(f for f in families(changed(noisecam={"layer": 1})) if f.name == "noisecam")
    result = family.measure(Images(model, pixels, generators(10)))
    single = as_model(small_network(), micro_batch=1)
    for i, image in enumerate(pixels):
        maps = noisecam.raw_maps(*single.probe(0)(image[None]))
        for reading in noisecam.READINGS:
            mass = maps[reading][0].detach().mean().item()
            assert result[f"raw_mass_{reading}"][i] == pytest.approx(mass, rel=1e-4)


@pytest.mark.parametrize("radius", [1, 2, 3, 30])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.3, 0.6])
def test_clusters_are_dbscans(share, radius):
    bright = np.random.default_rng(0).random((5, 17, 23)) < share
    result = noisecam.clusters(bright, radius=radius, neighbours=3)
    for i, one in enumerate(bright):
        labels = DBSCAN(eps=radius, min_samples=3).fit(np.argwhere(one)).labels_
        assert result[i] == len(set(labels) - {-1})


def test_clusters_on_paper():
    bright = np.zeros((3, 8, 8), dtype=bool)
    bright[1, 0, :3] = bright[1, 7, 5:] = True  # two rows of three, far apart
    bright[2, 4, 4] = bright[2, 4, 5] = True  # two pixels are too few
    assert noisecam.clusters(bright, radius=2, neighbours=3).tolist() == [0, 2, 0]


def test_noise_cam_of_a_dark_map_stays_dark_and_has_no_cluster():
    dark = noisecam.normalise(torch.full((1, 4, 4), 1e-12, dtype=torch.float64), size=8)
    tiny = noisecam.normalise(torch.rand(1, 4, 4, dtype=torch.float64) * 1e-9, size=8)
    assert dark.max() == 0
    assert tiny.max() < 0.011
    bright = noisecam.normalise(torch.rand(1, 4, 4, dtype=torch.float64), size=8)
    assert bright.max() == pytest.approx(1, abs=1e-5)


def test_the_readings_are_the_maps_of_cams(model, pixels):
    logits, leaf = model.probe(0)(pixels[:4])
    result = noisecam.raw_maps(logits, leaf)
    logits, leaf = model.probe(0)(pixels[:4])
    chances = logits.softmax(1).amax(1)
    (g,) = torch.autograd.grad(chances.sum(), leaf)
    a, g = leaf.detach().double(), g.double()
    torch.testing.assert_close(result["printed_softmax"], noise_cam.maps(a, g))
    expected = noise_cam.maps_of_code(a, g, chances.detach().double())
    torch.testing.assert_close(result["code_softmax"].detach(), expected)


def test_huge_logits_do_not_break_the_codes_exponential():
    logits = torch.full((2, 3), 900.0)
    leaf = torch.rand(2, 4, 3, 3).requires_grad_()
    logits = logits + leaf.sum((1, 2, 3))[:, None] * torch.tensor([1.0, 0.5, 0.2])
    result = noisecam.raw_maps(logits, leaf)
    assert all(values.isfinite().all() for values in result.values())


@pytest.mark.parametrize("shape", [(9, 13), (2, 2), (1, 5)])
def test_the_median_filter_is_scipys_for_images_of_any_size(shape):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    expected = median_filter(images.numpy(), size=(1, 1, 3, 3), mode="nearest")
    np.testing.assert_array_equal(cleaning.median(images, size=3).numpy(), expected)


def test_fewer_levels_on_paper():
    values = torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0])
    torch.testing.assert_close(
        squeezing.fewer_levels(values, bits=1), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    )


def test_confidence_on_paper(model, pixels):
    images = Images(model, pixels, [])
    result = confidence.measure(images, confidence.Settings())
    result |= energy.measure(images, energy.Settings())
    result |= squeezing.measure(images, squeezing.Settings(bits=8, window=1))
    logits = model(pixels).double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(result["probability"], chances.max(1), rtol=1e-5)
    np.testing.assert_allclose(result["energy"], -np.log(np.exp(logits).sum(1)), rtol=1e-5)
    assert result["squeezing"].max() < 0.01  # 256 levels and a window of one pixel change nothing


def test_profile_on_paper():
    activations = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    result = profile.layer_profile(activations, torch.ones_like(activations))
    torch.testing.assert_close(
        result[0], torch.tensor([np.log(2.0), 0.5, 0.0], dtype=torch.float32)
    )
    assert result[1, 1] == 0
    assert result.isfinite().all()


def slow_drift(model, image, window):
    """One image and one layer at a time: the copy by SciPy, maps from the activations."""
    copy = median_filter(image.numpy(), size=(1, window, window), mode="nearest")
    kind, drifts = int(model(image[None]).argmax()), []
    for layer in range(len(model.maps)):
        maps = []
        for picture in (image, torch.from_numpy(copy)):
            logits, tensors = model.activations(picture[None].clone().requires_grad_())
            (gradient,) = torch.autograd.grad(logits[0, kind], tensors[layer])
            weights = gradient[0].mean((1, 2))
            maps.append((weights[:, None, None] * tensors[layer][0].detach()).sum(0).clamp_min(0))
        first, second = (one.flatten().double() for one in maps)
        size = first.norm() * second.norm()
        both = first.norm() == second.norm() == 0
        drifts.append(1 - float(both if size == 0 else first @ second / size))
    return drifts


def test_joint_drift_twin(model, pixels):
    single = as_model(small_network(), micro_batch=1)
    result = drift.measure(Images(model, pixels[:3], generators(3)), drift.Settings(window=3))
    assert list(result) == [f"drift_{layer}" for layer in range(len(model.maps))]
    for i in range(3):
        values = [column[i] for column in result.values()]
        assert values == pytest.approx(slow_drift(single, pixels[i], 3), abs=1e-5)


def test_joint_drift_sees_a_change_that_the_median_filter_removes(model):
    """Smooth images, and the same with pixels that stand alone: no score is shared."""
    rng = np.random.default_rng(0)
    corners = torch.from_numpy(rng.random((40, 3, 2, 2), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(corners, (12, 12), mode="bilinear")
    lonely = smooth.clone()
    lonely[:, :, 2::4, 2::4] = torch.from_numpy(rng.random((40, 3, 3, 3), dtype=np.float32)).round()
    rows = [
        pd.DataFrame(drift.measure(Images(model, part, generators(40)), drift.Settings(window=3)))
        for part in (smooth, lonely)
    ]
    attacked = np.repeat([False, True], 20)
    seen = pd.concat([part[:20] for part in rows], ignore_index=True)
    for detector in drift.readings(drift.Settings(window=3)).values():
        detector.fit(seen, attacked)
        benign, other = (detector.score_samples(part[20:]) for part in rows)
        assert (other[:, None] > benign).mean() > 0.9


def test_joint_drift_of_an_image_that_the_filter_leaves_is_none(model):
    flat = torch.full((2, 3, 12, 12), 0.5)
    result = drift.measure(Images(model, flat, generators(2)), drift.Settings(window=3))
    assert all(np.abs(column).max() < 1e-6 for column in result.values())

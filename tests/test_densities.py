"""Detectors that compare an image's activations with those of training images."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import LedoitWolf

from camdrift import storage
from camdrift.detectors import class_mahalanobis, kde, lid, recovery, relevance
from camdrift.evaluation import training
from camdrift.explain import lrp
from camdrift.features import pooled
from camdrift.features.images import Images
from camdrift.features.reference import Reference
from camdrift.models.model import Model
from camdrift.settings import DetectionSettings, SettingsError, params
from conftest import ROOT, as_model, deep_network
from test_attacks import generators

SETTINGS = {
    class_mahalanobis: class_mahalanobis.Settings(),
    lid: lid.Settings(neighbours=4),
    kde: kde.Settings(bandwidth=0.5),
    recovery: recovery.Settings(),
}


@pytest.fixture
def model() -> Model:
    return as_model(deep_network())


def reference(*, count: int = 30, channels: tuple[int, ...] = (3, 5), seed: int = 0) -> Reference:
    """Made-up images of three classes, whose activations lie around their class's own."""
    means = [np.random.default_rng(k).normal(0, 1, (3, k)) for k in channels]
    rng, labels = np.random.default_rng([1, seed]), np.arange(count) % 3
    return Reference(
        [mean[labels] + rng.normal(0, 0.2, (count, mean.shape[1])) for mean in means], labels
    )


def made(reference: Reference, *, count: int = 8, seed: int = 1) -> list[torch.Tensor]:
    """Activations of other images."""
    rng = np.random.default_rng(seed)
    return [
        torch.from_numpy(layer[:count] + rng.normal(0, 0.3, (count, layer.shape[1])))
        for layer in reference.layers
    ]


def test_pooled_activations_are_means_over_places(model, pixels):
    layers = pooled.measure(model, pixels)
    batch, rows = model.batches(pixels)[-1]
    _, activations = model.activations(batch)
    for layer, tensor in zip(layers, activations, strict=True):
        assert layer.shape == (len(pixels), tensor.shape[1])
        last = tensor[rows - 1]
        expected = [float(np.mean([float(value) for value in c.flatten()])) for c in last]
        assert layer[-1].tolist() == pytest.approx(expected, abs=1e-6)


def test_distance_from_the_nearest_class_twin():
    known = reference()
    layers = made(known)
    result = class_mahalanobis.distances(layers, known)
    for place, training_layer in enumerate(known.layers):
        means = {k: training_layer[known.labels == k].mean(0) for k in range(3)}
        off = [row - means[k] for row, k in zip(training_layer, known.labels, strict=True)]
        precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(off).covariance_)
        for image, row in enumerate(layers[place].numpy()):
            each = [(row - mean) @ precision @ (row - mean) for mean in means.values()]
            assert float(result[image, place]) == pytest.approx(min(each), rel=1e-6)


def test_local_dimension_twin():
    known = reference()
    layers = made(known)
    result = lid.dimensions(layers, known, neighbours=4)
    for place, training_layer in enumerate(known.layers):
        for image, row in enumerate(layers[place].numpy()):
            near = sorted(np.sqrt(((row - other) ** 2).sum()) for other in training_layer)[:4]
            expected = -1 / np.mean([np.log(distance / near[-1]) for distance in near])
            assert float(result[image, place]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dimension", [1, 3, 8])
def test_local_dimension_is_that_of_the_space(dimension):
    """Uniform points around the origin: the estimate's mean is the number of dimensions."""
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(200):
        known = Reference([rng.uniform(-1, 1, (2000, dimension))], np.zeros(2000, dtype=int))
        origin = [torch.zeros(1, dimension, dtype=torch.float64)]
        estimates.append(float(lid.dimensions(origin, known, neighbours=50)))
    assert np.mean(estimates) == pytest.approx(dimension, rel=0.1)


def test_density_twin_and_a_class_without_training_images():
    known = reference()
    layer, classes = made(known)[-1], torch.tensor([0, 1, 2, 0, 1, 2, 7, 7])
    result = kde.log_density(layer, classes, known, 0.5)
    for image, row in enumerate(layer.numpy()):
        kind = int(classes[image])
        others = [o for o, k in zip(known.layers[-1], known.labels, strict=True) if k == kind]
        others = others or list(known.layers[-1])
        density = np.mean([np.exp(-((row - other) ** 2).sum() / 0.25) for other in others])
        assert float(result[image]) == pytest.approx(np.log(density), rel=1e-6)


def test_the_bandwidth_is_the_one_under_which_training_images_are_likeliest():
    known = reference(count=60, channels=(2,))
    width, layer = kde.likeliest(known), known.layers[-1]

    def likelihood(width):
        chances = []
        for i, row in enumerate(layer):
            others = [layer[j] for j in range(60) if j != i and known.labels[j] == known.labels[i]]
            kernels = [np.exp(-((row - other) ** 2).sum() / width**2) for other in others]
            chances.append(np.log(np.sum(kernels)) - 2 * np.log(width))
        return np.mean(chances)

    assert likelihood(width) >= max(likelihood(width * 2**0.5), likelihood(width / 2**0.5))
    # Normal noise of .2: Silverman's rule for two dimensions gives .2 * sqrt(2) * n ** (-1 / 6).
    assert width == pytest.approx(0.2 * 2**0.5 * 20 ** (-1 / 6), rel=0.5)


@pytest.mark.parametrize("channels", [(3, 5, 2), (1, 5, 2)])
def test_recovery_twin(channels):
    """Regressions by augmented least squares, their penalty by leaving out an image at a time."""
    known = reference(count=24, channels=channels)
    *earlier, last = known.layers
    mean, scale = last.mean(0), last.std(0)
    inputs = (last - mean) / scale

    def regression(rows, targets, penalty):
        """An offset, which has no penalty, and weights."""
        design = np.hstack([np.ones((len(rows), 1)), rows])
        ridge = np.sqrt(penalty) * np.eye(rows.shape[1] + 1)[1:]
        padded = np.vstack([targets, np.zeros((rows.shape[1], targets.shape[1]))])
        return np.linalg.lstsq(np.vstack([design, ridge]), padded, rcond=None)[0]

    def left_out(targets, penalty):
        error = 0.0
        for i in range(24):
            others = np.arange(24) != i
            weights = regression(inputs[others], targets[others], penalty)
            error += ((targets[i] - np.r_[1, inputs[i]] @ weights) ** 2).sum()
        return error

    weights = []
    for layer in earlier:
        best = min(recovery.PENALTIES, key=lambda penalty: left_out(layer, penalty))
        weights.append(regression(inputs, layer, best))
    layers = made(known)
    result = recovery.recoverability(layers, known)
    for image, row in enumerate(layers[-1].numpy()):
        guesses = [np.r_[1, (row - mean) / scale] @ each for each in weights]
        pairs = zip(layers, guesses, strict=False)
        errors = [((layer[image].numpy() - guess) ** 2).sum() for layer, guess in pairs]
        shares = [np.exp(error) / sum(np.exp(errors)) for error in errors]
        evenness = [np.log(2) + share * np.log(share + 1e-8) for share in shares]
        expected = sum(evenness) * np.log(np.mean(errors) + 1e-8)
        assert float(result[image]) == pytest.approx(expected, rel=1e-6)


def test_recovery_of_layers_that_the_last_one_tells_wholly():
    """Errors are 0, so the test is L (log L - log(L) / L) log(1e-8)."""
    rng = np.random.default_rng(0)
    last = rng.normal(0, 1, (4000, 2))
    known = Reference([last @ rng.normal(0, 1, (2, 3)) + 1, 2 * last, last], np.arange(4000) % 2)
    layers = [torch.from_numpy(layer[:3]) for layer in known.layers]
    expected = np.log(2) * np.log(1e-8)
    assert recovery.recoverability(layers, known).tolist() == pytest.approx(
        [expected] * 3, rel=1e-2
    )


def test_recovery_refuses_networks_of_two_layers():
    with pytest.raises(SettingsError, match="wanted a network with 3 layers that have maps, got 2"):
        recovery.fit(reference(channels=(3, 5)))


@pytest.mark.parametrize("module", SETTINGS)
def test_a_shift_away_from_all_classes_is_seen(module):
    """Attacked images have five times the spread around their class."""
    channels = (3, 5, 4) if module is recovery else (3, 5)
    known = reference(count=300, channels=channels)
    rng = np.random.default_rng(2)

    def rows(spread, count=60):
        drawn = reference(count=count, channels=channels, seed=int(rng.integers(2**31)))
        layers = [
            torch.from_numpy(layer + rng.normal(0, spread, layer.shape)) for layer in drawn.layers
        ]
        if module is kde:
            classes = torch.from_numpy(drawn.labels)
            return pd.DataFrame({"kde": -kde.log_density(layers[-1], classes, known, 0.5).numpy()})
        if module is recovery:
            return pd.DataFrame({"recovery_test": recovery.recoverability(layers, known)})
        if module is lid:
            values = lid.dimensions(layers, known, neighbours=20)
        else:
            values = class_mahalanobis.distances(layers, known)
        name = module.__name__.rpartition(".")[2]
        return pd.DataFrame({f"{name}_{i}": values[:, i].numpy() for i in range(2)})

    benign, attacked = rows(0.05), rows(1.0)
    seen = pd.concat([benign[:30], attacked[:30]], ignore_index=True)
    for detector in module.readings(SETTINGS[module]).values():
        detector.fit(seen, np.repeat([False, True], 30))
        scores = [detector.score_samples(part[30:]) for part in (benign, attacked)]
        assert (scores[1][:, None] > scores[0]).mean() > 0.9


@pytest.mark.parametrize("module", SETTINGS)
def test_features_are_those_of_each_image_alone(module, model, pixels):
    layers = pooled.measure(model, pixels)
    known = Reference([layer.numpy() for layer in layers], np.arange(10) % 3)
    whole = module.measure(Images(model, pixels, generators(10), known), SETTINGS[module])
    for i in (0, 9):
        own = module.measure(
            Images(model, pixels[i : i + 1], generators(1), known), SETTINGS[module]
        )
        assert list(own) == list(whole)
        for name, column in own.items():
            np.testing.assert_allclose(column[0], whole[name][i], rtol=1e-5)


def test_a_signature_is_the_epsilon_rules_where_a_dense_layer_follows(pixels):
    """Relevance of a channel is its share in the logit, so they add up to it without a bias."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(6, 4, bias=False),
    )  # fmt: skip
    model = as_model(network)
    _, result = relevance.signatures(model, pixels[:4], graph=False)
    _, units = lrp.relevance_and_last_layer(model, pixels[:4])
    expected = units / units.abs().sum(1, keepdim=True)
    torch.testing.assert_close(result[:4], expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.abs().sum(1), torch.ones(len(result)))


def test_a_signature_of_other_channels_is_seen(model, pixels):
    """Images of one colour, and of another."""
    rng = np.random.default_rng(0)
    parts = []
    for channel in (0, 2):
        images = torch.from_numpy(0.05 * rng.random((40, 3, 12, 12), dtype=np.float32))
        images[:, channel] += 0.8
        columns = relevance.measure(Images(model, images, generators(40)), relevance.Settings())
        parts.append(pd.DataFrame(columns))
    seen = pd.concat([part[:20] for part in parts], ignore_index=True)
    for detector in relevance.readings(relevance.Settings()).values():
        detector.fit(seen, np.repeat([False, True], 20))
        scores = [detector.score_samples(part[20:]) for part in parts]
        assert (scores[1][:, None] > scores[0]).mean() > 0.9


def detection(**detectors) -> DetectionSettings:
    own = params.load(ROOT / "params.yaml").detection
    return own.model_copy(update={"detectors": detectors, "reference": 12})


def images(count: int = 40) -> storage.ImageSet:
    """Images of two classes, each of one level; every second one is a training image."""
    levels = np.arange(count, dtype=np.uint8)
    index = pd.DataFrame({
        "id": [f"image {i}" for i in range(count)], "label": levels // 2 % 2,
        "split": np.where(levels % 2, "train", "test"),
    })  # fmt: skip
    return storage.ImageSet(np.tile(levels[:, None, None, None], (1, 12, 12, 3)), index, {})


def test_training_images_are_of_the_training_split_with_their_own_labels(model, monkeypatch):
    monkeypatch.setattr(storage, "read", lambda *_: images())
    first = training.measure(model, "made", detection(kde={"bandwidth": None}), seed=1)
    again = training.measure(model, "made", detection(kde={"bandwidth": None}), seed=1)
    other = training.measure(model, "made", detection(kde={"bandwidth": None}), seed=2)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    levels = torch.arange(40).view(-1, 1, 1, 1).expand(-1, 3, 12, 12) / 255
    each = torch.cat(pooled.measure(model, levels), dim=1).numpy()
    own = [int(np.abs(each - row).sum(1).argmin()) for row in first[0]]
    assert len(set(own)) == 12
    assert all(level % 2 for level in own)
    assert first[1].tolist() == [level // 2 % 2 for level in own]
    known = training.read(storage.Sensitivity(pd.DataFrame(), *first))
    assert [layer.shape[1] for layer in known.layers] == first[2]["channels"]
    np.testing.assert_array_equal(np.hstack(known.layers).astype(np.float32), first[0])
    none = training.measure(model, "made", detection(chance={}), seed=1)
    assert training.read(storage.Sensitivity(pd.DataFrame(), *none)) is None


def test_sets_with_no_or_few_training_images_are_refused(model, monkeypatch):
    every, settings = images(), detection(kde={"bandwidth": None}, lid={"neighbours": 2})
    none = storage.ImageSet(every.pixels, every.index.assign(split="test"), {})
    monkeypatch.setattr(storage, "read", lambda *_: none)
    with pytest.raises(SettingsError, match="kde, lid compare images with training images, and"):
        training.measure(model, "made", settings, seed=1)
    alone = storage.ImageSet(every.pixels, every.index.assign(label=range(40)), {})
    monkeypatch.setattr(storage, "read", lambda *_: alone)
    with pytest.raises(SettingsError, match="wanted 2 training images of each, got 1 of one among"):
        training.measure(model, "made", settings, seed=1)


def test_equal_activations_have_finite_densities():
    """As of a layer that is 0 for all images."""
    known = Reference([np.zeros((6, 3)), np.zeros((6, 2))], np.arange(6) % 2)
    layers = [torch.zeros(2, 3), torch.zeros(2, 2)]
    assert lid.dimensions(layers, known, neighbours=3).tolist() == [[0, 0], [0, 0]]
    assert class_mahalanobis.distances(layers, known).isfinite().all()
    width = kde.likeliest(known)
    assert kde.log_density(layers[-1], torch.tensor([0, 1]), known, width).isfinite().all()
    deeper = Reference([np.zeros((6, 3)), *known.layers], known.labels)
    assert recovery.recoverability([torch.zeros(2, 3), *layers], deeper).isfinite().all()

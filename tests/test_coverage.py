import numpy as np
import torch

from camdrift.analysis import statistics
from camdrift.models import coverage
from conftest import as_model, small_network


def test_levels_twin(pixels):
    model = as_model(small_network(), micro_batch=2)
    logits, tensors = model.excitations(pixels[:2])
    result = coverage.levels(logits, tensors)
    for i in range(2):
        expected = []
        for layer in (*tensors, logits.softmax(1)):
            values = layer[i].tolist()
            channels = values if isinstance(values[0], list) else [[[v]] for v in values]
            flat = [v for channel in channels for row in channel for v in row]
            low, high = min(flat), max(flat)
            for channel in channels:
                units = [(v - low) / (high - low) for row in channel for v in row]
                expected.append(sum(units) / len(units))
        np.testing.assert_allclose(result[i].tolist(), expected, rtol=1e-4, atol=1e-6)


def test_neurons_are_channels_pools_and_classes(model):
    # 5 channels, their 5 pools, 7 channels, 4 classes of the softmax; the last linear layer has no
    # activation and counts through the softmax.
    spatial = coverage.spatial(model)
    assert len(spatial) == 5 + 5 + 7 + 4
    assert spatial.sum() == 17
    kernels = coverage.kernel_means(model)
    weights = model.weight_of("0").flatten(1).mean(1)
    np.testing.assert_allclose(kernels[:5], weights, rtol=1e-6)
    assert np.isnan(kernels[5:10]).all()


def test_a_constant_layer_covers_nothing(model):
    levels = coverage.levels(torch.zeros(1, 3), (torch.full((1, 2, 4, 4), 5.0),))
    assert levels.tolist() == [[0.0] * 5]


def test_coverage_does_not_depend_on_the_batch(model, pixels):
    whole = coverage.covered(model, pixels, threshold=0.25)
    alone = [coverage.covered(model, image[None], threshold=0.25)[0] for image in pixels]
    np.testing.assert_array_equal(whole, np.stack(alone))


def test_curve_on_paper():
    # One neuron by both images, one by the second alone, one by none.
    covered = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    np.testing.assert_allclose(statistics.coverage_curve(covered), [1.5 / 3, 2 / 3])

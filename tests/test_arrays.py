"""Shapes that signatures name are checked here, in all tests, and cannot be off unnoticed."""

from importlib import import_module

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from camdrift.explain.methods import grad_cam
from camdrift.models import gradients
from camdrift.perturbations import changes
from camdrift.perturbations.perturbation import Perturbation
from camdrift.scores import ssim
from camdrift.storage.pixels import from_8bit
from conftest import CHECKED

LABELS = torch.zeros(10, dtype=torch.int64)


@pytest.mark.parametrize("name", CHECKED)
def test_modules_are_imported_with_their_checks(name):
    assert type(import_module(name).__spec__.loader).__module__.startswith("jaxtyping")


def test_wrong_pixels_and_labels_are_refused(model, pixels):
    gradients.cross_entropy(model, pixels, LABELS)
    for images, labels in (
        (pixels[:, 0], LABELS),
        (pixels[:, :2], LABELS),
        (pixels.mul(255).byte(), LABELS),
        (pixels, LABELS[:9]),
        (pixels, LABELS.float()),
        (pixels.numpy(), LABELS),
    ):
        with pytest.raises(TypeCheckError):
            gradients.cross_entropy(model, images, labels)


def test_sides_that_differ_are_refused():
    wide, tall = torch.rand(2, 5, 3, 4), torch.rand(2, 5, 4, 3)
    with pytest.raises(TypeCheckError):
        grad_cam.maps(wide, tall)
    with pytest.raises(TypeCheckError):
        ssim.score(wide[:, 0].numpy(), tall[:, 0].numpy(), size=8)


def test_fields_that_do_not_fit_together_are_refused(pixels):
    with pytest.raises(TypeCheckError):
        Perturbation(pixels, LABELS[:9])


def test_channels_that_stand_last_are_refused():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    assert from_8bit(images).shape == (2, 3, 4, 5)
    with pytest.raises(TypeCheckError):
        from_8bit(images.transpose(0, 3, 1, 2))
    with pytest.raises(TypeCheckError):
        changes.stored(images / 255, quantise="none")

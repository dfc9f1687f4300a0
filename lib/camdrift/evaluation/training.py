"""Training images, which some detectors compare an image with: their draw and their activations."""

import numpy as np
import torch

from camdrift import storage
from camdrift.detectors.families import PLACE, families
from camdrift.features import pooled
from camdrift.features.reference import Reference
from camdrift.models.model import Model
from camdrift.pipeline import randomness
from camdrift.settings import DetectionSettings, SettingsError
from camdrift.storage.arrays import PerImage
from camdrift.storage.pixels import from_8bit

FEWEST = 2  # images of a class, for a spread around its mean


def measure(
    model: Model, name: str, settings: DetectionSettings, *, seed: int
) -> tuple[np.ndarray, PerImage, dict]:
    """Returns `activations`, `labels` and `facts` as `storage.Sensitivity` has them.

    Args:
        model: the model under attack.
        name: of the set.
        settings: of the detection.
        seed: of the draw.

    Raises:
        SettingsError: a detector compares images with training images, and the set has none, or
            too few of a class.
    """
    comparing = [family.name for family in families(settings) if family.compares]
    if not comparing:
        return np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), {"channels": []}
    images = storage.read(storage.ImageSet, storage.set_folder(name))
    rows = images.index[images.index["split"] == "train"]
    if rows.empty:
        raise SettingsError(
            f"{PLACE}: {', '.join(comparing)} compare images with training images, and the set "
            f"'{name}' has none; leave these detectors out, or give the set training images"
        )
    rows = rows.iloc[randomness.sample(rows["id"], settings.reference, seed, "reference")]
    fewest = rows["label"].value_counts().min()
    if fewest < FEWEST:
        raise SettingsError(
            f"detection.reference: {', '.join(comparing)} compare images with those of a class, "
            f"wanted {FEWEST} training images of each, got {fewest} of one among {len(rows)} "
            f"images of '{name}'; raise it, give the set more training images, or leave these "
            "detectors out"
        )
    layers = pooled.measure(model, torch.from_numpy(from_8bit(images.pixels[rows.index])))
    channels = {"channels": [layer.shape[1] for layer in layers]}
    return torch.cat(layers, dim=1).numpy(), rows["label"].to_numpy(dtype=np.int64), channels


def read(known: storage.Sensitivity) -> Reference | None:
    """Returns the training images as detectors see them, None where no detector does."""
    if not len(known.labels):
        return None
    ends = np.cumsum(known.facts["channels"], dtype=int)[:-1]
    return Reference(np.split(known.activations, ends, axis=1), known.labels)

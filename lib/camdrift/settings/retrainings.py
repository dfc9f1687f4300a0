"""Models retrained on attacked images, their names, and signatures of images."""

from typing import Annotated, Any

from pydantic import Field

from camdrift.settings.attacks import Descent
from camdrift.settings.models import Training
from camdrift.settings.section import Count, Name, Section, Window

EXTENDING = ("fgsm", "one_pixel")  # attacks whose successes extend the training set
ATTACKING = (*EXTENDING, "pgd")  # attacks that every model faces
# Kinds of models that a retraining makes: trained further on the same images, on these and one
# attack's successes, and adversarially.
RETRAINED = ("retrained", *EXTENDING, "pgd")
# Kinds of models that are retrained on an attack's successes which survive rounding, by attack. No
# cell can use them: few survivors make none.
RETRAINED_8BIT = {attack: f"{attack}_8bit" for attack in EXTENDING}


class AttackedImages(Section):
    """The largest number of images to attack in each split."""

    train: Count
    test: Count


class UmapSettings(Section):
    """Settings of the map of signatures."""

    neighbours: Annotated[int, Field(ge=2)] = 15
    min_dist: Annotated[float, Field(ge=0, le=1)] = 0.1


class SignatureSettings(Section):
    """The plane of signatures, and the measurements of them."""

    umap: UmapSettings
    agreement: Count
    window: Window


class Retraining(Section):
    """A baseline model, and the models that are retrained from it on attacked images."""

    study: Name
    set: Name
    model: Name
    attacked: AttackedImages
    fgsm: dict[str, Any] = {}
    one_pixel: dict[str, Any] = {}
    pgd: dict[str, Any] = {}
    larger: Annotated[float, Field(gt=1)] = 2.0
    training: Training
    minimum_8bit: Count | None = 30
    adversary: Descent
    # Each is one of `camdrift.perturbations.controls`, which `check` looks at.
    controls: list[Name] = []


def retrained_model(retraining: str, kind: str) -> str:
    """Returns the name of the model of a kind, one of `RETRAINED`, that a retraining makes."""
    return f"{retraining}_{kind}"

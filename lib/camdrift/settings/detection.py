"""Detectors and their evaluation."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from camdrift.settings.attacks import Descent
from camdrift.settings.section import Count, Name, Positive, Section, Share


def _is_counted(layer: int) -> int:
    if layer == 0:
        raise ValueError("wanted a layer counted from 1, or from the end, got 0")
    return layer


Layer = Annotated[int, AfterValidator(_is_counted)]  # from 1, or from the end if negative


def place(layer: int) -> int:
    """Returns the place of a layer in the list of a model's maps."""
    return layer - 1 if layer > 0 else layer


class DetectionShares(Section):
    """Shares of a cell's images on which detectors are calibrated, chosen and tested."""

    calibrate: Share
    choose: Share
    test: Share

    @model_validator(mode="after")
    def _whole(self) -> "DetectionShares":
        parts = [self.calibrate, self.choose, self.test]
        if abs(sum(parts) - 1) > 1e-9 or min(parts) == 0:
            raise ValueError(f"wanted shares above 0 that add up to 1, got {parts}")
        return self


class GradientFree(Section):
    """A search by random squares for a lower score, as a check of attacks along gradients.

    queries: evaluations of an image's score.
    detectors: by their files, those that are attacked so.
    """

    queries: Annotated[int, Field(ge=2)]
    detectors: list[Name]


class DetectionSettings(Section):
    """The evaluation of detectors, and the settings of each detector that is tried."""

    images: Count
    shares: DetectionShares
    blur: Positive
    reference: Count = 600  # results of before it are still read
    adaptive: Descent
    gradient_free: GradientFree = GradientFree(queries=200, detectors=[])  # as above
    # By the file of each in `camdrift.detectors`, which holds what its settings are.
    detectors: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> "DetectionSettings":
        for name in self.gradient_free.detectors:
            if name not in self.detectors:
                raise ValueError(
                    f"wanted detectors of this study in gradient_free.detectors, got '{name}'; "
                    f"there are: {', '.join(self.detectors)}"
                )
        return self

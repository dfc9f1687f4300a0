"""Detectors, their features and their trial."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from camdrift.settings.attacks import Descent
from camdrift.settings.section import Count, Positive, Section, Share

Layer = int  # counted from 1, or from the end if negative


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


class DetectionSettings(Section):
    """Detectors, their features and their trial."""

    images: Count
    shares: DetectionShares
    variance: Annotated[float, Field(gt=0, lt=1)]
    copies: Annotated[int, Field(ge=2)]
    probe: Layer
    layer: Layer
    brightness: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    radius: Count
    neighbours: Count
    clusters: Annotated[int, Field(ge=0)]
    bits: Annotated[int, Field(ge=1, le=8)]
    window: Annotated[int, Field(ge=1)]
    blur: Positive
    adaptive: Descent

    def place(self, layer: Literal["probe", "layer"]) -> int:
        """Returns the index of a layer in the list of maps."""
        number = getattr(self, layer)
        return number - 1 if number > 0 else number

    @model_validator(mode="after")
    def _fits(self) -> "DetectionSettings":
        for name in ("probe", "layer"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}: wanted a layer counted from 1, or from the end, got 0")
        if self.window % 2 == 0:
            raise ValueError(f"window: wanted an odd number of px, got {self.window}")
        if sorted(set(self.brightness)) != self.brightness:
            raise ValueError(f"brightness: wanted thresholds that rise, got {self.brightness}")
        return self

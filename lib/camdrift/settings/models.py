"""Networks, where their weights come from, and how they are trained."""

from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from camdrift.settings.section import Count, Name, Positive, Section, Side

FILES = (".safetensors", ".pt", ".pth")  # of weights


class Training(Section):
    """How a network is trained."""

    layers: Literal["all", "dense"]
    epochs: Count
    batch: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    shift: Annotated[int, Field(ge=0)]
    flip: bool


class ModelSettings(Section):
    """A network and where its weights come from."""

    set: Name
    architecture: str
    size: Side | None
    width: Annotated[float, Field(gt=0, le=1)]
    head: Literal["pooled", "torchvision"]
    classes: Annotated[int, Field(ge=2)] | None
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    weights: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    new_head: bool
    training: Training | None

    @model_validator(mode="after")
    def _has_weights(self) -> "ModelSettings":
        if self.weights is None and self.training is None:
            raise ValueError("wanted `weights:` or `training:` (or both), got neither")
        if self.is_url and self.suffix not in FILES:
            raise ValueError(f"wanted a URL that ends in {', '.join(FILES)}, got {self.weights}")
        # Of a preset's file in WEIGHTS it is filled in when the file is there, see `presets`.
        lent = str(self.weights).startswith("WEIGHTS/")
        if (self.is_file or self.is_url) and self.sha256 is None and not lent:
            raise ValueError(f"wanted the sha256 of {self.weights}; `sha256sum` prints it")
        if self.new_head and (self.weights is None or self.training is None):
            raise ValueError("wanted `weights:` and `training:` beside `new_head: true`")
        if self.training and self.training.layers == "dense" and self.weights is None:
            raise ValueError("wanted `weights:`, since `layers: dense` leaves the rest as it is")
        halves = [0.5, 0.5, 0.5]
        inception = self.architecture in ("inception_v3", "googlenet")
        if (
            inception
            and self.weights
            and not (self.is_file or self.is_url)
            and [self.mean, self.std] != [halves] * 2
        ):
            raise ValueError(f"{self.architecture}'s weights want mean and std of {halves}")
        return self

    @property
    def is_url(self) -> bool:
        """Whether the weights are downloaded from a URL of the user's."""
        return str(self.weights).startswith(("http://", "https://"))

    @property
    def is_file(self) -> bool:
        """Whether the weights are a local file."""
        return self.suffix in FILES and not self.is_url

    @property
    def suffix(self) -> str:
        """Suffix of the weights' file, of that which a URL names, too."""
        weights = str(self.weights)
        return PurePosixPath(urlsplit(weights).path if self.is_url else weights).suffix

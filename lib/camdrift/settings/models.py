"""Networks, the sources of their weights, and their training."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from camdrift.settings.section import Count, Name, Positive, Section, Size

PATH = re.compile(r"[/\\]|\.[A-Za-z0-9]+$")  # of weights: a separator, or the suffix of a file
HALVED = ("inception_v3", "googlenet")  # torchvision's; their weights expect pixels in [-1, 1]
HALVES, QUARTERS = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Training(Section):
    """How a network is trained.

    learning_rate: the peak of AdamW's one-cycle schedule, the first of SGD's.
    momentum, decay: of SGD, whose learning rate is divided by 1 + decay * steps so far.
    """

    layers: Literal["all", "dense"] = "all"
    epochs: Count = 10
    batch: Annotated[int, Field(ge=2)] = 32
    learning_rate: Positive = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    decay: Annotated[float, Field(ge=0)] = 0.0
    shift: Annotated[int, Field(ge=0)] = 8
    flip: bool = True

    @model_validator(mode="after")
    def _is_of_its_optimiser(self) -> "Training":
        if self.optimiser == "adamw" and (self.momentum or self.decay):
            raise ValueError("wanted `optimiser: sgd` beside `momentum` or `decay`")
        return self


class ModelSettings(Section):
    """A network and the source of its weights.

    size: of its input, as of a set; None for that of its set.
    mean, std: a number for each channel of its set, 3 or 1.
    """

    set: Name
    architecture: str
    size: Size | None = None
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    head: Literal["pooled", "torchvision", "sigmoid"] = "torchvision"
    arguments: dict[str, bool | int | float | str | list[int]] = {}
    classes: Annotated[int, Field(ge=2)] | None = None
    mean: Annotated[list[float], Field(min_length=1, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=3)]
    weights: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    new_head: bool = False
    training: Training | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_as_usual(cls, content: Any) -> Any:
        """Fills in the mean and deviation that the weights expect, and a new head's training."""
        if not isinstance(content, dict):
            return content
        halved = content.get("architecture") in HALVED or content.get("weights") is None
        mean, std = (HALVES, QUARTERS) if halved else (IMAGENET_MEAN, IMAGENET_STD)
        if halved and content.get("weights") is not None:
            std = HALVES
        own = content.get("mean")
        if isinstance(own, list) and len(own) == 1 and len(set(std)) == 1:
            std = std[:1]  # of one channel
        usual: dict[str, Any] = {"mean": mean, "std": std}
        if content.get("new_head") is True:
            usual["training"] = {"layers": "dense"}
        return usual | content

    @model_validator(mode="after")
    def _has_channels(self) -> "ModelSettings":
        counts = len(self.mean), len(self.std)
        if counts not in [(1, 1), (3, 3)]:
            raise ValueError(
                "wanted as many numbers in mean as in std, 3 or, for a set with `channels: 1`, 1, "
                f"got {counts[0]} and {counts[1]}"
            )
        return self

    @property
    def channels(self) -> int:
        """Channels of the images that the network takes: 3, or 1 for grey ones."""
        return len(self.mean)

    @model_validator(mode="after")
    def _has_weights(self) -> "ModelSettings":
        if self.weights is None and self.training is None:
            raise ValueError("wanted `weights:` or `training:` (or both), got neither")
        if self.is_url and self.sha256 is None:
            raise ValueError(f"wanted the sha256 of {self.weights}; `sha256sum` prints it")
        if self.new_head and (self.weights is None or self.training is None):
            raise ValueError("wanted `weights:` and `training:` beside `new_head: true`")
        if self.training and self.training.layers == "dense" and self.weights is None:
            raise ValueError("wanted `weights:`, since `layers: dense` leaves the rest as it is")
        named = self.weights is not None and not (self.is_file or self.is_url)
        if self.architecture in HALVED and named and [self.mean, self.std] != [HALVES] * 2:
            raise ValueError(f"{self.architecture}'s weights ask for mean and std of {HALVES}")
        return self

    @property
    def is_url(self) -> bool:
        """Whether the weights are downloaded from the user's own URL."""
        return str(self.weights).startswith(("http://", "https://"))

    @property
    def is_file(self) -> bool:
        """Whether the weights are a file on this disk: one that exists, or what looks like one."""
        if self.weights is None or self.is_url:
            return False
        return bool(PATH.search(self.weights)) or Path(self.weights).is_file()

    @property
    def suffix(self) -> str:
        """Suffix of the file that the weights' URL names."""
        return PurePosixPath(urlsplit(str(self.weights)).path).suffix

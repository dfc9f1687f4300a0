"""Image sets: the sources of their images, their splits and sizes."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from camdrift.settings.section import Section, Share, Side


class Shares(Section):
    """Shares of a set's images in each split; they add up to 1."""

    train: Share
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _whole(self) -> "Shares":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"wanted shares that add up to 1, got {total:g}")
        return self


class Limits(Section):
    """The largest number of images that a class gives to each split."""

    train: Annotated[int, Field(ge=0)] = 1000
    validation: Annotated[int, Field(ge=0)] = 200
    test: Annotated[int, Field(ge=0)] = 200


class Preprocessing(Section):
    """The changes to each picture before it is resized."""

    align: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0


class _Set(Section):
    path: str
    size: Side
    preprocessing: Preprocessing | None = None
    shares: Shares = Shares(train=0.6, validation=0.1, test=0.3)
    limits: Limits = Limits()


class Photos(_Set):
    """Tiles of the photographs that ship with scikit-image and scikit-learn."""

    kind: Literal["photos"]


class Digits(_Set):
    """scikit-learn's digits."""

    kind: Literal["digits"]


class Labels(Section):
    """A CSV file of labels beside the images, and its columns."""

    csv: str
    image: str
    label: str
    offset: int = 0


class _Resized(_Set):
    size: Side = 224
    resize: Side
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _is_resized(cls, content: Any) -> Any:
        size = content.get("size", 224) if isinstance(content, dict) else None
        if not isinstance(size, int):
            return content
        # The ratio with which torchvision prepares images for a network of 224 px.
        return {"resize": min(2048, round(size * 256 / 224))} | content

    @model_validator(mode="after")
    def _covers(self) -> "_Resized":
        if self.resize < self.size:
            raise ValueError(f"wanted resize >= size ({self.size} px), got {self.resize}")
        if (self.fold + 1) * self.shares.test > 1 + 1e-9:
            raise ValueError(
                f"wanted a fold whose test images are not among those of another: with "
                f"shares.test {self.shares.test:g}, below {1 / self.shares.test:g}, got {self.fold}"
            )
        return self


class Folder(_Resized):
    """A folder of images."""

    kind: Literal["folder"]
    labels: Labels | None = None
    unreadable_share: Share = 0.01
    licence: str = "not stated"


class TorchvisionSet(_Resized):
    """A `torchvision.datasets` class by name."""

    kind: Literal["torchvision"]
    dataset: str
    arguments: dict[str, Any]
    licence: str = "not stated"


ImageSetSettings = Annotated[Photos | Digits | Folder | TorchvisionSet, Field(discriminator="kind")]

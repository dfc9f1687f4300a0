"""Image sets: the sources of their images, their splits and sizes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from camdrift.settings.section import (
    LEAST,
    MOST,
    Section,
    Share,
    Side,
    Size,
    in_words,
    sides,
)


class Shares(Section):
    """Shares of a set's images in each split; they add up to 1."""

    train: Share = 0.0
    validation: Share = 0.0
    test: Share = 0.0

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


def _is_grey_or_coloured(count: int) -> int:
    if count not in (1, 3):
        raise ValueError(f"wanted 3, for colours, or 1, for grey, got {count}")
    return count


Channels = Annotated[
    int, AfterValidator(_is_grey_or_coloured), Field(exclude_if=lambda count: count == 3)
]


class _Set(Section):
    """The settings of every kind of set.

    size: of the images in px: a side, for squares, or height and width.
    channels: of the images: 3, red, green and blue, or 1, grey. Settings are dumped without a 3.
    """

    path: str
    size: Size
    channels: Channels = 3
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
    """A set of pictures of any size.

    resize: px to which the side that limits a picture is resized, as long as the shorter side of
        `size`; see `datasets.pictures.fit`.
    """

    size: Size = 224
    resize: Side
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _is_resized(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        size = content.get("size", 224)
        parts = size if isinstance(size, list) and len(size) == 2 else [size]
        # Of another size, which is refused by itself, nothing depends.
        side = min(parts) if all(isinstance(side, int) for side in parts) else 224
        # The ratio with which torchvision prepares images for a network of 224 px.
        return {"resize": max(LEAST, min(MOST, round(side * 256 / 224)))} | content

    @model_validator(mode="after")
    def _covers(self) -> "_Resized":
        if self.resize < min(sides(self.size)):
            raise ValueError(
                f"wanted resize >= the shorter side of size ({in_words(self.size)}), got "
                f"{self.resize}"
            )
        if (self.fold + 1) * self.shares.test > 1 + 1e-9:
            raise ValueError(
                "wanted a fold whose test images are not among those of another, from 0 to "
                f"{int(1 / self.shares.test + 1e-9) - 1} with shares.test {self.shares.test:g}, "
                f"got {self.fold}"
            )
        return self


class Folder(_Resized):
    """A folder of images.

    links: another folder that symbolic links may lead to, such as DVC's cache; None: links to files
        stay in the set's folder, and links to folders are not followed.
    """

    kind: Literal["folder"]
    labels: Labels | None = None
    links: Annotated[str, Field(min_length=1)] | None = None
    unreadable_share: Share = 0.01
    licence: str = "not stated"


class TorchvisionSet(_Resized):
    """A `torchvision.datasets` class by name."""

    kind: Literal["torchvision"]
    dataset: str
    arguments: dict[str, Any]
    licence: str = "not stated"


ImageSetSettings = Annotated[Photos | Digits | Folder | TorchvisionSet, Field(discriminator="kind")]

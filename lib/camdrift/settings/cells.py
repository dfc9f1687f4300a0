"""Cells, and how an experiment is run and read."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from camdrift.settings.section import Count, Name, Positive, Section, Share, Side

STRENGTHS = [0.25, 0.5, 1.0, 2.0, 4.0]  # renkhoff2022's, figures 4-8


def in_set(name: str) -> str:
    """Returns the `within` of a cell whose attack no other limits: its set's folder."""
    return f"sets/{name}"


def in_attack(study: str, cell: str) -> str:
    """Returns the `within` of a cell whose attack is limited by that of another."""
    return f"studies/{study}/{cell}/attack"


class Cell(Section):
    """One experiment."""

    study: Name
    evaluation: Name
    set: Name
    model: Name
    source: Name
    attack: Name
    within: str
    label: Literal["predicted", "given"] = "predicted"
    images: Annotated[int, Field(ge=1)] | None = None
    strengths: Annotated[list[Positive], Field(min_length=1)] = STRENGTHS
    protocols: Annotated[list[Name], Field(min_length=1)] = ["corrected"]
    detect: list[Positive] = []
    adaptive: bool = False
    override: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _is_within_its_set(cls, content: Any) -> Any:
        """Fills in `within`, which results of earlier revisions do not name."""
        if isinstance(content, dict) and "within" not in content and "set" in content:
            return content | {"within": in_set(content["set"])}
        return content

    @property
    def limiting(self) -> str | None:
        """The cell whose attack limits this one's, None where there is none."""
        return None if self.within == in_set(self.set) else self.within.split("/")[-2]

    @model_validator(mode="after")
    def _has_whole(self) -> "Cell":
        if sorted(set(self.strengths)) != self.strengths:
            raise ValueError(f"wanted strengths that rise, got {self.strengths}")
        if 1.0 not in self.strengths:
            raise ValueError(f"wanted 1 (the attack itself) among strengths, got {self.strengths}")
        if self.detect != [strength for strength in self.strengths if strength in self.detect]:
            raise ValueError(
                f"wanted detect: some of the strengths {self.strengths}, rising, got {self.detect}"
            )
        if (self.adaptive or self.detect) and 1.0 not in self.detect:
            raise ValueError(f"wanted detect: to hold 1 (the attack itself), got {self.detect}")
        return self


class Protocol(Section):
    """How the experiment is run and read, switch by switch; see params.yaml."""

    strengths: Literal["exact", "accumulating"]
    quantise: Literal["none", "round", "floor"]
    noise: Literal["matched", "with_negated_attack"]
    similarity: Literal["raw", "jet_rgb"]
    score: Literal["logits", "softmax_for_originals"]
    target: Literal["seed_class", "own_top1"]
    threshold: Literal["held_out_quantile", "layer_median", "global_mean"]

    @property
    def recipe(self) -> str:
        """The switches that decide the pixels of changed images, as one word."""
        return f"{self.strengths}-{self.quantise}-{self.noise}"

    @property
    def reading(self) -> str:
        """The switches that decide the similarity of a map to its clean twin, as one word."""
        return f"{self.recipe}-{self.score}-{self.similarity}"


def protocols(content: dict[str, dict[str, str]]) -> dict[str, Protocol]:
    """Returns the protocols of params.yaml: each is `corrected` with its own switches set."""
    corrected = content.get("corrected", {})
    return {name: Protocol.model_validate(corrected | own) for name, own in content.items()}


class NoiseSettings(Section):
    """The noise to compare attacks with."""

    draws: Annotated[int, Field(ge=2)]
    # Each is one of `camdrift.perturbations.controls`, which `check` looks at.
    controls: list[Name]
    scaling: Literal["after_clipping", "unclipped"]
    raise_by: Annotated[float, Field(gt=1, le=4)]
    raise_to: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    bisections: Annotated[int, Field(ge=1, le=20)]

    @field_validator("controls")
    @classmethod
    def _are_there_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"wanted each of controls once, got {', '.join(names)}")
        return names


class CamSettings(Section):
    """The maps."""

    # Each is one of `camdrift.explain.methods`, which `check` looks at: that needs torch.
    methods: Annotated[list[str], Field(min_length=1)]
    examples: Count
    max_side: Side | None

    @field_validator("methods")
    @classmethod
    def _are_there_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"wanted each of methods once, got {', '.join(names)}")
        return names


class ScoreSettings(Section):
    """The scores."""

    unrelated: Count
    # Each is one of `camdrift.scores`, which `check` looks at.
    beside: list[Name]

    @field_validator("beside")
    @classmethod
    def _are_there_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names) or "cosine" in names:
            raise ValueError(f"wanted each once, and not the cosine, got {', '.join(names)}")
        return names


class CoverageSettings(Section):
    """Neuron coverage."""

    threshold: Share


class StatisticsSettings(Section):
    """Intervals, tests and flags."""

    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    quantile: Annotated[float, Field(gt=0, lt=0.5)]
    folds: Annotated[int, Field(ge=2)]


class FlagSettings(Section):
    """The thresholds at which a number is flagged."""

    empty_share: Share
    minimum_successes: Count
    minimum_images: Count = 30  # results of earlier revisions name none
    minimum_sources: Count
    zero_gradients: Share
    clipped_only: Share
    noise_flips: Share
    size_difference: Share

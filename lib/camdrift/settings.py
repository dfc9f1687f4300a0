"""params.yaml as pydantic models: every key, range and cross-reference."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=8, le=2048)]


class SettingsError(Exception):
    """params.yaml is not valid; the message names each fault."""


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, types are not bent."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        strange = [key for key in content if key not in cls.model_fields]
        if strange:
            there = ", ".join(sorted(cls.model_fields)) or "none"
            names = ", ".join(f"'{key}'" for key in strange)
            raise ValueError(f"no key {names}; there are: {there}")
        return content


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
    """The most images that a class gives to each split."""

    train: Annotated[int, Field(ge=0)]
    validation: Annotated[int, Field(ge=0)]
    test: Annotated[int, Field(ge=0)]


class _Set(Section):
    path: str
    size: Side
    shares: Shares
    limits: Limits


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
    offset: int


class _Resized(_Set):
    resize: Side

    @model_validator(mode="after")
    def _covers(self) -> "_Resized":
        if self.resize < self.size:
            raise ValueError(f"wanted resize >= size ({self.size} px), got {self.resize}")
        return self


class Folder(_Resized):
    """A folder of images."""

    kind: Literal["folder"]
    labels: Labels | None
    unreadable_share: Share
    licence: str


class TorchvisionSet(_Resized):
    """A `torchvision.datasets` class by name."""

    kind: Literal["torchvision"]
    dataset: str
    arguments: dict[str, Any]
    licence: str


ImageSetSettings = Annotated[Photos | Digits | Folder | TorchvisionSet, Field(discriminator="kind")]


class Training(Section):
    """How a network is trained."""

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
    width: Annotated[float, Field(gt=0, le=1)]
    head: Literal["pooled", "torchvision"]
    classes: Annotated[int, Field(ge=2)] | None
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    weights: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    training: Training | None

    @model_validator(mode="after")
    def _has_weights(self) -> "ModelSettings":
        if self.weights is None and self.training is None:
            raise ValueError("wanted `weights:` or `training:` (or both), got neither")
        if self.is_file and self.sha256 is None:
            raise ValueError(f"wanted the sha256 of {self.weights}; `sha256sum` prints it")
        halves = [0.5, 0.5, 0.5]
        inception = self.architecture in ("inception_v3", "googlenet")
        if (
            inception
            and self.weights
            and not self.is_file
            and [self.mean, self.std] != [halves] * 2
        ):
            raise ValueError(f"{self.architecture}'s weights want mean and std of {halves}")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the weights are a local file."""
        return Path(str(self.weights)).suffix in (".safetensors", ".pt", ".pth")


class NoneSettings(Section):
    """Of no attack."""


class FgsmSettings(Section):
    """Of the fast gradient sign method."""

    eps: Share
    gains: Count
    target: Annotated[int, Field(ge=0)] | None


class PgdSettings(Section):
    """Of projected gradient descent."""

    eps: Share
    step: Share
    steps: Count
    random_start: bool
    early_stop: bool


class DlfuzzSettings(Section):
    """Of DLFuzz."""

    rivals: Count
    rival_weight: Annotated[float, Field(ge=0)]
    neurons: Annotated[int, Field(ge=0)]
    neuron_weight: Annotated[float, Field(ge=0)]
    strategies: Annotated[list[Literal[0, 1, 2, 3]], Field(min_length=1)]
    threshold: Share
    step: Positive
    iterations: Count
    max_steps: Count
    norm_limit: Positive
    min_gain: Share | None
    tables: Literal["per_seed", "sequential"]
    differs_from: Literal["clean", "parent"]


class OnePixelSettings(Section):
    """Of the one-pixel attack."""

    pixels: Literal[1, 3, 5]
    population: Annotated[int, Field(ge=5)]
    generations: Annotated[int, Field(ge=0)]
    mutation: Annotated[
        list[Annotated[float, Field(ge=0, le=2)]], Field(min_length=2, max_length=2)
    ]
    recombination: Share
    bounds: Annotated[list[Finite], Field(min_length=2, max_length=2)]
    target: Annotated[int, Field(ge=0)] | None

    @model_validator(mode="after")
    def _rises(self) -> "OnePixelSettings":
        if self.mutation[0] > self.mutation[1]:
            raise ValueError(f"mutation: wanted a range that does not fall, got {self.mutation}")
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: wanted a range that rises, got {self.bounds}")
        return self


class Attacks(Section):
    """The settings of each attack, by its file's name in lib/camdrift/attacks."""

    none: NoneSettings | None = None
    fgsm: FgsmSettings | None = None
    pgd: PgdSettings | None = None
    dlfuzz: DlfuzzSettings | None = None
    one_pixel: OnePixelSettings | None = None


class Protocol(Section):
    """How the experiment is done and read, switch by switch; see params.yaml."""

    ladder: Literal["exact", "accumulating"]
    quantise: Literal["none", "round", "floor"]
    noise: Literal["matched", "with_negated_attack"]
    similarity: Literal["raw", "jet_rgb"]
    score: Literal["logits", "softmax_for_originals"]
    target: Literal["seed_class", "own_top1"]
    threshold: Literal["held_out_quantile", "layer_median", "global_mean"]

    @property
    def recipe(self) -> str:
        """The switches that decide the pixels of changed images, as one word."""
        return f"{self.ladder}-{self.quantise}-{self.noise}"

    @property
    def reading(self) -> str:
        """The switches that decide the similarity of a map to its clean twin, as one word."""
        return f"{self.recipe}-{self.score}-{self.similarity}"


def protocols(content: dict[str, dict[str, str]]) -> dict[str, Protocol]:
    """Returns the protocols of params.yaml, each `corrected` with its own switches set."""
    corrected = content.get("corrected", {})
    return {name: Protocol.model_validate(corrected | own) for name, own in content.items()}


class Cell(Section):
    """One experiment."""

    study: Name
    set: Name
    model: Name
    source: Name
    attack: Name
    label: Literal["predicted", "given"]
    ladder: Annotated[list[Positive], Field(min_length=1)]
    protocols: Annotated[list[Name], Field(min_length=1)]
    detect: list[Positive]
    adaptive: bool
    override: dict[str, Any]

    @model_validator(mode="after")
    def _has_whole(self) -> "Cell":
        if sorted(set(self.ladder)) != self.ladder:
            raise ValueError(f"wanted a ladder that rises, got {self.ladder}")
        if 1.0 not in self.ladder:
            raise ValueError(f"wanted a ladder that holds 1 (the attack itself), got {self.ladder}")
        if self.detect != [strength for strength in self.ladder if strength in self.detect]:
            raise ValueError(
                f"wanted detect: strengths of the ladder {self.ladder}, rising, got {self.detect}"
            )
        if (self.adaptive or self.detect) and 1.0 not in self.detect:
            raise ValueError(f"wanted detect: to hold 1 (the attack itself), got {self.detect}")
        return self


class NoiseSettings(Section):
    """The noise that attacks are compared with."""

    draws: Annotated[int, Field(ge=2)]
    scaling: Literal["after_clipping", "unclipped"]
    raise_by: Annotated[float, Field(gt=1, le=4)]
    raise_to: Annotated[float, Field(ge=1, allow_inf_nan=False)]


class CamSettings(Section):
    """The maps."""

    examples: Count


class ScoreSettings(Section):
    """The scores."""

    unrelated: Count


class CoverageSettings(Section):
    """Neuron coverage."""

    threshold: Share


class DetectionShares(Section):
    """Shares of a cell's images that detectors calibrate, choose and are tested on."""

    calibrate: Share
    choose: Share
    test: Share

    @model_validator(mode="after")
    def _whole(self) -> "DetectionShares":
        parts = [self.calibrate, self.choose, self.test]
        if abs(sum(parts) - 1) > 1e-9 or min(parts) == 0:
            raise ValueError(f"wanted shares above 0 that add up to 1, got {parts}")
        return self


Layer = int  # counted from 1, or from the end if negative


class Descent(Section):
    """An attack by steps: largest change of a pixel value, size and number of the steps."""

    eps: Share
    step: Share
    steps: Count


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
        """Returns the place of a layer in the list of maps."""
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


class AttackedImages(Section):
    """The most images attacked of each split."""

    train: Count
    test: Count


class UmapSettings(Section):
    """Of the map of signatures."""

    neighbours: Annotated[int, Field(ge=2)]
    min_dist: Annotated[float, Field(ge=0, le=1)]


class Hardening(Section):
    """A clear model, models retrained from it, and signatures of images."""

    title: str
    set: Name
    model: Name
    attacked: AttackedImages
    fgsm: dict[str, Any]
    one_pixel: dict[str, Any]
    larger: Annotated[float, Field(gt=1)]
    training: Training
    adversary: Descent
    umap: UmapSettings
    agreement: Count
    window: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _is_odd(self) -> "Hardening":
        if self.window % 2 == 0:
            raise ValueError(f"window: wanted an odd number of px, got {self.window}")
        return self


EXTENDING = ("fgsm", "one_pixel")  # attacks whose successes extend the training set
HARDENED = ("fgsm", "one_pixel", "pgd")  # kinds of models that a hardening makes


def hardened(hardening: str, kind: str) -> str:
    """Returns the name of a model that a hardening makes, a kind of `HARDENED`."""
    return f"{hardening}_{kind}"


class StatisticsSettings(Section):
    """Intervals, tests and flags."""

    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    quantile: Annotated[float, Field(gt=0, lt=0.5)]
    folds: Annotated[int, Field(ge=2)]


class FlagSettings(Section):
    """From where on a number is flagged."""

    empty_share: Share
    minimum_successes: Count
    minimum_sources: Count
    zero_gradients: Share
    clipped_only: Share
    noise_flips: Share
    size_difference: Share


class Study(Section):
    """A named group of cells with a report of its own."""

    title: str
    headline: Name


class Settings(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    micro_batch: Annotated[int, Field(ge=1, le=4096)]
    sets: dict[Name, ImageSetSettings]
    models: dict[Name, ModelSettings]
    attacks: Attacks
    noise: NoiseSettings
    protocols: dict[Name, dict[str, Any]]
    cams: CamSettings
    scores: ScoreSettings
    coverage: CoverageSettings
    detection: DetectionSettings
    statistics: StatisticsSettings
    flags: FlagSettings
    studies: dict[Name, Study]
    cells: dict[Name, Cell]
    hardenings: dict[Name, Hardening]
    presets: dict[Name, "Preset"] = {}

    @field_validator("protocols")
    @classmethod
    def _has_all_switches(cls, content: dict[str, Any]) -> dict[str, Any]:
        if "corrected" not in content:
            raise ValueError("wanted a protocol 'corrected', from which the others differ")
        faults = []
        for name, own in content.items():
            try:
                Protocol.model_validate(content["corrected"] | own)
            except ValidationError as fault:
                faults += lines_of(fault, name)
        if faults:
            raise ValueError("\n".join(faults))
        return content

    @model_validator(mode="after")
    def _refers(self) -> "Settings":
        faults = _references(self, self)
        for name, preset in self.presets.items():
            faults += [f"presets.{name}.{fault}" for fault in _references(preset, self)]
        if faults:
            raise ValueError("\n".join(faults))
        return self


class Preset(Section):
    """Another choice of what is built, see README.

    needs: what it takes from elsewhere. override: other settings, by their path in params.yaml.
    """

    needs: dict[Literal["DATA", "WEIGHTS"], str] = {}
    override: dict[str, Any] = {}
    sets: dict[Name, ImageSetSettings]
    models: dict[Name, ModelSettings]
    studies: dict[Name, Study]
    cells: dict[Name, Cell]
    hardenings: dict[Name, Hardening]


def _references(plan: "Settings | Preset", whole: Settings) -> list[str]:
    """Returns a line for each name that stands for nothing and each group that does not fit."""
    attacks = whole.attacks
    faults = []

    def known(place: str, kind: str, name: str, names: Any) -> bool:
        if name not in names:
            there = ", ".join(sorted(names)) or "none"
            faults.append(f"{place}: no {kind} '{name}' in params.yaml; there are: {there}")
        return name in names

    def fits(name: str, place: str, attack: str, override: dict[str, Any]) -> None:
        there = [key for key in Attacks.model_fields if getattr(attacks, key) is not None]
        if known(name, "attack", attack, there):
            try:
                attack_settings(attacks, attack, override)
            except ValidationError as fault:
                faults.extend(lines_of(fault, place))

    models = set(plan.models)
    models |= {hardened(key, kind) for key in plan.hardenings for kind in HARDENED}
    for name, model in plan.models.items():
        known(f"models.{name}.set", "set", model.set, plan.sets)
        if name in {hardened(key, kind) for key in plan.hardenings for kind in HARDENED}:
            faults.append(f"models.{name}: a hardening makes a model of this name, take another")
    for name, cell in plan.cells.items():
        place = f"cells.{name}"
        known(f"{place}.study", "study", cell.study, plan.studies)
        known(f"{place}.set", "set", cell.set, plan.sets)
        for role in ("model", "source"):
            known(f"{place}.{role}", "model", getattr(cell, role), models)
        for protocol in cell.protocols:
            known(f"{place}.protocols", "protocol", protocol, whole.protocols)
        fits(f"{place}.attack", f"{place}.override", cell.attack, cell.override)
    for name, hardening in plan.hardenings.items():
        place = f"hardenings.{name}"
        known(f"{place}.set", "set", hardening.set, plan.sets)
        known(f"{place}.model", "model", hardening.model, plan.models)
        if name in plan.studies:
            faults.append(f"{place}: a study has this name, and both own data/results/{name}")
        for attack in ("fgsm", "one_pixel"):
            fits(f"{place}.{attack}", f"{place}.{attack}", attack, getattr(hardening, attack))
    for name, study in plan.studies.items():
        members = [key for key, cell in plan.cells.items() if cell.study == name]
        known(f"studies.{name}.headline", "cell", study.headline, members)
    return faults


def attack_settings(attacks: Attacks, attack: str, override: dict[str, Any]) -> dict[str, Any]:
    """Returns an attack's settings: those under `attacks:`, overridden by a cell's own."""
    common = getattr(attacks, attack)
    return type(common).model_validate(common.model_dump() | override).model_dump()


def lines_of(fault: ValidationError, place: str) -> list[str]:
    """Returns a line for each error of pydantic: where, what was wanted, what came."""
    lines = []
    for error in fault.errors():
        parts = [str(part) for part in error["loc"] if str(part) not in _KINDS]
        where = ".".join([place, *parts] if place else parts)
        if error["type"] == "missing":
            lines.append(f"{where}: wanted, but not there")
        elif error["type"] == "value_error":
            text = str(error["ctx"]["error"])
            lines += [f"{where}: {line}" if where else line for line in text.splitlines()]
        elif error["type"] == "string_pattern_mismatch" and "[key]" in parts:
            where = where.removesuffix(".[key]")
            lines.append(f"{where}: wanted a name of a-z, 0-9 and _ only")
        else:
            lines.append(f"{where}: {error['msg'].lower()}, got {error['input']!r}")
    return lines


_KINDS = {"photos", "digits", "folder", "torchvision"}

"""params.yaml as pydantic models: every key, range and cross-reference."""

from camdrift.settings.attacks import Descent
from camdrift.settings.cells import (
    CamSettings,
    Cell,
    CoverageSettings,
    FlagSettings,
    NoiseSettings,
    Protocol,
    ScoreSettings,
    StatisticsSettings,
    protocols,
)
from camdrift.settings.detection import DetectionSettings
from camdrift.settings.models import ModelSettings, Training
from camdrift.settings.retrainings import (
    ATTACKING,
    EXTENDING,
    RETRAINED,
    RETRAINED_8BIT,
    Retraining,
    SignatureSettings,
    retrained_model,
)
from camdrift.settings.section import SettingsError, lines_of
from camdrift.settings.sets import ImageSetSettings
from camdrift.settings.studies import (
    CHAKRABORTY,
    KLAWIKOWSKA,
    PAPERS,
    RENKHOFF,
    TAN,
    ZHANG,
    DetectorStudy,
    LayerStudy,
    ManipulationStudy,
    SignatureStudy,
    Study,
    TransferStudy,
    owners,
)
from camdrift.settings.transfers import MEAN, RANGES, Source, Target
from camdrift.settings.whole import Settings

__all__ = [
    "ATTACKING",
    "CHAKRABORTY",
    "CamSettings",
    "Cell",
    "CoverageSettings",
    "Descent",
    "DetectionSettings",
    "DetectorStudy",
    "EXTENDING",
    "FlagSettings",
    "RETRAINED",
    "RETRAINED_8BIT",
    "ImageSetSettings",
    "KLAWIKOWSKA",
    "LayerStudy",
    "MEAN",
    "ManipulationStudy",
    "ModelSettings",
    "NoiseSettings",
    "PAPERS",
    "Protocol",
    "RANGES",
    "RENKHOFF",
    "Retraining",
    "ScoreSettings",
    "Settings",
    "SettingsError",
    "SignatureSettings",
    "SignatureStudy",
    "Source",
    "StatisticsSettings",
    "Study",
    "TAN",
    "Target",
    "Training",
    "TransferStudy",
    "ZHANG",
    "retrained_model",
    "lines_of",
    "owners",
    "protocols",
]

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
    Study,
    protocols,
)
from camdrift.settings.detection import DetectionSettings
from camdrift.settings.generalisation import MEAN, RANGES, Generalisation, Source, Target
from camdrift.settings.hardening import ATTACKING, EXTENDING, HARDENED, Hardening, hardened
from camdrift.settings.models import ModelSettings, Training
from camdrift.settings.section import SettingsError, lines_of
from camdrift.settings.sets import ImageSetSettings
from camdrift.settings.whole import Settings

__all__ = [
    "ATTACKING",
    "CamSettings",
    "Cell",
    "CoverageSettings",
    "Descent",
    "DetectionSettings",
    "EXTENDING",
    "FlagSettings",
    "Generalisation",
    "HARDENED",
    "Hardening",
    "ImageSetSettings",
    "ModelSettings",
    "NoiseSettings",
    "Protocol",
    "MEAN",
    "RANGES",
    "ScoreSettings",
    "Settings",
    "SettingsError",
    "StatisticsSettings",
    "Source",
    "Study",
    "Target",
    "Training",
    "hardened",
    "lines_of",
    "protocols",
]

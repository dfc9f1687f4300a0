"""Checks of params.yaml against the library: names that stand for a file of one of its packages."""

from camdrift import attacks, scores
from camdrift.detectors import families
from camdrift.explain import methods
from camdrift.perturbations import controls
from camdrift.settings import Settings, SettingsError


def everything(settings: Settings) -> None:
    """Checks what settings name in the library.

    Raises:
        SettingsError: something is not there, or its settings are wrong; a line for each fault,
            with where, what was wanted, what came, and which there are.
    """
    faults = attacks.faults(settings)
    faults += [f"cams.methods: {fault}" for fault in methods.check(settings.cams.methods)]
    faults += [f"noise.controls: {fault}" for fault in controls.check(settings.noise.controls)]
    for name, retraining in settings.retrainings.items():
        place = f"retrainings.{name}.controls"
        faults += [f"{place}: {fault}" for fault in controls.check(retraining.controls)]
    faults += [f"scores.beside: {fault}" for fault in scores.check(settings.scores.beside)]
    faults += families.check(settings.detection.detectors)
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise SettingsError(f"params.yaml is not valid:\n{lines}")

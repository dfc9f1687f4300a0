"""Checks of params.yaml against the library: names of its files, and networks on their images."""

from camdrift import attacks, scores
from camdrift.detectors import families
from camdrift.explain import methods
from camdrift.models import architectures
from camdrift.perturbations import controls
from camdrift.settings import Settings, SettingsError, imports


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
    faults += _networks(settings)
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise SettingsError(f"params.yaml is not valid:\n{lines}")


def _networks(settings: Settings) -> list[str]:
    """Returns a line for each network of torchvision or timm that does not run on its images.

    It is built without its weights and called once. Users' own functions are called by the stage
    that trains, as they may take long, or read files; here, their module is looked for.
    """
    faults = []
    for name, model in settings.models.items():
        if architectures.is_own(model.architecture):
            if fault := imports.unavailable(model.architecture):
                faults.append(f"models.{name}.architecture: {fault}")
            continue
        facts = model.model_dump(include={"architecture", "width", "head", "arguments"})
        try:
            architectures.build(
                **facts,
                classes=model.classes or 2,
                size=model.size or settings.sets[model.set].size,
                channels=model.channels,
                initialised=False,
            )
        except architectures.RefusedError as refusal:
            faults.append(f"models.{name}: {refusal}")
    return faults

"""Old keys of params.yaml and what they are called now, for the messages of those who upgrade."""

# By their path; `*` stands for any name. Of 0.1, whose presets stood in params.yaml.
RENAMED = {
    "presets": "a file of its own for each preset, see stages/presets",
    "detection.variance": "detection.detectors.behaviour.variance and, with the same value, "
    "detection.detectors.residual.variance",
    "detection.copies": "detection.detectors.behaviour.copies",
    "detection.probe": "detection.detectors.behaviour.probe",
    "detection.layer": "detection.detectors.noisecam.layer",
    "detection.brightness": "detection.detectors.noisecam.brightness",
    "detection.radius": "detection.detectors.noisecam.radius",
    "detection.neighbours": "detection.detectors.noisecam.neighbours",
    "detection.clusters": "detection.detectors.noisecam.clusters",
    "detection.bits": "detection.detectors.squeezing.bits",
    "detection.window": "detection.detectors.squeezing.window",
}


def renamed(place: str) -> str | None:
    """Returns what stands today for an old key, None where a key never was one.

    Args:
        place: path of the key, as `cells.fgsm.ladder`.
    """
    parts = place.split(".")
    for old, new in RENAMED.items():
        wanted = old.split(".")
        if len(wanted) == len(parts) and all(
            w in ("*", p) for w, p in zip(wanted, parts, strict=True)
        ):
            return new
    return None

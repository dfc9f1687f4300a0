"""Old keys of params.yaml and their replacements, for those who upgrade."""

from collections.abc import Iterator
from typing import Any

# By their path; `*` stands for any name.
RENAMED = {
    "presets": "each is a file of its own, see stages/presets",
    "cells.*.ladder": "strengths",
    "protocols.*.ladder": "strengths",
    "hardenings": "retrainings, each with a `study` of paper klawikowska2020, and signatures",
    "generalisations": "studies of paper chakraborty2022",
    "generalisations.*.carried": "transferred",
    "sources.*.generalisation": "study",
    "targets.*.generalisation": "study",
    "retrainings.*.title": "studies.*.title",
    "retrainings.*.umap": "signatures.umap",
    "retrainings.*.agreement": "signatures.agreement",
    "retrainings.*.window": "signatures.window",
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


def lines(content: dict[str, Any]) -> list[str]:
    """Returns a line for each key of a params.yaml that has a new name."""
    return [
        f"{place}: no longer a key; now: {new}"
        for old, new in RENAMED.items()
        for place in _places(content, old.split("."))
    ]


def _places(tree: Any, parts: list[str]) -> Iterator[str]:
    """Yields the paths in a tree that a pattern matches."""
    if not isinstance(tree, dict):
        return
    first, *rest = parts
    for key in list(tree) if first == "*" else [first]:
        if key not in tree:
            continue
        if not rest:
            yield str(key)
        for place in _places(tree[key], rest) if rest else ():
            yield f"{key}.{place}"

"""The judges of the claims on attacks that aim at the maps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from camdrift.analysis import flags, statistics
from camdrift.analysis.evidence import Evidence
from camdrift.analysis.statistics import Estimate, Resampler
from camdrift.papers.findings import NOT_RUN, Finding, nothing, verdict_of_interval
from camdrift.pipeline import randomness
from camdrift.storage import ADVERSARIAL, NOISE, OWN


@dataclass(frozen=True)
class Measured:
    """A number for each image and layer.

    evidence: that it is measured on.
    images: rows of `Attacked.images`.
    values: (images, layers), NaN where a map is empty.
    decided: bool (layers,), which layers have few enough empty maps.
    """

    evidence: Evidence
    images: pd.DataFrame
    values: np.ndarray
    decided: np.ndarray

    def estimate(self, columns: np.ndarray) -> Estimate:
        """Returns the means of columns with their intervals, resampled by source."""
        evidence = self.evidence
        rng = randomness.generator(evidence.seed, "claims", evidence.results.name)
        sources = self.images["source"].to_numpy()
        draws = Resampler.draw(sources, resamples=evidence.settings.resamples, rng=rng)
        return draws.estimate(columns, confidence=evidence.settings.confidence)


def kept(evidence: Evidence, other: Evidence | None) -> Measured:
    """Returns whether an image is flipped and its map as similar as under its own noise, or more.

    1 or 0, or NaN where the image is flipped and one of its two maps is empty. `other` is not used.
    """
    flips = evidence.images["success"].to_numpy()
    attack, noise = (_similarity(evidence, variant) for variant in (ADVERSARIAL, NOISE))
    unknown = flips[:, None] & np.isnan(attack - noise)
    values = np.where(unknown, np.nan, flips[:, None] & (attack >= noise))
    return Measured(evidence, evidence.images, values, _decided(evidence, values[flips]))


def moved(evidence: Evidence, other: Evidence | None) -> Measured:
    """Returns how much further maps drift than under another attack, on images not flipped.

    Of the images that this attack does not flip; none if the other is `unlike` it.
    """
    stays = ~evidence.images["success"].to_numpy()
    values = np.empty((0, len(evidence.layers)))
    if other is None or unlike(evidence, other):
        return Measured(evidence, evidence.images[:0], values, _decided(evidence, values))
    same = other.images["image"].isin(evidence.images["image"]).to_numpy()
    other = replace(other, protocol=evidence.protocol, of=same)
    theirs, mine = (_similarity(each, ADVERSARIAL)[stays] for each in (other, evidence))
    values = theirs - mine
    return Measured(evidence, evidence.images[stays], values, _decided(evidence, values))


def unlike(evidence: Evidence, other: Evidence | None) -> str:
    """Returns why a cell's drift cannot be compared with DLFuzz's in another cell, '' if it can."""
    wanted = "wanted an attack within the size of a cell of DLFuzz"
    if other is None:
        return f"{wanted}, got one that no other limits"
    mine, cell = evidence.results.cell, other.results.cell
    if cell.attack != "dlfuzz":
        return f"{wanted}, got '{other.results.name}', which is of {cell.attack}"
    if cell.model != mine.model:
        return f"wanted a cell of DLFuzz on model '{mine.model}', got one on '{cell.model}'"
    if evidence.protocol.reading not in set(other.results.scores["reading"]):
        return f"'{other.results.name}' has no maps of the protocol"
    return ""


def _decided(evidence: Evidence, values: np.ndarray) -> np.ndarray:
    """Returns the decided layers, see `Evidence.decided`; without images there are none."""
    return evidence.decided(values) if len(values) else np.zeros(values.shape[1], dtype=bool)


def _similarity(evidence: Evidence, variant: str) -> np.ndarray:
    """Returns the similarity of all images at strength 1: (images, layers)."""
    flips = evidence.images["success"].to_numpy()
    values = np.full((len(flips), len(evidence.layers)), np.nan)
    for success in set(flips.tolist()):
        similarity = evidence.similarity(variant, success=success)
        values[flips == success] = similarity[:, evidence.rung(1.0)]
    return values


def flips_unseen(evidence: Evidence, other: Evidence | None) -> Finding:
    """Judges E1: more than half of all images flip, and their last map is as under their noise.

    A share of 0 or 1 has the interval of as many draws as there are sources.
    """
    rows = kept(evidence, other)
    last, flips = evidence.layers[-1], rows.images["success"]
    if not flips.any():
        return nothing("no image is flipped")
    if not rows.decided[-1]:
        return nothing(f"too many empty maps in layer {last}")
    shares = rows.estimate(rows.values)
    mean, low, high = (float(part[-1]) for part in (shares.mean, shares.low, shares.high))
    if mean in (0, 1):
        count = rows.images["source"].nunique()
        low, high = statistics.far_ends(mean, count, confidence=evidence.settings.confidence)
    inside = shares.mean[rows.decided]
    detail = (
        f"layer {last}; flips {flips.mean():.0%} of {len(flips)} images; over {len(inside)} layers "
        f"{inside.min():.0%} to {inside.max():.0%}"
    )
    return Finding(mean, low, high, verdict_of_interval(low, high, above=0.5), detail, len(flips))


def drifts_unflipped(evidence: Evidence, other: Evidence | None) -> Finding:
    """Judges E2: maps of images that keep their class drift further than under DLFuzz."""
    reason = unlike(evidence, other)
    if other is None or reason:
        return nothing(reason, NOT_RUN)
    rows = moved(evidence, other)
    if not len(rows.values):
        return nothing("no image keeps its class")
    if not rows.decided.any():
        return nothing("no layer is decided")
    values = rows.values[:, rows.decided]
    mean = rows.estimate(statistics.row_means(values))
    value, low, high = (float(part[0]) for part in (mean.mean, mean.low, mean.high))
    layers = np.nanmean(values, axis=0)
    theirs = other.images.set_index("image").loc[rows.images["image"]]
    size = rows.images["l2"].sum() / theirs["l2"].sum()
    detail = (
        f"{len(values)} of {len(evidence.images)} images keep their class, of which "
        f"'{other.results.name}' flips {theirs['success'].mean():.0%}; {size:.0%} of its L2 norm; "
        f"further in {int((layers > 0).sum())} of {len(layers)} layers"
    )
    return Finding(value, low, high, verdict_of_interval(low, high, above=0), detail, len(values))


@dataclass(frozen=True)
class Trial:
    """The claim that an attack decides.

    measure, judge: functions of the evidence of a cell, and of that of the cell within whose size
        its attack is, or None.
    target: the class that maps explain in the verdict, None for that of the protocol.
    ignores: flags of the cell that do not touch the claim.
    compares: whether the claim rests on the cell within whose size the attack is, too.
    """

    claim: str
    measure: Callable[[Evidence, Evidence | None], Measured]
    judge: Callable[[Evidence, Evidence | None], Finding]
    target: str | None = None
    ignores: tuple[str, ...] = ()
    compares: bool = False

    def read(self, evidence: Evidence) -> Evidence:
        """Returns the evidence with maps of the class that the claim is judged by."""
        if self.target is None:
            return evidence
        protocol = evidence.protocol.model_copy(update={"target": self.target})
        return replace(evidence, protocol=protocol)


# Map-keeping keeps the maps of the class that it leads to, which a viewer of the image would see.
TRIALS = {
    "map_keeping": Trial("E1", kept, flips_unseen, OWN, ignores=(flags.FEW_OTHERS,)),
    "map_moving": Trial(
        "E2", moved, drifts_unflipped, ignores=(*flags.OF_FLIPS, *flags.OF_NOISE), compares=True
    ),
}

"""An attack that knows the detector: it must flip the class and look benign at once.

Selective projected gradient descent (Bryniarski et al. 2022, "Evading Adversarial Example
Detection Defenses with Orthogonal Projected Gradient Descent", section 4.1): a step follows the
classifier's loss while the class stands, and the detector's score once it has flipped, so there
is no weight between the two to tune. L-infinity. A detector's score that has no gradient is
replaced by a surrogate that has; each says so.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from camdrift.detectors import behaviour, confidence, noisecam, profile
from camdrift.detectors.rules import (
    BehaviourDeviation,
    Detector,
    Logistic,
    Mahalanobis,
    NoiseCam,
    Single,
)
from camdrift.explain.methods import grad_cam
from camdrift.models.model import Model
from camdrift.settings import DetectionSettings

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]  # a micro-batch -> its logits and scores (n,)


def objective(detector: Detector, model: Model, chosen: DetectionSettings) -> Objective:
    """Returns what the attack lowers: a fitted detector's score, differentiable by the pixels."""
    kinds: dict[type, Callable[..., Objective]] = {
        BehaviourDeviation: _behaviour, NoiseCam: _noise_cam, Logistic: _logistic,
        Mahalanobis: _mahalanobis, Single: _single,
    }  # fmt: skip
    return kinds[type(detector)](detector, model, chosen)


def _behaviour(detector: BehaviourDeviation, model: Model, chosen: DetectionSettings) -> Objective:
    """Drift of the map from the cleaned image's; the surrogate leaves the copies out.

    The components that cleaning keeps are held fixed in a step.
    """

    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            removed = batch - behaviour.cleaned(batch, variance=chosen.variance)
        (logits, own), (_, base) = _map(model, chosen, batch), _map(model, chosen, batch - removed)
        return logits, 1 - _cosine(own, base).to(batch.device)

    return score


def _map(model: Model, chosen: DetectionSettings, batch: Tensor) -> tuple[Tensor, Tensor]:
    logits, activations = model.activations(batch)
    tensor = activations[chosen.place("probe")]
    (gradient,) = torch.autograd.grad(_top(logits).sum(), tensor, create_graph=True)
    return logits, grad_cam.maps(tensor, gradient)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return F.cosine_similarity(first.flatten(1), second.flatten(1), dim=1)


def _noise_cam(detector: NoiseCam, model: Model, chosen: DetectionSettings) -> Objective:
    """Length of the edge of the bright area: clusters have no gradient, their outlines have."""
    threshold = chosen.brightness[detector.place_]

    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits, activations = model.activations(batch)
        tensor = activations[chosen.place("layer")]
        reading = detector.reading
        found = noisecam.raw(logits, tensor, readings=[reading], create_graph=True)[reading]
        bright = (20 * (noisecam.normalised(found, size=model.size) - threshold)).sigmoid()
        down, across = bright.diff(dim=1).abs(), bright.diff(dim=2).abs()
        return logits, (down.mean((1, 2)) + across.mean((1, 2))).float().to(batch.device)

    return score


def _profiles(model: Model, batch: Tensor) -> tuple[Tensor, Tensor]:
    logits, activations = model.activations(batch)
    gradients = torch.autograd.grad(_top(logits).sum(), activations, create_graph=True)
    pairs = zip(activations, gradients, strict=True)
    found = torch.stack([profile.of_layer(a, g) for a, g in pairs], dim=1)
    return logits, found.flatten(1).double().to(batch.device)


def _logistic(detector: Logistic, model: Model, chosen: DetectionSettings) -> Objective:
    """The log odds themselves."""
    scaler, linear = (step for _, step in detector.model_.steps)
    mean, scale, weights = map(torch.from_numpy, (scaler.mean_, scaler.scale_, linear.coef_[0]))

    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits, profiles = _profiles(model, batch)
        return logits, ((profiles - mean) / scale @ weights + linear.intercept_[0]).float()

    return score


def _mahalanobis(detector: Mahalanobis, model: Model, chosen: DetectionSettings) -> Objective:
    """The squared distance itself."""
    mean, scale = map(torch.from_numpy, (detector.scaler_.mean_, detector.scaler_.scale_))
    centre = torch.from_numpy(detector.covariance_.location_)
    precision = torch.from_numpy(detector.covariance_.get_precision())

    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits, profiles = _profiles(model, batch)
        off = (profiles - mean) / scale - centre
        return logits, (off @ precision * off).sum(1).float()

    return score


def _single(detector: Single, model: Model, chosen: DetectionSettings) -> Objective:
    """The feature itself; rounding to fewer levels passes its gradient straight through.

    As do the components that cleaning keeps, which are held fixed in a step.
    """

    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(batch)
        chances = logits.softmax(1)
        if detector.feature == "probability":
            return logits, -chances.amax(1)
        if detector.feature == "energy":
            return logits, -logits.logsumexp(1)
        if detector.feature == "residual":
            with torch.no_grad():
                clean = behaviour.cleaned(batch, variance=chosen.variance)
            return logits, (batch - clean).flatten(1).norm(dim=1)
        rounded = batch + (confidence.fewer_levels(batch, bits=chosen.bits) - batch).detach()
        others = [rounded, confidence.median(batch, size=chosen.window)]
        distances = [(chances - model(other).softmax(1)).abs().sum(1) for other in others]
        return logits, torch.stack(distances).amax(0)

    return score


def _top(logits: Tensor) -> Tensor:
    return logits.gather(1, logits.argmax(1, keepdim=True))[:, 0]


def perturb(
    model: Model, pixels: Tensor, labels: Tensor, score: Objective | None, *,
    eps: float, step: float, steps: int,
) -> Tensor:  # fmt: skip
    """Returns attacked pixels (n, 3, h, w), in [0, 1].

    Of the iterates that flip the class the one with the lowest score, or else the last one. Without
    a score the attack does not know the detector: it climbs the classifier's loss to the end.

    Args:
        model: the model under attack.
        pixels: (n, 3, h, w), clean.
        labels: (n,), the classes to lead away from.
        score: of the detector, see `objective`, or None.
        eps: largest change of a pixel value.
        step: size of a step, in pixel values.
        steps: number of steps.
    """
    parts = []
    done = 0
    for batch, rows in model.batches(pixels):
        label = labels[done : done + rows]
        label = torch.cat([label, label[-1:].expand(len(batch) - rows)])
        found = _descend(batch, label, score or _blind(model), eps=eps, step=step, steps=steps)
        parts.append(found[:rows])
        done += rows
    return torch.cat(parts)


def _blind(model: Model) -> Objective:
    def score(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(batch)
        return logits, torch.full((len(batch),), torch.nan)

    return score


def _descend(
    clean: Tensor, labels: Tensor, score: Objective, *, eps: float, step: float, steps: int
) -> Tensor:
    current, best = clean, clean.clone()
    lowest = torch.full((len(clean),), torch.inf)
    for i in range(steps + 1):
        current = current.detach().requires_grad_()
        logits, scores = score(current)
        flipped = logits.argmax(1) != labels
        known = flipped & scores.isfinite()
        better = known & (scores.detach() < lowest)
        best[better] = current.detach()[better]
        lowest[better] = scores.detach()[better]
        if i == steps:
            break
        # Above, the class still stands: raise the loss. Below, it has flipped: lower the score.
        loss = F.cross_entropy(logits, labels, reduction="none")
        climbed = torch.where(known, -scores.nan_to_num(), loss).sum()
        (gradient,) = torch.autograd.grad(climbed, current)
        with torch.no_grad():
            moved = current + step * gradient.nan_to_num().sign()
            current = (moved - clean).clamp(-eps, eps).add(clean).clamp(0, 1)
    return torch.where(lowest.isinf().view(-1, 1, 1, 1), current.detach(), best)

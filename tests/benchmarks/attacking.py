"""FGSM and PGD against the libraries that have them, and DLFuzz against the published loop."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camdrift.attacks import dlfuzz, fgsm, map_moving, pgd
from camdrift.models import architectures, coverage
from camdrift.models.model import Model
from camdrift.pipeline.vision import torchvision  # the peers import torchvision, too
from races import Race

assert torchvision

WIDTH, CLASSES, HALVES = 0.25, 18, [0.5] * 3
EPS, STEP, STEPS = 0.03, 0.005, 10
FUZZ = {
    "rivals": 4, "rival_weight": 0.5, "neurons": 10, "neuron_weight": 0.5, "strategies": [1],
    "threshold": 0.25, "step": 0.5, "iterations": 1, "norm_limit": 0.02, "min_gain": None,
    "tables": "per_seed", "differs_from": "clean", "mutant": "last",
}  # fmt: skip


def races() -> Iterator[Race]:
    """Yields the races of the attacks by gradient, an attack and a place at a time."""
    for attack, scale in (("FGSM", 1), (f"PGD-{STEPS}", STEPS)):
        for size in (64, 112, 224):
            for batch in (1, 8, 32):
                cost = scale * batch * (size / 224) ** 2  # in gradients of an image of 224 px
                if cost <= 32:  # beyond, a race takes minutes
                    yield from _gradients(attack, size, batch, rounds=20 if cost < 5 else 5)
    for size, batch in ((64, 16), (112, 8), (224, 4)):
        yield _dlfuzz(size, batch, steps=5)
    for name, width, size, batch in (
        ("vgg16_bn", WIDTH, 64, 32), ("vgg16_bn", 1.0, 64, 8), ("resnet18", 1.0, 224, 8),
    ):  # fmt: skip
        yield _map_moving(name, width, size, batch)


def network(size: int) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(
        architecture="vgg16_bn", width=WIDTH, head="pooled", classes=CLASSES, size=size,
        initialised=True,
    )  # fmt: skip


def drawn(batch: int, size: int) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def identical(ours: Tensor, theirs: Tensor | np.ndarray) -> None:
    assert torch.equal(ours, torch.as_tensor(theirs))


def _gradients(attack: str, size: int, batch: int, *, rounds: int) -> Iterator[Race]:
    """Attacked images, bit by bit the same, of one model that all four call.

    None starts at random or stops early. Foolbox is asked for the images alone; ART judges them,
    too, in the same call.
    """
    model = Model(network(size), mean=HALVES, std=HALVES, size=size, micro_batch=batch)
    pixels = drawn(batch, size)
    labels = model(pixels).argmax(1)

    def ours() -> Tensor:
        if attack == "FGSM":
            result = fgsm.perturb(
                model, pixels, labels, generators=[], eps=EPS, gains=1, target=None
            )
        else:
            result = pgd.perturb(model, pixels, labels, generators=[], eps=EPS, step=STEP,
                               steps=STEPS, random_start=False, early_stop=False)  # fmt: skip
        return (pixels + result.pixels).clamp(0, 1)

    place = {"px": size, "batch": batch, "width": WIDTH}
    for name, peer in (("foolbox", _foolbox), ("torchattacks", _torchattacks), ("ART", _art)):
        theirs = peer(attack, model, pixels, labels)
        yield Race(f"{attack}, VGG-16", name, place, ours, theirs, identical, 0.95, rounds)


def _foolbox(attack: str, model: Model, pixels: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    import foolbox

    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    if attack == "FGSM":
        method = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    else:
        method = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=False)
    return lambda: method.run(theirs, pixels, labels, epsilon=EPS)


def _torchattacks(
    attack: str, model: Model, pixels: Tensor, labels: Tensor
) -> Callable[[], Tensor]:
    import torchattacks

    if attack == "FGSM":
        method = torchattacks.FGSM(model, eps=EPS)
    else:
        method = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=False)
    return lambda: method(pixels, labels)


def _art(attack: str, model: Model, pixels: Tensor, labels: Tensor) -> Callable[[], np.ndarray]:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    theirs = PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=tuple(pixels.shape[1:]),
        nb_classes=CLASSES, clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip
    options: dict[str, Any] = {"eps": EPS, "batch_size": len(pixels)}
    if attack == "FGSM":
        method = FastGradientMethod(theirs, **options)
    else:
        method = ProjectedGradientDescentPyTorch(
            theirs, **options, eps_step=STEP, max_iter=STEPS, verbose=False
        )
    arrays = pixels.numpy(), labels.numpy()
    return lambda: method.generate(*arrays)


def _dlfuzz(size: int, batch: int, steps: int) -> Race:
    """With the study's settings, but for fewer steps.

    The last layer's bias is set so that classes nearly tie, and images flip.
    Convs of another batch size round otherwise, which can move a value across a kink or a neuron
    across the threshold, from where two mutants part: a few may, but in no image's success.
    """
    pixels = drawn(batch, size)
    net = network(size)
    with torch.no_grad():
        net.classifier.bias -= net.eval()((pixels - 0.5) / 0.5).mean(0)
    model, single = (
        Model(net, mean=HALVES, std=HALVES, size=size, micro_batch=count) for count in (batch, 1)
    )

    def generators() -> list[np.random.Generator]:
        return [np.random.default_rng(i) for i in range(batch)]

    def ours() -> Tensor:
        unused = torch.zeros(batch, dtype=torch.int64)
        return dlfuzz.perturb(
            model, pixels, unused, generators=generators(), max_steps=steps, **FUZZ
        ).pixels

    def theirs() -> Tensor:
        pairs = zip(pixels, generators(), strict=True)
        return torch.stack([published(single, *pair, steps=steps) for pair in pairs])

    def same(batched: Tensor, theirs: Tensor) -> None:
        apart = (batched - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
        assert (apart < 0.05).float().mean() >= 0.75, apart
        with torch.no_grad():
            clean, mine, other = (
                single(pixels + change).argmax(1) for change in (0, batched, theirs)
            )
        assert torch.equal(mine != clean, other != clean)

    return Race("DLFuzz, VGG-16", "the published loop, an image and a purpose at a time",
                {"px": size, "images": batch, "steps": steps, "width": WIDTH},
                ours, theirs, same, 3.0, rounds=3)  # fmt: skip


def _map_moving(name: str, width: float, size: int, batch: int) -> Race:
    """As many steps of map-moving and of PGD: equal limits, other results, so a cost and no race.

    A step of map-moving is derived twice and looked at, as an image and in 8 bit.
    """
    torch.manual_seed(0)
    network = architectures.build(
        architecture=name, width=width, head="torchvision", classes=CLASSES, size=size,
        initialised=True,
    )  # fmt: skip
    model = Model(network, mean=HALVES, std=HALVES, size=size, micro_batch=batch)
    pixels = drawn(batch, size)
    labels = model(pixels).argmax(1)

    def moved() -> Tensor:
        generators = [np.random.default_rng(i) for i in range(batch)]
        return map_moving.perturb(
            model, pixels, labels, generators=generators, eps=EPS, step=1 / STEPS, steps=STEPS,
            beta=[10.0, 100.0], layers=None, tolerance=0.05, towards=None,
        ).pixels  # fmt: skip

    def attacked() -> Tensor:
        return pgd.perturb(
            model, pixels, labels, generators=[], eps=EPS, step=STEP, steps=STEPS,
            random_start=False, early_stop=False,
        ).pixels  # fmt: skip

    def within(ours: Tensor, theirs: Tensor) -> None:
        assert max(ours.abs().max(), theirs.abs().max()) <= EPS + 1e-6

    place = {"px": size, "batch": batch, "width": width}
    return Race(f"map-moving, {name}", "as many steps of PGD", place, moved, attacked, within,
                0.25, 3)  # fmt: skip


def published(model: Model, image: Tensor, generator: np.random.Generator, *, steps: int) -> Tensor:
    """Returns the last adversarial mutant's change, or the last mutant's: the public code's loop.

    Strategy 1. Each mutant is predicted and covered twice, as it is made and as it leaves the
    queue, its neurons' values are read in a pass of their own, and it is differentiated in another.
    The public code's count of neurons, one by one, and a graph compiled for every step are not
    timed: neurons of a layer are counted together.
    """
    table, values = np.zeros((2, len(coverage.spatial(model))))
    queue, mutants = [image], []
    clean = None

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        return model(x[None])[0].softmax(0)

    def layers(x: Tensor) -> list[Tensor]:
        logits, excitations = model.excitations(x[None])
        return [tensor[0] for tensor in (*excitations, logits.softmax(1))]

    @torch.no_grad()
    def scaled(x: Tensor) -> np.ndarray:
        shares = []
        for layer in layers(x):
            low, high = layer.min(), layer.max()
            share = (layer - low) / (high - low) if high > low else torch.zeros_like(layer)
            shares.append(share.mean((1, 2)) if share.dim() > 1 else share)
        return torch.cat(shares).numpy()

    while queue and len(mutants) < steps:
        mutant = queue.pop()
        order = predict(mutant).argsort(descending=True)
        clean = order[0] if clean is None else clean
        values += scaled(mutant)  # read for every strategy, used by one
        table += scaled(mutant) > FUZZ["threshold"]
        chances = table.max() - table if np.ptp(table) else np.ones_like(table)
        count = min(FUZZ["neurons"], np.count_nonzero(chances))
        picks = generator.choice(len(table), count, replace=False, p=chances / chances.sum())
        mutant = mutant.clone().requires_grad_()
        tensors = layers(mutant)
        starts = np.cumsum([0, *map(len, tensors)])
        objective = FUZZ["rival_weight"] * tensors[-1][order[1 : FUZZ["rivals"] + 1]].sum()
        objective = objective - tensors[-1][order[0]]
        for pick in picks:
            place = np.searchsorted(starts, pick, side="right") - 1
            neuron = tensors[place][pick - starts[place]].mean()
            objective = objective + FUZZ["neuron_weight"] * neuron
        (gradient,) = torch.autograd.grad(objective, mutant)
        gradient = gradient / 255
        step = gradient / (gradient.square().mean().sqrt() + 1e-5)
        mutant = mutant.detach() + FUZZ["step"] / 255 * step
        mutants.append((mutant, bool(predict(mutant).argmax() != clean)))
        table += scaled(mutant) > FUZZ["threshold"]
        if (mutant - image).norm() / (image - model.mean[0]).norm() < FUZZ["norm_limit"]:
            queue.append(mutant)
    adversarials = [mutant for mutant, adversarial in mutants if adversarial]
    return (adversarials or [mutant for mutant, _ in mutants])[-1] - image

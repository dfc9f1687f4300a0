"""Work: what each stage of a plan does, counted from the settings before anything runs.

Units are images in a kind of pass, see `pace`; pairs of maps in a score; queries in a search. Bytes
are of what a stage holds at once beyond what it imports, and of what it writes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from camdrift import attacks
from camdrift.detectors.families import Family, families
from camdrift.evaluation import experiment
from camdrift.explain import cam
from camdrift.ops import looks, timing
from camdrift.ops.looks import FLIPPED, Looks
from camdrift.ops.needs import Counted
from camdrift.ops.timing import Bench
from camdrift.papers.klawikowska2020 import inspection
from camdrift.perturbations import noise
from camdrift.settings import (
    ATTACKING,
    EXTENDING,
    HARDENED,
    Cell,
    Settings,
    Training,
    TransferStudy,
    hardened,
    protocols,
)

# What an attack that may end early does of its steps, and how far of its way noise is raised, are
# not known before; in the studies here it is 0.2 to 0.9.
EARLY = 0.6
# Arrays of all images that a stage holds at once, in float32: counted in the code of the stages.
ARRAYS = {"attack": 7, "noise": 50, "cam": 14, "coverage": 12, "detect": 10, "sign": 4, "carry": 40,
          "retrain": 8, "signatures": 8}  # fmt: skip
# Micro-batches of images that a stage holds at once, see its script; the others hold all images.
SHARD = {"attack": 4, "noise": 4, "cam": 1, "coverage": 4, "score": 1, "detect": 1}
FLOAT, HALF = 4, 2  # bytes of a value
AT_ONCE = 128  # images that `training.accuracy` passes


@dataclass(frozen=True)
class Pass:
    """Units of one kind of pass of a network ('' is none), and what measures the seconds of one."""

    network: str
    kind: str
    units: float
    seconds: Callable[[], float]


@dataclass(frozen=True)
class Task:
    """What a stage does.

    stage: as DVC names it.
    base: what it takes without any work: 'model' or 'table', see `plan`, or of its group.
    passes: its work.
    held: bytes at once, beyond the base.
    written: bytes of its files.
    """

    stage: str
    base: str
    passes: tuple[Pass, ...]
    held: float
    written: float

    def units(self) -> dict[str, float]:
        """Returns units by kind of pass."""
        found: dict[str, float] = {}
        for done in self.passes:
            found[done.kind] = found.get(done.kind, 0) + done.units
        return found


class _Books:
    """A plan, its sets as they were counted, and a bench for each network that they want."""

    def __init__(self, plan: Settings, counts: Mapping[str, Counted]) -> None:
        self.plan = plan
        self.counts = counts
        self._benches: dict[tuple, Bench] = {}

    def bench(self, name: str) -> Bench:
        """Returns the bench of a model, also one that a retraining makes."""
        made = {hardened(key, kind): h.model for key, h in self.plan.retrainings.items()
                for kind in HARDENED}  # fmt: skip
        chosen = self.plan.models[made.get(name, name)]
        size, classes = self.plan.sets[chosen.set].size, self.counts[chosen.set].classes
        like = chosen.model_dump(include={"architecture", "width", "head", "classes", "size"})
        key = (*like.values(), size, classes)
        if key not in self._benches:
            self._benches[key] = timing.bench(
                name, chosen, classes=classes, side=size, plan=self.plan
            )
        return self._benches[key]

    def test(self, name: str) -> int:
        """Returns the number of a set's test images."""
        return self.counts[name].splits.get("test", 0)

    def full(self, images: float) -> float:
        """Returns images with the copies that fill the last micro-batch."""
        size = self.plan.micro_batch
        return np.ceil(images / size) * size

    def array(self, name: str, images: float) -> float:
        """Returns the bytes of a float32 array of images of a set."""
        return images * 3 * self.plan.sets[name].size ** 2 * FLOAT

    def pixels(self, stage: str, name: str, images: float) -> float:
        """Returns the bytes of images that a stage holds, see `ARRAYS`."""
        return ARRAYS[stage] * self.array(name, images * self.share(stage, images))

    def share(self, stage: str, images: float) -> float:
        """Returns the share of images that a stage holds at once, see `SHARD`."""
        if stage not in SHARD:
            return 1.0
        return min(1.0, SHARD[stage] * self.plan.micro_batch / max(1.0, images))

    def passing(self, at: Bench, *, backward: float = 1, images: float | None = None) -> float:
        """Returns the bytes of a network and of a micro-batch that passes it, to and fro."""
        there, again = at.held
        each = there + backward * again
        return at.weights + (self.plan.micro_batch if images is None else images) * each


def _pass(at: Bench, kind: str, units: float, work: Callable[[Bench], float]) -> Pass:
    return Pass(at.name, kind, units, partial(at.of, kind, work))


def _forward(at: Bench, images: float) -> Pass:
    return _pass(at, "forward", images, timing.forward)


def _gradient(at: Bench, images: float) -> Pass:
    return _pass(at, "gradient", images, timing.gradient)


def tasks(plan: Settings, counts: Mapping[str, Counted]) -> list[Task]:
    """Returns what each stage of a plan does, in the order of the pipeline.

    Raises:
        RefusedError: a model's network cannot be built.
    """
    books = _Books(plan, counts)
    found = [_fetch(books, name) for name in plan.sets]
    found += [_train(books, name) for name in plan.models]
    for name in plan.retrainings:
        found += _retraining(books, name)
    found += [_sign(books, name) for name in plan.sources]
    found += [_carry(books, name) for name in plan.targets]
    cells = [task for name in plan.cells for task in _cell(books, name)]
    groups = ("attack", "noise", "cam", "coverage", "score", "detect")
    found += sorted(cells, key=lambda task: groups.index(task.stage.partition("@")[0]))
    return found + [Task(f"report@{name}", "report", (), 0, 0) for name in plan.studies]


def _fetch(books: _Books, name: str) -> Task:
    of, chosen = books.counts[name], books.plan.sets[name]
    images = sum(of.splits.values())
    written = images * 3 * chosen.size**2
    # A torchvision set is read whole before it is split.
    held = 3 * written + (of.read * of.native if chosen.kind == "torchvision" else of.native)
    return Task(
        f"fetch@{name}",
        "table",
        (Pass("", f"image of {name}", of.read, lambda: of.seconds),),
        held,
        written,
    )


def _train(books: _Books, name: str) -> Task:
    chosen, at = books.plan.models[name], books.bench(name)
    splits = books.counts[chosen.set].splits
    passes = [_forward(at, splits.get("test", 0))]
    passes += _training(books, at, chosen.training, splits)
    held = _training_bytes(books, at, chosen.training, chosen.set)
    return Task(f"train@{name}", "model", tuple(passes), held, at.weights)


def _training(
    books: _Books, at: Bench, chosen: Training | None, splits: Mapping[str, float]
) -> list[Pass]:
    if chosen is None:
        return []
    images = splits.get("train", 0)
    steps = max(1, images // chosen.batch) * chosen.batch
    network = at.network  # made before it is timed
    work = partial(timing.train, network=network, chosen=chosen)
    key = f"train, {chosen.layers}, {chosen.batch}"
    return [
        Pass(at.name, "train", chosen.epochs * steps, partial(at.of, key, work)),
        _forward(at, chosen.epochs * splits.get("validation", 0)),
    ]


def _training_bytes(books: _Books, at: Bench, chosen: Training | None, name: str) -> float:
    """Returns what training holds: weights, their gradients, AdamW's two moments and the best."""
    there, again = at.held
    splits = books.counts[name].splits
    accuracy = AT_ONCE * there
    if chosen is None:
        return 2 * at.weights + accuracy + 2 * books.array(name, splits.get("test", 0))
    # Batch norm stands apart in training and keeps its own input; what lies before dense layers
    # that are trained alone keeps nothing.
    batch = chosen.batch * (4 * again if chosen.layers == "all" else there)
    images = splits.get("train", 0) + splits.get("validation", 0)
    return 5 * at.weights + max(batch, accuracy) + books.array(name, images)


def _attack(
    books: _Books, at: Bench, kind: str, settings: dict[str, Any], images: float
) -> list[Pass]:
    """Returns what an attack on a model does to images."""
    full = books.full(images)
    if kind == "fgsm":
        gains = settings["gains"] if settings["gains"] > 1 or settings["target"] is not None else 0
        return [_gradient(at, full), _forward(at, EARLY * gains * full)]
    if kind == "pgd":
        early = EARLY if settings["early_stop"] else 1
        return [_gradient(at, settings["steps"] * early * full)]
    if kind == "one_pixel":
        queries = settings["population"] * (settings["generations"] + 1) * images
        return [_pass(at, "query", queries, partial(timing.query, settings=settings))]
    if kind == "dlfuzz":
        work = partial(timing.fuzz, settings=settings)
        return [_pass(at, "fuzz", _mutants(at, settings) * full, work)]
    if kind == "none":
        return []
    # Nothing is known of its work but itself.
    work = partial(timing.attack, name=kind, settings=settings)
    return [_pass(at, f"attack {kind}", full, work)]


def _mutants(at: Bench, settings: dict[str, Any]) -> float:
    """Returns the looks that DLFuzz takes at an image.

    Steps of one length that stand at right angles: their sum reaches the limit of the norm after
    (limit / step) squared of them. Bundled images and real ones take 1.3 to 1.7 times as many.
    """
    spread = float((at.pixels - at.model.mean).square().mean().sqrt())
    reach = settings["norm_limit"] * spread * 255 / settings["step"]
    return 1 + min(settings["max_steps"], max(1.0, reach**2))


def _cell(books: _Books, name: str) -> list[Task]:
    plan, cell = books.plan, books.plan.cells[name]
    n, at, source = books.test(cell.set), books.bench(cell.model), books.bench(cell.source)
    full, array = books.full(n), books.array(cell.set, n)
    seen = looks.of_cell(cell, plan)
    steps, strengths = cell.attack == "dlfuzz", len(cell.strengths)
    settings = attacks.resolved(cell.attack, plan.attacks, cell.override)
    attacking = [
        _forward(at, 4 * full),
        _forward(source, full * (cell.label == "predicted")),
        _gradient(source, full),
        *_attack(books, source, cell.attack, settings, n),
    ]
    raised = (1 + EARLY * timing.rungs(plan)) * full * (cell.attack != "none")
    side = plan.sets[cell.set].size
    disturb = partial(timing.seconds, partial(timing.disturb, plan, cell, side))
    drawn = plan.noise.draws + len(noise.CONTROLS)
    first = tuple(plan.cams.methods[:1])
    sides = at.layers[["height", "width"]].clip(upper=books.plan.cams.max_side)
    maps = seen.maps * n * float(sides.prod(axis=1).sum()) * HALF
    explained = [
        _pass(at, f"explain {len(names)} for {1 + both}", count * n,
              partial(timing.explain, names=names, both=both))
        for names, counts in ((first, seen.plain), (tuple(plan.cams.methods), seen.central))
        for both, count in zip((False, True), counts, strict=True)
    ]  # fmt: skip

    def task(stage: str, base: str, passes: list[Pass], held: float, written: float) -> Task:
        worked = tuple(done for done in passes if done.units)
        return Task(f"{stage}@{name}", base, worked, held, written)

    def pixels(stage: str) -> float:
        return books.pixels(stage, cell.set, n)

    both = books.passing(at) + (books.passing(source) if cell.source != cell.model else 0)
    return [
        task("attack", "model", attacking, both + pixels("attack"), (1 + steps) * array),
        task("noise", "model",
             [Pass("", f"noise of {name}", n, cache(disturb)), _forward(at, raised)],
             books.passing(at, backward=0) + pixels("noise"), drawn * array),
        task("cam", "model", explained,
             books.passing(at) + 2 * maps * books.share("cam", n) + pixels("cam"), maps),
        task("coverage", "model",
             [_pass(at, "cover", (1 + 2 * strengths) * full, timing.cover)],
             books.passing(at, backward=0) + pixels("coverage"), 0),
        task("score", "table", _scores(books, at, cell, seen, n),
             2.2 * maps * books.share("score", n), 0),
        _detect(books, name, seen),
    ]  # fmt: skip


def _scores(books: _Books, at: Bench, cell: Cell, seen: Looks, n: int) -> list[Pass]:
    """Returns the pairs of maps that are scored."""
    plan = books.plan
    known = protocols(plan.protocols)
    readings = {known[name].reading: known[name] for name in cell.protocols}
    arms, unrelated = 2 * len(cell.strengths), plan.scores.unrelated
    jets = sum(protocol.similarity == "jet_rgb" for protocol in readings.values())
    raw = seen.maps + unrelated * (len(readings) - jets + len(plan.cams.methods) - 1)
    pairs = [("cosine", raw), ("jet_cosine", jets * (arms + unrelated))]
    pairs += [(name, arms * (1 + FLIPPED)) for name in plan.scores.beside]
    return [
        _pass(at, f"compare {score}", count * n, partial(timing.compare, score=score))
        for score, count in pairs
    ]


def _detect(books: _Books, name: str, seen: Looks) -> Task:
    plan, cell = books.plan, books.plan.cells[name]
    at, chosen = books.bench(cell.model), plan.detection
    n = min(books.test(cell.set), chosen.images)
    passes: list[Pass] = []

    def look(images: float, tried: Sequence[Family]) -> None:
        # A detector of many passes an image is timed by the pass; the others are measured together.
        many = [family for family in tried if family.passes > timing.MANY]
        for family in many:
            work = partial(timing.look_often, name=family.name)
            passes.append(_pass(at, f"look of {family.name}", images * family.passes, work))
        rest = tuple(family.name for family in tried if family not in many)
        passes.append(_pass(at, " ".join(["look of", *rest]), books.full(images),
                            partial(timing.look, names=rest)))  # fmt: skip
        passes.append(_pass(at, "blur", books.full(images), timing.blur))

    tried = families(chosen)
    if cell.detect:
        for _ in experiment.select_variants(seen.made, cell.detect):
            look(n, tried)
    if cell.detect and cell.adaptive:
        tested = chosen.shares.test * n
        look(tested, tried)
        steps = (chosen.adaptive.steps + 0.5) * books.full(tested)
        passes.append(_pass(at, "descend", steps, partial(timing.descend, name="")))
        for family in (family for family in tried if family.has_surrogate):
            count = len(family.readings())
            attacks = 1 if family.shares_surrogate else count
            work = partial(timing.descend, name=family.name)
            passes.append(_pass(at, f"descend {family.name}", attacks * steps, work))
            look(count * tested, [family])
    # Second derivatives keep what the first computed, too.
    held = books.passing(at, backward=3) + books.pixels("detect", cell.set, n)
    return Task(f"detect@{name}", "model", tuple(passes), held * bool(cell.detect), 0)


def _retraining(books: _Books, name: str) -> list[Task]:
    plan, chosen = books.plan, books.plan.retrainings[name]
    at, splits = books.bench(chosen.model), books.counts[chosen.set].splits
    tests = min(chosen.attacked.test, splits.get("test", 0))
    trains = min(chosen.attacked.train, splits.get("train", 0))
    settings = {
        kind: attacks.resolved(kind, plan.attacks, getattr(chosen, kind)) for kind in ATTACKING
    }
    passes: list[Pass] = []
    for kind in EXTENDING:
        passes += _attack(books, at, kind, settings[kind], trains)
    for kind in (*EXTENDING, "pgd", "fgsm"):  # and FGSM at its larger budget
        for _ in range(1 + len(HARDENED)):
            passes += _attack(books, at, kind, settings[kind], tests)
    attacked = 2 * books.full(trains) + 4 * (1 + len(HARDENED)) * books.full(tests)
    passes.append(_forward(at, 2 * attacked + 3 * (1 + len(HARDENED)) * tests))
    for kind in HARDENED:
        added = FLIPPED * trains if kind in EXTENDING else 0
        more = dict(splits) | {"train": splits.get("train", 0) + added}
        passes += _training(books, at, chosen.training, more)
        passes.append(_forward(at, splits.get("test", 0)))
        if kind == "pgd":
            steps = chosen.adversary.steps * chosen.training.epochs * splits.get("train", 0)
            passes.append(_gradient(at, steps))
    shown = len(inspection.SHOWN)
    related = [
        _pass(at, "relate", shown * books.full(tests), timing.relate),
        _forward(at, shown * books.full(tests)),
    ]
    changed = len(EXTENDING) * books.array(chosen.set, tests)
    training = _training_bytes(books, at, chosen.training, chosen.set)
    held = training + books.pixels("retrain", chosen.set, trains + tests)
    side = plan.sets[chosen.set].size
    return [
        Task(f"retrain@{name}", "model", tuple(passes), held, len(HARDENED) * at.weights + changed),
        Task(f"signatures@{name}", "signatures", tuple(related),
             len(inspection.MODELS) * at.weights + books.passing(at, backward=2)
             + books.pixels("signatures", chosen.set, tests), shown * tests * side**2 * HALF),
    ]  # fmt: skip


def _sign(books: _Books, name: str) -> Task:
    source = books.plan.sources[name]
    at, n = books.bench(source.model), books.test(source.set)
    predicted = books.plan.study(source.study, TransferStudy).label == "predicted"
    passes = (_forward(at, books.full(n) * predicted), _gradient(at, books.full(n)))
    held = books.passing(at) + books.pixels("sign", source.set, n)
    return Task(f"sign@{name}", "model", passes, held, books.array(source.set, n) / FLOAT)


def _carry(books: _Books, name: str) -> Task:
    plan, target = books.plan, books.plan.targets[name]
    of, at = plan.study(target.study, TransferStudy), books.bench(target.model)
    n = books.test(target.set)
    full = books.full(n)
    sources = [s for s in plan.sources.values() if (s.study, s.set) == (target.study, target.set)]
    own = next((s.network for s in sources if s.model == target.model), None)
    others = sum(s.network not in (own, of.transferred) for s in sources)
    levels = len(of.eps)
    arms = (own not in (None, of.transferred)) + 2  # its own, the carried one, noise
    named = (own is not None) + 2
    further = (len(of.ranges) - 1) * (named - 1)  # of the other range without noise
    explain = partial(timing.explain, names=(cam.GRAD_CAM,), both=True)
    compared = arms * levels * target.maps
    again = full * (others + further) * levels
    if not target.maps:
        again += full * (1 + arms * levels)
    total = float((at.layers["height"] * at.layers["width"]).sum())
    passes = (
        _pass(at, "explain 1 for 2", compared * full, explain),
        _forward(at, again),
        _pass(at, "compare nissim", 2 * compared * n, partial(timing.compare, score="nissim")),
    )
    stacks = 3 * 2 * (1 + compared) * plan.micro_batch * total * FLOAT
    held = books.passing(at) + stacks * target.maps + books.pixels("carry", target.set, n)
    kept = (1 + compared) * of.examples * (2 * total * HALF + 3 * plan.sets[target.set].size ** 2)
    shifts = 2 * compared * n * (len(at.layers) + 2) * FLOAT
    worked = tuple(done for done in passes if done.units)
    return Task(f"carry@{name}", "model", worked, held, kept + shifts)

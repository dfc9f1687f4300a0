"""Forecast: runs a study's stages on a pinch of it, and goes from there to the whole study."""

import contextlib
import math
import statistics
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from camdrift.ops import alike, amounts, pinch, trial
from camdrift.ops.needs import Counted
from camdrift.ops.trial import MB, Base, Trial
from camdrift.pipeline import backends, run
from camdrift.settings import ImageSetSettings, Settings, SettingsError, params
from camdrift.settings.section import sides

FETCH = "fetch"  # a group that is not tried: `needs` has decoded some images as it does
LIGHT = ("camdrift.pipeline.run",)  # what stages without networks load before anything else
NETWORKS = Path("lib/camdrift/models")  # a stage that rests on this folder loads torch
NOTHING = Trial((0, 0), (0, 0), (0, 0), in_shards=False)


@dataclass(frozen=True)
class Estimate:
    """The cost of a stage: seconds, MB of memory at its peak, MB of files.

    fault: the error that kept it from being tried, '' for none; the rest is then that of its start.
    """

    stage: str
    seconds: float
    peak: float
    disk: float
    fault: str = ""

    @property
    def group(self) -> str:
        """Its group, `attack` of `attack@fgsm`."""
        return self.stage.partition("@")[0]


@dataclass(frozen=True)
class Study:
    """A study or a pinch of it: its params.yaml, its images by set and split, and its folder."""

    content: Mapping[str, Any]
    images: pinch.Splits
    folder: Path = Path()

    def stage(self, name: str) -> amounts.Stage:
        """Returns what is known of the work of a stage, as DVC names it."""
        item = self.content[params.part(name)][name.partition("@")[2]]
        return amounts.Stage(item, self.content, self.images[item["set"]])


def estimates(plan: Settings, counts: Mapping[str, Counted]) -> list[Estimate]:
    """Returns the cost of each stage of a plan.

    Stages that do the same work are tried once, each after those that it rests on. Several are
    tried at once where a stage's shards would be computed so.

    Args:
        plan: the settings.
        counts: the images of its sets.

    Raises:
        SettingsError: a stage refuses its settings.
    """
    bases = {name: trial.base(name) for name in (LIGHT, trial.PRELOADED)}
    fetches = [
        _fetch(f"{FETCH}@{name}", counted, plan.sets[name], bases[LIGHT])
        for name, counted in counts.items()
    ]
    whole = Study(plan.model_dump(mode="json"), {n: c.splits for n, c in counts.items()})
    with tempfile.TemporaryDirectory(prefix="camdrift-") as folder:
        small, large = (
            _pinch(Path(folder, str(size.images)), plan, counts, size) for size in pinch.sizes(plan)
        )
        facts = {
            name: (plan.sets[name].size, plan.sets[name].channels, c.classes)
            for name, c in counts.items()
        }
        with contextlib.chdir(large.folder):
            upstream = {s: others for s, others in alike.upstream().items() if _group(s) != FETCH}
            groups = alike.groups(list(upstream), facts)
            light = {s: NETWORKS not in params.dependencies(s) for s in upstream}
        workers = run.workers() if backends.current() is backends.processes else 1
        trials = _trials(groups, upstream, small, large, workers=workers)
    studies = small, large, whole
    slopes = [_steepness(name, own, *studies[:2]) for name, (own, _) in trials.items()]
    usual = statistics.median([slope for slope in slopes if slope] or [0.0])
    return fetches + [
        _estimate(
            stage, own, bases[LIGHT if light[stage] else trial.PRELOADED], studies,
            fault=fault, slope=usual, workers=workers,
        )
        for stages in groups
        for own, fault in [trials[stages[0]]]
        for stage in stages
    ]  # fmt: skip


def _trials(
    groups: Sequence[Sequence[str]],
    upstream: Mapping[str, set[str]],
    small: Study,
    large: Study,
    *,
    workers: int,
) -> dict[str, tuple[Trial, str]]:
    """Returns trials of the first stage of each group, and the errors that kept them from one.

    Args:
        groups: stages that do the same work.
        upstream: the stages that each stage rests on.
        small: a pinch of the study.
        large: a larger one.
        workers: the number of stages that are tried at once, see `_fits`.
    """
    members = {stages[0]: stages for stages in groups}
    first = {stage: name for name, stages in members.items() for stage in stages}
    order = TopologicalSorter(
        {name: {first[other] for other in upstream[name] if other in first} for name in members}
    )
    order.prepare()
    trials: dict[str, tuple[Trial, str]] = {}
    waiting: list[str] = []
    running: dict[futures.Future[Trial], str] = {}
    bar = tqdm(total=len(upstream), unit="stage", leave=False)
    with trial.processes(workers) as pool, bar:
        while order.is_active():
            waiting += order.get_ready()
            for name in tuple(waiting):
                if _fits(name, running.values(), workers):
                    running[_submit(name, small, large, pool)] = name
                    waiting.remove(name)
            bar.set_description(", ".join(running.values()))
            for job in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                name = running.pop(job)
                trials[name] = _outcome(job)
                _spread(members[name], small, large)
                bar.update(len(members[name]))
                order.done(name)
    return trials


def _fits(name: str, running: Collection[str], workers: int) -> bool:
    """Returns whether a stage can be tried beside those running and slow none of them down."""
    groups = (amounts.GROUPS.get(_group(stage)) for stage in (name, *running))
    alone = any(group is not None and group.is_alone for group in groups)
    return len(running) < (1 if alone else workers)


def _outcome(job: futures.Future[Trial]) -> tuple[Trial, str]:
    """Returns a trial, and the error that kept the stage from one."""
    try:
        return job.result(), ""
    except SettingsError:
        raise
    except Exception as error:  # few images may be too few for a stage, or for the next
        return NOTHING, f"{type(error).__name__}: {error}"


def _fetch(stage: str, counted: Counted, of: ImageSetSettings, base: Base) -> Estimate:
    pixels = sum(counted.splits.values()) * of.channels * math.prod(sides(of.size))
    # A torchvision set is read whole before it is split.
    memory = base.mb + (3 * pixels + counted.native) / MB
    return Estimate(stage, base.seconds + counted.read * counted.seconds, memory, pixels / MB)


def _pinch(folder: Path, plan: Settings, counts: Mapping[str, Counted], size: pinch.Size) -> Study:
    folder.mkdir()
    content = pinch.write(folder, plan, counts, size)
    return Study(content, pinch.splits(counts, size), folder)


def _submit(
    stage: str, small: Study, large: Study, pool: futures.Executor
) -> futures.Future[Trial]:
    group = amounts.GROUPS.get(_group(stage))
    if group is None:
        return pool.submit(trial.once, stage, large.folder)
    if group.patience is not None:
        return pool.submit(trial.twice, stage, large.folder, group.patience)
    return pool.submit(trial.compare, stage, small.folder, large.folder)


def _spread(stages: Sequence[str], small: Study, large: Study) -> None:
    """Gives what one stage wrote to those that are like it, and to the pinch that it left out."""
    with contextlib.chdir(large.folder):
        outputs = [params.outputs(stage) for stage in stages]
    for at in range(len(outputs[0])):
        own, *others = (paths[at] for paths in outputs)
        pinch.copy(large.folder / own, small.folder / own)
        for other in others:
            for study in (small, large):
                pinch.copy(study.folder / own, study.folder / other)


def _estimate(
    stage: str,
    own: Trial,
    base: Base,
    studies: tuple[Study, Study, Study],
    *,
    fault: str = "",
    slope: float = 0.0,
    workers: int = 1,
) -> Estimate:
    """Returns what a stage would take: its start, its trial, and what more work would add.

    Args:
        stage: as DVC names it.
        own: its trial, or that of one alike.
        base: its start.
        studies: the small and the large pinch, and the whole study.
        fault: the error that kept it from being tried.
        slope: MB an image of a usual stage, for those that are tried at one size alone.
        workers: the number of processes that share the images of a stage that works in shards.
    """
    workers = workers if own.in_shards else 1
    group = amounts.GROUPS.get(_group(stage))
    times = more = 0.0
    if group is not None and not fault:
        small, large, whole = (group.amount(study.stage(stage)) for study in studies)
        first, last = _images(stage, own, *studies[1:])
        if group.patience is None:
            times = (whole - small) / (large - small)
            first, *_ = _images(stage, own, studies[0])
            slope = _steepness(stage, own, *studies[:2])
        else:
            times = (whole - large) / large
        more = slope * (last - first)
    return Estimate(
        stage,
        base.seconds + own.seconds[0] + times * own.seconds[1] / workers,
        workers * (base.mb + own.memory[0] + more),
        own.disk[0] + times * own.disk[1],
        fault,
    )


def _steepness(stage: str, own: Trial, small: Study, large: Study) -> float:
    """Returns the MB that an image more adds to what a stage holds; 0 where one size was tried."""
    if not own.memory[1]:
        return 0.0
    first, second = _images(stage, own, small, large)
    return own.memory[1] / (second - first) if second > first else 0.0


def _images(stage: str, own: Trial, *studies: Study) -> list[float]:
    return [amounts.images(study.stage(stage), in_shards=own.in_shards) for study in studies]


def _group(stage: str) -> str:
    return stage.partition("@")[0]

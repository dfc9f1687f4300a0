"""Side by side in one process: equality first, then both in turn, minimum and median of each."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Race:
    """One piece of work done in two ways.

    work: what is done; against: by whom else.
    place: where: size in px, batch, width, as it is wanted in the table.
    ours, theirs: do it once and return what they made.
    same: raises AssertionError where the two results are not the same.
    target: wanted ratio of their time to ours, at least.
    rounds: how often each is timed.
    """

    work: str
    against: str
    place: dict[str, Any]
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    same: Callable[[Any, Any], None]
    target: float
    rounds: int = 5


def run(races: Iterable[Race]) -> list[dict[str, Any]]:
    """Returns what each race took: seconds by the wall and of the CPU, and their ratio.

    The ratio is that of the minima by the wall, the steadiest of a busy machine's numbers.
    """
    rows = []
    # One at a time: each holds what it races, and all together hold gigabytes.
    for race in tqdm(races, desc="races", unit="race"):
        race.same(race.ours(), race.theirs())  # the first call of each warms up, too
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        for _ in range(race.rounds):
            for name in times:
                times[name].append(_timed(getattr(race, name)))
        row: dict[str, Any] = {"work": race.work, "against": race.against, "place": race.place}
        for name, pairs in times.items():
            for kind, values in zip(("wall", "cpu"), zip(*pairs, strict=True), strict=True):
                row[f"{name}_{kind}_minimum"] = round(min(values), 6)
                row[f"{name}_{kind}_median"] = round(statistics.median(values), 6)
        ratio = row["theirs_wall_minimum"] / row["ours_wall_minimum"]
        rows.append(row | {"ratio": round(ratio, 3), "target": race.target})
    return rows


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu

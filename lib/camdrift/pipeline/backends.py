"""Backends: compute the tasks of a stage, one after another or several at once.

CAMDRIFT_BACKEND names one: `serial`, `processes` on this machine, or `dask`; by default it is
`processes`, on a GPU `serial`. CAMDRIFT_WORKERS is the number of processes. CAMDRIFT_SCHEDULER
names Dask's scheduler, or is `slurm`: camdrift then submits CAMDRIFT_WORKERS jobs, which
dask-jobqueue's own file describes. All machines of a cluster must share the repository's folder.
"""

import collections
import contextlib
import functools
import importlib
import os
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, TypeVar

from camdrift.pipeline import children, run
from camdrift.pipeline.children import LostError
from camdrift.settings import SettingsError

Task = TypeVar("Task")
Backend = Callable[[Callable[[Task], None], Sequence[Task]], Iterator[None]]


def current() -> Backend:
    """Returns the backend that CAMDRIFT_BACKEND names: (work, tasks) -> None for each done task.

    Raises:
        SettingsError: there is no such backend.
    """
    name = os.environ.get("CAMDRIFT_BACKEND") or ("serial" if run.on_gpu() else "processes")
    backends: dict[str, Backend] = {"serial": serial, "processes": processes, "dask": dask}
    if name not in backends:
        raise SettingsError(f"CAMDRIFT_BACKEND: wanted one of {', '.join(backends)}, got '{name}'")
    return backends[name]


def serial(work: Callable[[Task], None], tasks: Sequence[Task]) -> Iterator[None]:
    """Computes tasks one after another, in this process."""
    yield from map(work, tasks)


def processes(work: Callable[[Task], None], tasks: Sequence[Task]) -> Iterator[None]:
    """Computes tasks on this machine, in this process and, as soon as they are ready, in others.

    Two processes of a thread each end sooner than one of two threads, whose parts wait for one
    another. This one works, too: a stage of a second's work is done before another has started, and
    where others are killed, for memory perhaps, it does their tasks itself.
    """
    others = min(run.workers(), len(tasks)) - 1
    if others < 1:
        yield from serial(work, tasks)
        return
    waiting = collections.deque(tasks)
    ended: queue.SimpleQueue[tuple[Task, futures.Future]] = queue.SimpleQueue()

    def feed(last: futures.Future) -> None:
        """Gives a process that has ended a job the next task; one that was lost gets none."""
        if last.exception():
            return
        for task in _next(waiting):
            job: futures.Future = futures.Future()
            try:
                job = pool.submit(work, task)
            except RuntimeError as fault:  # the process was lost in the meantime
                job.set_exception(futures.process.BrokenProcessPool(fault))
            job.add_done_callback(functools.partial(end, task))

    def end(task: Task, job: futures.Future) -> None:
        ended.put((task, job))
        feed(job)

    context = children.Context()
    with (
        _with_threads(),
        futures.ProcessPoolExecutor(
            others, mp_context=context, initializer=children.follow
        ) as pool,
    ):
        try:
            with children.deaf():
                for _ in range(others):
                    pool.submit(_load, _modules()).add_done_callback(feed)
            for _ in tasks:
                own = _next(waiting) if ended.empty() else []
                if not own:
                    task, job = ended.get()
                    try:
                        job.result()
                    except futures.process.BrokenProcessPool:
                        print(f"a process was lost, {context.ends()}", file=sys.stderr)
                        own = [task]
                for task in own:
                    work(task)
                yield
        finally:
            waiting.clear()
            # One may still be loading. After a fault, current tasks are lost and computed again:
            # waiting for them may take minutes.
            context.kill()


def _next(tasks: collections.deque[Task]) -> list[Task]:
    """Returns the next task alone, or none; other threads may take them at the same time."""
    try:
        return [tasks.popleft()]
    except IndexError:
        return []


def _modules() -> list[str]:
    """Returns camdrift's modules that this process has loaded."""
    return [name for name in sys.modules if name.startswith("camdrift.")]


def _load(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)


AGAIN = "What others had done is kept: run again, with fewer CAMDRIFT_WORKERS if memory was short"


@contextlib.contextmanager
def _with_threads() -> Iterator[None]:
    """Gives processes that start within the block the threads that a shard may use.

    Libraries read the variables when they are loaded; Dask would set them to 1.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    with children.environment(dict.fromkeys(names, str(run.shard_threads()))):
        yield


def dask(work: Callable[[Task], None], tasks: Sequence[Task]) -> Iterator[None]:
    """Computes tasks by Dask.

    Raises:
        SettingsError: Dask is not installed.
        LostError: the cluster cannot be reached, or a task lost its workers several times.
    """
    if not tasks:
        return
    try:
        import distributed
    except ImportError as fault:
        raise SettingsError(_missing("Dask")) from fault
    try:
        with _with_threads(), _cluster() as cluster, _client(cluster) as client:
            if not client.scheduler_info()["workers"]:
                print(f"waiting for a worker of {client.scheduler.address}", file=sys.stderr)
            for done in distributed.as_completed(client.map(work, tasks, pure=False)):
                yield done.result()
    except distributed.KilledWorker as fault:
        raise LostError(f"workers were lost again and again: {fault}. {AGAIN}") from fault


def _client(cluster: Any) -> Any:
    import distributed

    try:
        return distributed.Client(cluster)
    except OSError as fault:  # caught here alone: a task's own fault may be an OSError, too
        raise LostError(f"CAMDRIFT_SCHEDULER: {cluster} cannot be reached: {fault}") from fault


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Lends Dask's cluster: the one that CAMDRIFT_SCHEDULER names, or one on this machine."""
    scheduler = os.environ.get("CAMDRIFT_SCHEDULER") or ""
    if scheduler == "slurm":
        try:
            from dask_jobqueue import SLURMCluster
        except ImportError as fault:
            raise SettingsError(_missing("dask-jobqueue")) from fault
        try:
            cluster = SLURMCluster()
        except ValueError as fault:  # its file does not say how many cores and how much memory
            raise SettingsError(f"SLURM's jobs, in dask-jobqueue's file: {fault}") from fault
        with cluster:
            cluster.scale(jobs=run.workers())
            yield cluster
    elif scheduler:
        yield scheduler
    else:
        from dask import config
        from distributed import LocalCluster

        with (
            # By default Dask's workers release memory after every array and allocate it again.
            config.set({"distributed.nanny.pre-spawn-environ": {}}),
            LocalCluster(
                n_workers=run.workers(), threads_per_worker=1, dashboard_address=None
            ) as cluster,
        ):
            yield cluster


def _missing(library: str) -> str:
    return (
        f"CAMDRIFT_BACKEND=dask requires {library}, which is not installed; run "
        "`pip install -c constraints.txt -e .[dask]`"
    )

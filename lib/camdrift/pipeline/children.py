"""Processes that a stage starts: they leave Ctrl-C to it, and end when it ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from tqdm import tqdm

from camdrift.settings import SettingsError

PATIENCE = 10  # seconds


class LostError(SettingsError):
    """A worker was lost, or a cluster cannot be reached."""


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Gives processes that start within the block variables of the environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Makes processes that start within the block ignore Ctrl-C: their parent handles it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Context(SpawnContext):
    """Starts processes by `spawn`, for one pool, and keeps them.

    Those of `multiprocessing.active_children` may be another's: a generator that was abandoned may
    end, with its pool, while another pool is at work.

    started: in the order of their start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *arguments: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        """Returns a new process, not yet started."""
        self.started.append(SpawnProcess(*arguments, **options))
        return self.started[-1]

    def kill(self) -> None:
        """Ends the processes at once."""
        for process in self.started:
            if process.is_alive():
                process.kill()

    def ends(self) -> str:
        """Returns how the processes of a pool that broke have ended, for a message.

        It waits for those that are about to end, `PATIENCE` seconds at most.
        """
        started = [process for process in self.started if process.pid is not None]
        # The pool's own thread may be the one to learn the exit code, an instant later.
        until = time.monotonic() + PATIENCE
        while any(process.exitcode is None for process in started) and time.monotonic() < until:
            time.sleep(0.01)
        return _in_words([process.exitcode for process in started])


def _in_words(codes: Sequence[int | None]) -> str:
    """Returns exit codes in words: SIGKILL, or else the first signal, or else all of them."""
    # A pool that breaks ends its other processes by SIGTERM, which is not the reason.
    codes = [code for code in codes if code not in (None, 0, -signal.SIGTERM)] or codes
    signals = [_name(-code) for code in codes if code is not None and code < 0]
    if "SIGKILL" in signals:
        return "by SIGKILL, perhaps for memory"
    if signals:
        return f"by {signals[0]}"
    status = ", ".join(str(code) for code in codes if code is not None)
    return f"with exit status {status or 'unknown'}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def follow() -> None:
    """Ends a worker together with the process that started it, however that process ends."""
    # Else tqdm makes a semaphore, which Python reports as leaked once this process is killed.
    tqdm.set_lock(threading.RLock())
    parent = multiprocessing.parent_process()
    assert parent

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

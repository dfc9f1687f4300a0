"""Processes that a stage starts: they leave Ctrl-C to it, and end when it ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.process import BaseProcess

from tqdm import tqdm

from camdrift.settings import SettingsError


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


def ends(processes: Iterable[BaseProcess]) -> str:
    """Returns how processes have ended, for a message."""
    for process in processes:
        process.join(10)
    codes = [process.exitcode for process in processes]
    signals = [signal.Signals(-code).name for code in codes if code is not None and code < 0]
    if "SIGKILL" in signals:
        return "by SIGKILL, perhaps for memory"
    if signals:
        return f"by {signals[0]}"
    return f"with exit status {', '.join(map(str, codes))}"


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

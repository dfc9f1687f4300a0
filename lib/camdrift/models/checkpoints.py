"""Checkpoints: parts of a forward that a backward would compute a second time.

A hook point inside such a part would not be there the second time.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch.utils import checkpoint
from torch.utils.checkpoint import CheckpointFunction

_REENTRANT = CheckpointFunction.apply
_OTHER = checkpoint._checkpoint_without_reentrant_generator
_threads: Counter[int] = Counter()
_lock = threading.Lock()


def _apply(function: Any, preserve: bool, *args: Any) -> Any:
    if threading.get_ident() in _threads:
        return function(*args)
    return _REENTRANT(function, preserve, *args)


def _generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    return iter([None]) if threading.get_ident() in _threads else _OTHER(*args, **kwargs)


@contextlib.contextmanager
def passed() -> Iterator[None]:
    """Lets this thread's calls of `torch.utils.checkpoint` be plain calls in the block."""
    own = threading.get_ident()
    with _lock:
        _threads[own] += 1
        CheckpointFunction.apply = _apply  # type: ignore[method-assign]
        checkpoint._checkpoint_without_reentrant_generator = _generator
    try:
        yield
    finally:
        with _lock:
            _threads[own] -= 1
            if not _threads[own]:
                del _threads[own]
            if not _threads:
                del CheckpointFunction.apply  # the inherited one is there again
                checkpoint._checkpoint_without_reentrant_generator = _OTHER

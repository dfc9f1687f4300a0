"""Limits of training to the instructions, the order of sums and the threads of all processors.

Training turns last digits into other weights. It is therefore limited to what gives the same bytes
on all processors of Intel and AMD with AVX2: PyTorch's and oneDNN's code for AVX2, the one order
of sums that MKL has on every processor, and a fixed number of threads. The limits must stand before
a process computes anything. `stages/processor` sets them for a whole stage, but for the number of
threads; with CAMDRIFT_PROCESSOR=own it sets none, and a stage that does other work, too, trains in
a process of its own.
"""

import os
import platform
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

from camdrift.pipeline import children

Result = TypeVar("Result")

LIMITS = {
    "ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE",
    "OMP_DYNAMIC": "FALSE",
}  # fmt: skip


def limit(threads: int) -> None:
    """Limits this process, which has computed nothing yet, to what all processors compute alike.

    On other processors than x86-64, the number of threads is all that can be set.

    Raises:
        RuntimeError: it has computed something.
    """
    import torch

    os.environ |= LIMITS
    if platform.machine() in ("x86_64", "AMD64"):
        # The first computation decides for the whole process; so does this question.
        capability = torch.backends.cpu.get_cpu_capability()
        if capability.startswith("AVX512"):
            raise RuntimeError(f"{capability} is in use: this process has computed before")
    torch.set_num_threads(threads)


def alike(threads: int | None, function: Callable[..., Result], *arguments: Any) -> Result:
    """Returns a function's result as all processors compute it, from another process if need be.

    With `threads` None it is computed here, without limits. In the other case pickle passes on the
    function and the arguments; tensors are best passed as arrays.

    Raises:
        LostError: the other process has ended without a result.
    """
    if threads is None:
        return function(*arguments)
    if all(os.environ.get(name) == value for name, value in LIMITS.items()):
        return _with_threads(threads, function, *arguments)
    context = children.Context()
    with futures.ProcessPoolExecutor(1, mp_context=context, initializer=children.follow) as pool:
        with children.environment(LIMITS), children.deaf():
            job = pool.submit(_limited, threads, function, *arguments)
        try:
            return job.result()
        except futures.process.BrokenProcessPool as fault:
            raise children.LostError(
                f"the process that trains was lost, {context.ends()}; run again"
            ) from fault
        except KeyboardInterrupt:  # it would train to its end
            context.kill()
            raise


def _with_threads(threads: int, function: Callable[..., Result], *arguments: Any) -> Result:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(before)


def _limited(threads: int, function: Callable[..., Result], *arguments: Any) -> Result:
    limit(threads)
    return function(*arguments)

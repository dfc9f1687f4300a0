"""Devices: where models lie and how exactly they compute there.

Pixels, and all that is made of maps and logits, stay on the CPU; a `Model` takes them to its device
and brings them back.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from camdrift.settings import SettingsError

Precision = Literal["float32", "tf32", "bfloat16"]


def current() -> torch.device:
    """Returns the device that CAMDRIFT_DEVICE names, else the first CUDA GPU, else the CPU.

    Raises:
        SettingsError: there is no such device here.
    """
    named = os.environ.get("CAMDRIFT_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=named).device
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        first = str(fault).partition("\n")[0]
        raise SettingsError(
            f"CAMDRIFT_DEVICE: wanted a device of this machine, as cpu, cuda or cuda:1, got "
            f"'{named}': {first}"
        ) from fault


def hold(precision: Precision) -> None:
    """Lets this process compute in TF32 on GPUs that have it, or not; PyTorch does by itself."""
    _set("tf32" if precision == "tf32" else "ieee")


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Lets the block, or a function that it decorates, compute without TF32."""
    before = torch.backends.cuda.matmul.fp32_precision
    _set("ieee")
    try:
        yield
    finally:
        _set(before)


def _set(precision: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def computing(
    device: torch.device, precision: Precision
) -> contextlib.AbstractContextManager[object]:
    """Returns the context in which a network is called: autocast for bfloat16."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()

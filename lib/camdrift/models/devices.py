"""Devices: the device of models and the precision of their arithmetic.

A `Model` moves pixels to its own device and returns logits on the device of the pixels. In the
study, pixels and results lie on the CPU.
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
    name = os.environ.get("CAMDRIFT_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        first = str(fault).partition("\n")[0]
        raise SettingsError(
            f"CAMDRIFT_DEVICE: wanted a device of this machine, as cpu, cuda or cuda:1, got "
            f"'{name}': {first}"
        ) from fault


def hold(precision: Precision) -> None:
    """Turns TF32 on or off for this process, on GPUs that have it; PyTorch has its own default."""
    _set("tf32" if precision == "tf32" else "ieee")


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Turns TF32 off in the block, or in the function that it decorates."""
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
    """Returns the context in which to call a network: autocast for bfloat16."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()

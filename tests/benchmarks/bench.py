"""`make bench`: every race, side by side in one process, into data/results/benchmarks."""

import platform
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import torch

import attacking
import detection
import drifting
import mapping
import one_pixel
import races
from camdrift.ops import benchmarks
from camdrift.pipeline import run
from camdrift.storage import files

STAGES = Path(__file__).resolve().parents[2] / "stages"


def main() -> None:
    content = {"imports": _imports(), "convolutions": mapping.convolutions()}
    modules = mapping, attacking, drifting, detection, one_pixel
    content["races"] = races.run(chain.from_iterable(module.races() for module in modules))
    machine = run.environment() | {"threads": torch.get_num_threads(), "device": _device()}
    files.write_json(
        benchmarks.PATH, benchmarks.measurements() | {"environment": machine} | content
    )


def _imports() -> dict[str, tuple[str, float]]:
    """Returns for each stage whether it loads torch, and the least seconds of its imports."""
    result = {}
    for script in sorted(STAGES.glob("*.py")):
        code = f"import runpy, sys; runpy.run_path({str(script)!r}); print('torch' in sys.modules)"
        seconds, told = [], ""
        for _ in range(3):
            start = time.perf_counter()
            told = subprocess.check_output([sys.executable, "-P", "-c", code], text=True).strip()
            seconds.append(time.perf_counter() - start)
        kind = "with a model" if told == "True" else "without a model"
        result[script.stem] = (kind, round(min(seconds), 2))
    return result


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()


if __name__ == "__main__":
    main()

"""`make bench`: every race, side by side in one process, into data/results/benchmarks.json."""

import platform
from itertools import chain

import torch

import detection
import one_pixel
import races
from camdrift import artifacts, readme, run


def main() -> None:
    found = races.run(chain(detection.races(), one_pixel.races()))
    machine = run.environment() | {"threads": torch.get_num_threads(), "device": _device()}
    artifacts.write_json(readme.BENCHMARKS, {"environment": machine, "races": found})


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()


if __name__ == "__main__":
    main()

"""A study smaller than the tiny one, in a folder of its own, as DVC runs it."""

import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from conftest import TINY, copy_of_repository

# Of the tiny study; what is left out has stages of the same frame.
PARTS = {"cells": ("tiny_fgsm", "tiny_dlfuzz"), "models": ("vgg11_eighth",), "sets": ("digits",)}
WITHOUT = ("retrainings", "sources", "targets")


def study(folder: Path) -> Path:
    """Makes a repository of it, without git."""
    copy_of_repository(folder, preset=TINY)
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    content["micro_batch"] = 8  # many shards
    content |= {part: {} for part in WITHOUT}
    content |= {
        part: {name: content[part][name] for name in names} for part, names in PARTS.items()
    }
    content["studies"] = {name: content["studies"][name] for name in ("tiny", "tiny_detectors")}
    content["cells"]["tiny_fgsm"]["detect"] = []
    content["cells"]["tiny_dlfuzz"] |= {"protocols": ["corrected"], "detect": [1.0]}
    yaml.dump(content, folder / "params.yaml")
    return folder


def environment(**more: str) -> dict[str, str]:
    """The variables under which DVC runs its stages."""
    own = {"CAMDRIFT_PYTHON": sys.executable, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | own | more


def start(folder: Path, *words: str, **more: str) -> subprocess.Popen:
    """Starts DVC, which leads a group of processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words], cwd=folder, env=environment(**more),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def repro(folder: Path, *words: str, **more: str) -> str:
    """What `dvc repro` says that comes to a good end."""
    process = start(folder, "repro", *words, **more)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output

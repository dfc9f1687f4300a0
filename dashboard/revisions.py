"""Revisions of the repository and DVC's experiments: their settings, metrics and figures."""

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from ruamel.yaml import YAML, YAMLError

from camdrift import storage
from camdrift.settings import params

MOST = 30  # commits that are listed
WORKSPACE = "workspace"  # in place of a commit: what is in this folder
PATHS = ("data/results", "params.yaml", "dvc.lock")


@dataclass(frozen=True)
class Revision:
    """A commit or an experiment.

    kind: 'commit', 'experiment' or 'workspace'.
    changed: whether the workspace has changes beside it; of the workspace's own commit alone.
    """

    sha: str
    when: str
    text: str
    kind: str = "commit"
    changed: bool = False

    @property
    def state(self) -> str:
        """Whether the workspace has changes beside it, in words."""
        return "with changes not committed" if self.changed else "clean"


def _git(*words: str) -> str | None:
    """Returns the output of git, None without git or a repository."""
    try:
        result = subprocess.run(
            ["git", *words], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError:
        return None
    return result.stdout.rstrip("\n") if result.returncode == 0 else None


@st.cache_data(ttl=5)
def workspace() -> Revision | None:
    """Returns the commit that is checked out; None without git."""
    line = _git("log", "-1", "--format=%H%x09%cs%x09%s")
    if line is None:
        return None
    return Revision(*line.split("\t", 2), changed=bool(_git("status", "--porcelain")))


@st.cache_data(ttl=5)
def latest() -> list[Revision]:
    """Returns the last commits that changed results, and all experiments; [] without git."""
    form = "%H%x09%cs%x09%s"
    commits = _git("log", f"-{MOST}", f"--format={form}", "--", *PATHS)
    revisions = [Revision(*line.split("\t", 2)) for line in (commits or "").splitlines()]
    refs = _git("for-each-ref", "refs/exps", "--format=%(objectname)%09%(committerdate:short)%09"
                "%(refname)")  # fmt: skip
    for line in (refs or "").splitlines():
        sha, when, name = line.split("\t")
        # DVC uses the other names under refs/exps itself.
        if re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/[^/]+", name):
            revisions.append(Revision(sha, when, name.rpartition("/")[2], "experiment"))
    return revisions


@st.cache_data(max_entries=64, show_spinner="Reading a revision")
def settings(sha: str, stamp: float = 0.0) -> dict[str, Any]:
    """Returns the settings of a revision, flat: {'a.b.c': value}; {} if it has none.

    `stamp` is the time of the last change of the workspace, here and below.
    """
    if sha == WORKSPACE:
        text = params.PARAMS.read_text(encoding="utf-8") if params.PARAMS.exists() else None
    else:
        text = _git("show", f"{sha}:./{params.PARAMS}")
    try:
        content = YAML(typ="safe").load(text or "")
    except YAMLError:  # such as one with the marks of a conflict
        return {}
    return dict(_flat(content)) if isinstance(content, dict) else {}


@st.cache_data(max_entries=256, show_spinner="Reading a revision")
def verdicts(sha: str, study: str, stamp: float = 0.0) -> dict[str, str]:
    """Returns the verdict of a study on each claim at a revision; {} if it has none."""
    places = _places(study, "tables/claims.csv")
    content = next(filter(None, (_read(sha, path) for path in places)), b"")
    if not content:
        return {}
    table = pd.read_csv(io.BytesIO(content))
    return dict(zip(table["id"], table["verdict"], strict=True)) if "id" in table else {}


@st.cache_data(max_entries=256, show_spinner="Reading a revision")
def metrics(sha: str, study: str, stamp: float = 0.0) -> dict[str, Any]:
    """Returns the metrics of a study at a revision, flat; {} if it has none."""
    content = next(filter(None, (_read(sha, path) for path in _places(study, "metrics.json"))), b"")
    return dict(_flat(json.loads(content))) if content else {}


def _places(study: str, part: str) -> list[str]:
    """Returns where a revision may have a part of results: DVC's cache has it, or git."""
    path = storage.results(study, part)
    return [path.as_posix(), storage.published(path).as_posix()]


@st.cache_resource(max_entries=16)
def _system(sha: str) -> Any:
    from dvc.api import DVCFileSystem

    return DVCFileSystem(rev=sha)


def _read(sha: str, path: str) -> bytes | None:
    """Returns the content of a file at a revision; None if the file is absent."""
    try:
        return Path(path).read_bytes() if sha == WORKSPACE else _system(sha).read_bytes(path)
    except _absences():
        return None


def _absences() -> tuple[type[Exception], ...]:
    """Returns the errors that DVC raises for what a revision, or the cache, does not have."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError

    return DvcException, DataIndexError, OSError


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _flat(branch, f"{path}.{name}" if path else str(name))
    else:
        yield path, tree


@st.cache_data(max_entries=64)
def figures(sha: str, study: str, stamp: float = 0.0) -> list[str]:
    """Returns the names of a study's figures at a revision; [] if it has none."""
    for folder in _places(study, "figures"):
        if sha == WORKSPACE:
            if names := sorted(file.name for file in Path(folder).glob("*.png")):
                return names
            continue
        with contextlib.suppress(*_absences()):
            paths = _system(sha).ls(folder, detail=False)
            if names := sorted(p.rpartition("/")[2] for p in paths if p.endswith(".png")):
                return names
    return []


@st.cache_data(max_entries=64)
def figure(sha: str, study: str, name: str, stamp: float = 0.0) -> bytes | None:
    """Returns a figure of `figures`."""
    contents = (_read(sha, path) for path in _places(study, f"figures/{name}"))
    return next(filter(None, contents), None)


def differences(before: dict[str, Any], after: dict[str, Any]) -> pd.DataFrame:
    """Returns the differences of two flat trees: `name, before, after, change`.

    The first three are texts, so that each column has one type; `change` is a number, None for
    values that are not numbers.
    """
    rows = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            numbers = all(
                isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new)
            )
            rows.append({"name": name, "before": "-" if old is None else str(old),
                         "after": "-" if new is None else str(new),
                         "change": new - old if numbers else None})  # fmt: skip
    return pd.DataFrame(rows, columns=["name", "before", "after", "change"])

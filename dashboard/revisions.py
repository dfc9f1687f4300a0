"""Revisions of the repository and DVC's experiments: their settings, metrics and figures."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

MOST = 30  # commits that are listed
PATHS = ("data/results", "params.yaml", "dvc.lock")


class UnreadableError(Exception):
    """A revision has no results, or they are not here."""


@dataclass(frozen=True)
class Revision:
    """A commit or an experiment.

    kind: 'commit' or 'experiment'.
    changed: whether the workspace has changes beside it; of the workspace's own commit alone.
    """

    sha: str
    when: str
    text: str
    kind: str = "commit"
    changed: bool = False


def _git(*words: str) -> str | None:
    found = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


@st.cache_data(ttl=5)
def workspace() -> Revision | None:
    """Returns the commit that is checked out, None without git."""
    told = _git("log", "-1", "--format=%H%x09%cs%x09%s")
    if told is None:
        return None
    return Revision(*told.split("\t", 2), changed=bool(_git("status", "--porcelain")))


@st.cache_data(ttl=5)
def listed() -> list[Revision]:
    """Returns the last commits that changed results, and all experiments; none without git."""
    form = "%H%x09%cs%x09%s"
    commits = _git("log", f"-{MOST}", f"--format={form}", "--", *PATHS)
    found = [Revision(*line.split("\t", 2)) for line in (commits or "").splitlines()]
    refs = _git("for-each-ref", "refs/exps", "--format=%(objectname)%09%(committerdate:short)%09"
                "%(refname)")  # fmt: skip
    for line in (refs or "").splitlines():
        sha, when, name = line.split("\t")
        if name.split("/")[2:3] not in (["exec"], ["celery"]):
            found.append(Revision(sha, when, name.rpartition("/")[2], "experiment"))
    return found


@st.cache_data(max_entries=64, show_spinner="Reading a revision")
def facts(sha: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the settings and the metrics of a revision, flat: 'a.b.c' by value.

    Raises:
        UnreadableError: it has none.
    """
    import dvc.api

    try:
        settings = dvc.api.params_show(rev=sha)
        metrics = dvc.api.metrics_show(rev=sha)
    except Exception as fault:
        raise UnreadableError(f"{type(fault).__name__}: {fault}") from fault
    return dict(_flat(settings)), dict(_flat(metrics))


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _flat(branch, f"{path}.{name}" if path else str(name))
    else:
        yield path, tree


@st.cache_data(max_entries=64)
def figures(sha: str, study: str) -> list[str]:
    """Returns the names of a study's figures at a revision."""
    from dvc.api import DVCFileSystem

    system = DVCFileSystem(rev=sha)
    try:
        found = system.ls(f"data/results/{study}/figures", detail=False)
    except FileNotFoundError:
        return []
    return sorted(path.rpartition("/")[2] for path in found if path.endswith(".png"))


@st.cache_data(max_entries=64)
def figure(sha: str, study: str, name: str) -> bytes:
    """Returns a figure of `figures`."""
    from dvc.api import DVCFileSystem

    return DVCFileSystem(rev=sha).read_bytes(f"data/results/{study}/figures/{name}")


def compared(before: dict[str, Any], after: dict[str, Any]) -> pd.DataFrame:
    """Returns what differs between two flat trees: `name, before, after`, and for numbers `change`.

    Texts, so that a column has one type; `change` is a number.
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

"""The origin of results: the pipeline, the built studies, hashes of inputs and outputs."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from ruamel.yaml import YAML

from camdrift import storage
from camdrift.ops import readme
from camdrift.pipeline import run
from camdrift.settings import Settings, Study, presets
from camdrift.storage import files

LOCK = Path("dvc.lock")


@st.cache_data(max_entries=2)
def _lock(stamp: float) -> dict[str, Any]:
    return YAML(typ="safe", pure=False).load(LOCK.read_text(encoding="utf-8"))["stages"]


def locked_stages() -> dict[str, Any]:
    """Returns the stages of dvc.lock by name; an empty dict without the file."""
    return _lock(LOCK.stat().st_mtime) if LOCK.exists() else {}


def diagram() -> str:
    """Returns the pipeline as a mermaid diagram, one node per stage group; '' without dvc.lock."""
    stages = locked_stages()
    producers = {
        out["path"]: name.partition("@")[0]
        for name, stage in stages.items()
        for out in stage.get("outs", [])
    }
    edges = sorted(
        {
            (producers[dep["path"]], name.partition("@")[0])
            for name, stage in stages.items()
            for dep in stage.get("deps", [])
            if dep["path"] in producers
        }
    )
    return "\n".join(["flowchart LR", *(f"  {a} --> {b}" for a, b in edges)]) if edges else ""


def built_studies(plans: dict[str, Study]) -> pd.DataFrame:
    """Returns which results of each study are built: one row for each study."""
    rows = []
    for name, plan in plans.items():
        folder = storage.DATA / "studies" / name
        here = storage.shown(name, "tables").is_dir()
        rows.append(
            {
                "study": name,
                "title": plan.title,
                "paper": plan.paper,
                "from": "this folder",
                "tables": ("built here" if storage.is_own(name) else "published") if here else "no",
                "artefacts": "yes" if any(folder.glob("*/*")) else "no",
            }
        )
    for preset in presets.names():
        for name, plan in presets.read(preset).settings.studies.items():
            if name not in plans:
                rows.append({"study": name, "title": plan.title, "paper": plan.paper,
                             "from": f"preset '{preset}'", "tables": "no",
                             "artefacts": "no"})  # fmt: skip
    return pd.DataFrame(rows)


def costs(study: str, settings: Settings) -> dict[str, Any] | None:
    """Returns seconds, memory and environment of the stages behind results, see `run.last_runs`.

    None where they are not known. For a study in params.yaml, they cover all stages there.
    """
    if study in settings.studies and storage.is_own(study):
        return run.last_runs({key for part in presets.PARTS for key in getattr(settings, part)})
    file = readme.RUN if study in settings.studies else storage.shown(study, "run.json")
    return files.read_json(file) if file.exists() else None


def datasheets() -> list[Path]:
    """Returns the datasheets of all sets behind results, this machine's or else the published."""
    own = storage.set_datasheet("").parent
    sheets = {
        file.name: file
        for folder in (storage.published(own), own)
        for file in folder.glob("*.json")
    }
    return [sheets[name] for name in sorted(sheets)]


def hashes(study: str) -> pd.DataFrame:
    """Returns inputs and outputs of a study's stages: `stage, what, path, md5, bytes`."""
    rows = [
        {"stage": name, "what": what, "path": item["path"], "md5": item.get("md5", ""),
         "bytes": item.get("size")}
        for name, facts in locked_stages().items()
        for what in ("deps", "outs")
        for item in facts.get(what, [])
        if any(f"/{study}/" in f"{out['path']}/" for out in facts.get("outs", []))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["stage", "what", "path", "md5", "bytes"])

"""The dashboard: shows results of the stages, computes nothing that a stage could write."""

import os
import sys
from pathlib import Path
from urllib.parse import urlencode

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
for folder in ("lib", "dashboard"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))
os.chdir(ROOT)  # artefacts are found from the root of the repository

import frame  # noqa: E402
import page  # noqa: E402

PAGES = {
    "answer": "The answer",
    "overview": "Study",
    "claims": "Claims",
    "layers": "Layers",
    "image": "Image",
    "compare": "Compare",
    "detectors": "Detectors",
    "signatures": "Signatures",
    "models": "Models",
    "revisions": "Experiments and revisions",
    "provenance": "Provenance",
}

chosen = st.navigation(
    [
        st.Page(f"app_pages/{name}.py", title=title, url_path=name, default=name == "answer")
        for name, title in PAGES.items()
    ]
)
record = page.begin()
frame.follow()
study = frame.choose_study()
name = chosen.title if chosen.url_path == "" else f"{chosen.title}: {study}"
st.set_page_config(f"{name} - camdrift", layout="wide")
# Before the page runs, since it may end early; the record is filled until a reader asks for it.
page.offer(record, name, f"{st.context.url}?{urlencode(st.query_params.to_dict())}")
chosen.run()

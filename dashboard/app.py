"""The dashboard: shows results of the stages, computes nothing that a stage could write."""

import os
import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
for folder in ("lib", "dashboard"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))
os.chdir(ROOT)  # artefacts are found from the root of the repository

import address  # noqa: E402
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

current = st.navigation(
    [
        st.Page(f"app_pages/{name}.py", title=title, url_path=name, default=name == "answer")
        for name, title in PAGES.items()
    ]
)
address.follow()
record = page.begin()
study = frame.choose_study()
name = current.title if current.url_path == "" else f"{current.title}: {study}"
st.set_page_config(f"{name} - camdrift", layout="wide")
page.offer(record, name)
try:
    current.run()
finally:  # a page may end early
    page.end(record)

"""Where what is on screen comes from."""

import frame
import lineage
import pandas as pd
import revisions
import streamlit as st

from camdrift import storage
from camdrift.analysis import results
from camdrift.storage import files

RUN = storage.RESULTS / "run.json"

view = frame.view()
st.header("Provenance", anchor=False)
here = revisions.workspace()
if here is None:
    st.caption("No git repository here: results have no revision.")
else:
    st.text(f"Revision {here.sha}, {'with changes not committed' if here.changed else 'clean'}")

own = storage.results(view.study, "run.json")
file = RUN if view.study in results.plans(frame.current_settings()) else own
if not file.exists():
    st.info("The environment and the seconds of this study's run were not recorded; of the default "
            "studies, `make publish` records them.")  # fmt: skip
else:
    facts = files.read_json(file)
    machine = facts["environment"]
    st.subheader("Environment of the published run", anchor=False)
    st.text("\n".join([
        f"Python {machine['python']}, {machine['system']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB",
        ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        f"code of {machine['revision']}, {machine['changed_files']} files changed",
    ]))  # fmt: skip
    stages = pd.DataFrame(facts["stages"])
    st.subheader("Seconds a stage", anchor=False)
    duration = f"{stages['seconds'].sum() / 60:.1f} minutes in all; peak memory in MB."
    stages = stages.sort_values("seconds", ascending=False)
    frame.table(stages[["stage", "seconds", "peak_memory_mb"]], "stages", duration)

if "flags" in view.tables:
    st.subheader("Validity flags", anchor=False)
    frame.table(view.tables["flags"], "flags", "What a reader must know before believing a number: "
                "the measured value, the limit, and the claims that it touches.")  # fmt: skip

st.subheader("Data and licences", anchor=False)
rows = []
for sheet in sorted(storage.set_datasheet("").parent.glob("*.json")):
    content = files.read_json(sheet)
    for licence, sources in content["licences"].items():
        rows.append({"set": sheet.stem, "licence": licence, "images in all": content["images"],
                     "sources": ", ".join(sources) if isinstance(sources, list) else str(sources),
                     "sha256": content["sha256"]})  # fmt: skip
frame.table(pd.DataFrame(rows), "licences", "Every set that results in git rest on.")

st.subheader("Hashes", anchor=False)
hashes = lineage.hashes(view.study)
if hashes.empty:
    st.caption(
        "dvc.lock names no stage of this study: it was built in a copy, as a DVC experiment."
    )
else:
    stage = frame.choice(st, "Stage", hashes["stage"].unique().tolist(), key="stage")
    frame.table(hashes[hashes["stage"] == stage], "hashes", "What the stage read and wrote, by the "
                "MD5 of dvc.lock: the same hash is the same content.")  # fmt: skip

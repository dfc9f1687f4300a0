"""The origin of the results on screen: code, environment, data, hashes."""

import frame
import lineage
import pandas as pd
import revisions
import streamlit as st

from camdrift.ops import benchmarks, robustness
from camdrift.storage import files

view = frame.view()
st.header("Provenance", anchor=False)
here = revisions.workspace()
if here is None:
    st.caption("No git repository here: results have no revision.")
else:
    st.text(f"Revision {here.sha}, {'with changes not committed' if here.changed else 'clean'}")

facts = lineage.costs(view.study, frame.current_settings())
if facts is None:
    st.info("The environment and the run times of this study were not recorded.")
else:
    machine = facts["environment"]
    limited = ", CAMDRIFT_PROCESSOR=any" if machine.get("processor") == "any" else ""
    st.subheader("Environment of the run", anchor=False)
    st.text("\n".join([
        f"Python {machine['python']}, {machine['system']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB{limited}",
        ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        f"code at revision {machine['revision']}, {machine['changed_files']} files changed",
    ]))  # fmt: skip
    stages = pd.DataFrame(facts["stages"])
    st.subheader("Seconds per stage", anchor=False)
    duration = f"{stages['seconds'].sum() / 60:.1f} minutes in all; peak memory in MB."
    stages = stages.sort_values("seconds", ascending=False)
    frame.table(stages[["stage", "seconds", "peak_memory_mb"]], "stages", duration)

if "flags" in view.tables:
    st.subheader("Validity flags", anchor=False)
    frame.table(view.tables["flags"], "flags", "Conditions that limit the validity of a number: "
                "the measured value, the limit, and the claims affected.")  # fmt: skip

measured = benchmarks.measurements()
if "races" in measured:
    st.subheader("Speed against other libraries", anchor=False)
    machine = measured["environment"]
    frame.table(benchmarks.summary(measured["races"]), "races", "Published by `make bench`, side "
                f"by side on {machine['threads']} threads of {machine['cores']} cores: how many "
                "times as long the other takes, geometric mean and worst.")  # fmt: skip
robust = robustness.table()
if robust is not None:
    st.subheader("Robust accuracy, here and by torchattacks", anchor=False)
    frame.table(robust, "robustness", "Published by `make robustness`: share of images that a "
                "network classifies right under an attack, and the seconds taken.")  # fmt: skip

st.subheader("Data and licences", anchor=False)
rows = []
for sheet in lineage.datasheets():
    content = files.read_json(sheet)
    for licence, sources in content["licences"].items():
        rows.append({"set": sheet.stem, "licence": licence, "images in all": content["images"],
                     "sources": ", ".join(sources) if isinstance(sources, list) else str(sources),
                     "sha256": content["sha256"]})  # fmt: skip
frame.table(pd.DataFrame(rows), "licences", "Every image set behind the results.")

st.subheader("Hashes", anchor=False)
hashes = lineage.hashes(view.study)
if hashes.empty:
    st.caption(
        "dvc.lock names no stage of this study: the study was built in a copy of the repository."
    )
else:
    stage = frame.choice(st, "Stage", hashes["stage"].unique().tolist(), key="stage")
    frame.table(hashes[hashes["stage"] == stage], "hashes", "The stage's inputs and outputs, by "
                "their MD5 in dvc.lock: equal hashes mean equal content.")  # fmt: skip

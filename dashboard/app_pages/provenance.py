"""The origin of the results on screen: code, environment, data, hashes."""

import address
import frame
import lineage
import page
import pandas as pd
import revisions
import streamlit as st

from camdrift.ops import benchmarks, robustness
from camdrift.storage import files

view = frame.view()
page.header("Provenance")
here = revisions.workspace()
if here is None:
    page.caption("No git repository here: results have no revision.")
else:
    page.line(f"Revision {here.sha}, {here.state}")

facts = lineage.costs(view.study, frame.current_settings())
if facts is None:
    page.info("The environment and the run times of this study were not recorded.")
else:
    machine = facts["environment"]
    limited = ", CAMDRIFT_PROCESSOR=any" if machine.get("processor") == "any" else ""
    page.subheader("Environment of the run")
    ended = max((stage.get("ended", "") for stage in facts["stages"]), default="")
    cpu = f"{machine['cpu']}, " if machine.get("cpu") else ""
    page.line("\n".join([
        f"Last stage ended {ended.replace('T', ' ').removesuffix('+00:00')} UTC" if ended
        else "The date of the run was not recorded",
        f"Python {machine['python']}, {machine['system']}, {cpu}{machine['cores']} cores, "
        f"{machine['memory_gb']} GB{limited}",
        ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        f"code at revision {machine['revision']}, {machine['changed_files']} files changed",
    ]))  # fmt: skip
    stages = pd.DataFrame(facts["stages"])
    page.subheader("Seconds per stage")
    duration = f"{stages['seconds'].sum() / 60:.1f} minutes in all; peak memory in MB."
    stages = stages.sort_values("seconds", ascending=False)
    page.table(stages[["stage", "seconds", "peak_memory_mb"]], "stages", duration)

if "flags" in view.tables:
    page.subheader("Validity flags")
    page.table(view.tables["flags"], "flags", "Conditions that limit the validity of a number: "
                "the measured value, the limit, and the claims affected.")  # fmt: skip

measured = benchmarks.measurements()
if "races" in measured:
    page.subheader("Speed against other libraries")
    machine = measured["environment"]
    page.table(benchmarks.summary(measured["races"]), "races", "Published by `make bench`, side "
                f"by side on {machine['threads']} threads of {machine['cores']} cores: how many "
                "times as long the other takes, geometric mean and worst.")  # fmt: skip
robust = robustness.table()
if robust is not None:
    page.subheader("Robust accuracy, here and by torchattacks")
    page.table(robust, "robustness", "Published by `make robustness`: share of images that a "
                "network classifies right under an attack, and the seconds taken.")  # fmt: skip

page.subheader("Data and licences")
rows = []
for sheet in lineage.datasheets():
    content = files.read_json(sheet)
    for licence, sources in content["licences"].items():
        rows.append({"set": sheet.stem, "licence": licence, "images in all": content["images"],
                     "sources": ", ".join(sources) if isinstance(sources, list) else str(sources),
                     "sha256": content["sha256"]})  # fmt: skip
page.table(pd.DataFrame(rows), "licences", "Every image set behind the results.")

page.subheader("Hashes")
hashes = lineage.hashes(view.study)
if hashes.empty:
    page.caption(
        "dvc.lock names no stage of this study: the study was built in a copy of the repository."
    )
else:
    stage = address.choice(st, "Stage", hashes["stage"].unique().tolist(), key="stage")
    page.table(hashes[hashes["stage"] == stage], "hashes", "The stage's inputs and outputs, by "
                "their MD5 in dvc.lock: equal hashes mean equal content.")  # fmt: skip

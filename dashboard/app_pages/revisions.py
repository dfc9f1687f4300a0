"""Commits and experiments, and two of them side by side."""

import frame
import pandas as pd
import revisions
import streamlit as st

view = frame.view()
st.header("Experiments and revisions", anchor=False)
found = revisions.listed()
if not found:
    st.info("No git repository here, or none of its commits has results. Clone the repository.")
    st.stop()
rows = []
for revision in found:
    row = {"revision": revision.sha[:7], "when": revision.when, "kind": revision.kind,
           "what": revision.text}  # fmt: skip
    if st.session_state.get("with_metrics"):
        try:
            settings, metrics = revisions.facts(revision.sha)
        except revisions.UnreadableError as fault:
            row["note"] = str(fault)
        else:
            row["seed"] = settings.get("params.yaml.seed", settings.get("seed"))
            row |= {name.rpartition(f"{view.study}/metrics.json.")[2]: value
                    for name, value in metrics.items()
                    if f"{view.study}/metrics.json." in name}  # fmt: skip
    rows.append(row)
st.toggle("With settings and metrics of this study (reads every revision once)",
          key="with_metrics", bind="query-params")  # fmt: skip
frame.table(pd.DataFrame(rows), "revisions", "The last commits that changed results or settings, "
            "and DVC's experiments, which a clone does not bring: `dvc exp pull`.")  # fmt: skip

st.subheader("Two side by side", anchor=False)
names = {r.sha: f"{r.sha[:7]} {r.text[:40]}" for r in found}
boxes = st.columns(2)
before = boxes[0].selectbox("Before", list(names), index=min(1, len(names) - 1), key="before",
                            format_func=names.get, bind="query-params")  # fmt: skip
after = boxes[1].selectbox("After", list(names), key="after", format_func=names.get,
                           bind="query-params")  # fmt: skip
try:
    pair = [revisions.facts(sha) for sha in (before, after)]
except revisions.UnreadableError as fault:
    st.info(f"A revision has no results that can be read here ({fault}). Choose another.")
    st.stop()
for i, (title, name) in enumerate(
    [("Changed settings", "settings"), ("Changed metrics", "metrics")]
):
    st.markdown(f"**{title}**")
    changes = revisions.compared(pair[0][i], pair[1][i])
    if changes.empty:
        st.caption("None.")
    else:
        frame.table(changes, name, "What differs between the two revisions.")
both = [revisions.figures(sha, view.study) for sha in (before, after)]
drawn = sorted({*both[0], *both[1]})
if not drawn:
    st.caption(f"Neither has figures of '{view.study}'.")
    st.stop()
name = st.selectbox("Figure", drawn, key="png", bind="query-params")
for box, sha, there in zip(st.columns(2), (before, after), both, strict=True):
    box.text(names[sha])
    if name in there:
        box.image(revisions.figure(sha, view.study, name), width="stretch",
                  alt=f"{name} at {sha[:7]}")  # fmt: skip
    else:
        box.info("This revision has no such figure.")

"""Commits and experiments, and a comparison of two of them."""

import address
import frame
import page
import pandas as pd
import revisions
import streamlit as st

from camdrift import storage
from camdrift.settings import params


def short(sha: str) -> str:
    """Returns the first digits of a commit's hash, or that it is the workspace."""
    return sha if sha == revisions.WORKSPACE else sha[:7]


view = frame.view()
page.header("Experiments and revisions")
history = revisions.latest()
if not history:
    page.info("There is no git repository here, or no commit has results. Clone the repository.")
    st.stop()
here = revisions.Revision(revisions.WORKSPACE, "now", "what is in this folder",
                          revisions.WORKSPACE)  # fmt: skip
history = [here, *history]
stamp = frame.latest(storage.RESULTS, storage.REPORTS, params.PARAMS)
if not any(revision.kind == "experiment" for revision in history):
    page.caption(
        "There is no experiment here. `dvc exp run -S seed=2` makes one: it runs the study "
        "with another setting and leaves the workspace as it is if you add `--temp`."
    )
with_metrics = st.toggle("With metrics of this study (reads every revision once)",
                         key="with_metrics", bind="query-params")  # fmt: skip
rows = []
for revision in history:
    row = {"revision": short(revision.sha), "when": revision.when, "kind": revision.kind,
           "what": revision.text}  # fmt: skip
    if with_metrics:
        row["seed"] = revisions.settings(revision.sha, stamp).get("seed")
        row |= revisions.metrics(revision.sha, view.study, stamp)
    rows.append(row)
page.table(pd.DataFrame(rows), "revisions", "This folder, the last commits that changed results "
            "or settings, and DVC's experiments; a clone lacks these, `dvc exp pull` fetches them.",
            )  # fmt: skip

page.subheader("Two side by side")
names = {r.sha: f"{short(r.sha)} {r.text[:40]}" for r in history}
boxes = st.columns(2)
before = address.choice(boxes[0], "Before", list(names), key="before", format_func=names.get,
                      default=list(names)[min(1, len(names) - 1)])  # fmt: skip
after = address.choice(boxes[1], "After", list(names), key="after", format_func=names.get)
pair = before, after
for title, name, trees in (
    ("Changed settings", "settings", [revisions.settings(sha, stamp) for sha in pair]),
    ("Changed verdicts", "verdicts", [revisions.verdicts(sha, view.study, stamp) for sha in pair]),
    ("Changed metrics", "metrics", [revisions.metrics(sha, view.study, stamp) for sha in pair]),
):
    page.markdown(f"**{title}**")
    absent = [short(sha) for sha, tree in zip(pair, trees, strict=True) if not tree]
    changes = revisions.differences(*trees)
    if absent:
        page.info(f"{' and '.join(absent)}: no {name} of '{view.study}' that can be read here.")
    elif changes.empty:
        page.caption("None.")
    else:
        page.table(changes, name, "Differences between the two revisions.")
both = [revisions.figures(sha, view.study, stamp) for sha in pair]
figure_names = sorted({*both[0], *both[1]})
if not figure_names:
    page.caption(f"Neither revision has figures of '{view.study}'.")
    st.stop()
name = address.choice(st, "Figure", figure_names, key="png")
for box, sha, figures in zip(st.columns(2), pair, both, strict=True):
    page.line(names[sha], box)
    picture = revisions.figure(sha, view.study, name, stamp) if name in figures else None
    if picture:
        page.image(picture, alt=f"{name} at {short(sha)}", place=box)
    else:
        page.info("This revision lacks the figure.", box)

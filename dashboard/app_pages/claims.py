"""The published claims and the corrected experiment's verdict on each."""

import frame
import pandas as pd
import streamlit as st

from camdrift import storage
from camdrift.papers import claims, interface
from camdrift.papers.renkhoff2022 import report
from camdrift.settings import RENKHOFF, ZHANG


def show_figures(view: frame.View, claim: str) -> int:
    """Shows the figures of a claim and returns their number; pictures as the report wrote them."""
    paper = interface.paper(view.plan.paper)
    draws, count = paper.by_name(view.plan, view.tables), 0
    for name in next(known.figures for known in paper.CLAIMS if known.id == claim):
        path = storage.shown(view.study, "figures") / f"{name}.png"
        figure = draws[name]() if name in draws else None
        if figure is not None and not figure.is_blank:
            frame.show(figure)
        elif figure is None and path.exists():
            st.image(path, alt=name)
        else:
            continue
        count += 1
    return count


def show_rows(claim: str, title: str, rows: pd.DataFrame, name: str, alt: str) -> None:
    """Shows the rows of a claim under a title, nothing where it has none."""
    own = rows[rows["claim"] == claim]
    if len(own):
        st.subheader(title, anchor=False)
        frame.table(own, name, alt)


def take_selection() -> None:
    """Selects the claim whose row was clicked."""
    rows = st.session_state["claims_table"]["selection"]["rows"]
    if rows:
        st.session_state["claim"] = st.session_state["claims_shown"][rows[0]]


view = frame.view()
table = claims.texts(view.tables)
st.header("Claims", anchor=False)
frame.forget_stale("verdicts", set(table["verdict"]))
verdicts = st.multiselect("Verdict", sorted(table["verdict"].unique()), key="verdicts",
                          bind="query-params")  # fmt: skip
selection = table[table["verdict"].isin(verdicts)] if verdicts else table
st.caption(
    f"{len(selection)} of {len(table)} claims. Statistics and thresholds were set before any "
    "result, except where a claim's source says 'seen'; 'corrected' decides. A verdict applies to "
    "the images and the model of this study, not to those of the paper. Choose a row to see its "
    "figures."
)
st.session_state["claims_shown"] = selection["claim"].tolist()
first = ["claim", "verdict", "after Holm", "says", "corrected", "as published", "printed", "flags"]
if not table["after Holm"].any():  # of results by an earlier revision
    first.remove("after Holm")
st.dataframe(selection, hide_index=True, column_order=first, key="claims_table",
             on_select=take_selection, selection_mode="single-row",
             alt="Claims of the papers, with verdicts")  # fmt: skip
frame.keep(view.tables["claims"], "claims")

claim = frame.choice(st, "Claim", table["claim"].tolist(), key="claim")
row = table.set_index("claim").loc[claim]
st.subheader(f"{claim}: {row['says']}", anchor=False)
st.caption(f"{row['of']}, {row['where']}. {row['statistic']}.")
corrected = f"{row['corrected']} {row['verdict']}"
if row["after Holm"]:
    corrected += f"; after Holm over all claims: {row['after Holm']}"
sides = st.columns(2)
for side, title, text, detail in (
    (sides[0], "As published", row["as published"], row["behind it, as published"]),
    (sides[1], "Corrected", corrected, row["behind it"]),
):
    with side.container(border=True):
        st.markdown(f"**{title}**")
        st.text(text.strip() or "not run here")
        st.caption("Details of the statistic:")
        st.text(detail or "-")
if row["flags"]:
    st.warning(f"Flags that touch this claim: {row['flags']}", icon=":material/flag:")
st.text(f"Rests on: {row['rests on']}")
if row["verdict"] == "not run here":
    st.info("This study does not test this claim; choose another study to see its verdict.")
elif not show_figures(view, claim):
    st.caption("No figure shows this claim: it is the single number above.")
cell = ""
if "switches" in view.tables:
    cell = claims.deciding(view.tables["switches"], view.plan.headline).get(claim, "")
if cell:
    show_rows(
        claim,
        "One switch at a time",
        claims.by_protocol(view.tables, cell),
        "switches",
        "The claim's statistic under each protocol of the cell: corrected, as published, and with "
        "a single switch set as published.",
    )
if cell and view.plan.paper in (RENKHOFF, ZHANG) and "readings" in view.tables:
    show_rows(
        claim,
        "Other readings",
        claims.by_reading(view.tables, cell),
        "readings",
        "The same statistic on some of the images, or with every map for one class over the same "
        "layers.",
    )
if view.plan.paper == RENKHOFF:
    st.subheader("Controls", anchor=False)
    frame.table(report.controls(view.tables, view.plan.headline), "controls",
                "Similarity to the clean map at strength 100 %, mean over layers.")  # fmt: skip

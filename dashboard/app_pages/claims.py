"""The published claims and the corrected experiment's verdict on each."""

import address
import details
import frame
import page
import pandas as pd
import streamlit as st

from camdrift.ops import seeds
from camdrift.papers import claims
from camdrift.papers.renkhoff2022 import report
from camdrift.settings import RENKHOFF, ZHANG


def show_rows(claim: str, title: str, rows: pd.DataFrame, name: str, alt: str) -> None:
    """Shows the rows of a claim under a title, nothing where it has none."""
    own = rows[rows["claim"] == claim]
    if len(own):
        page.subheader(title)
        page.table(own, name, alt)


def take_selection() -> None:
    """Selects the claim whose row was clicked."""
    rows = st.session_state["claims_table"]["selection"]["rows"]
    if rows:
        st.session_state["claim"] = st.session_state["claims_shown"][rows[0]]


view = frame.view()
table = claims.texts(view.tables)
page.header("Claims")
address.forget_stale("verdicts", set(table["verdict"]))
verdicts = st.multiselect("Verdict", sorted(table["verdict"].unique()), key="verdicts",
                          bind="query-params")  # fmt: skip
page.chose("Verdict", verdicts or ["all"])
selection = table[table["verdict"].isin(verdicts)] if verdicts else table
page.caption(
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
page.record_table(selection[first], "Claims of the papers, with verdicts.")
rows = view.tables["claims"]
page.download(rows[rows["id"].isin(selection["claim"])], "claims")

if selection.empty:
    st.stop()
claim = address.choice(st, "Claim", selection["claim"].tolist(), key="claim")
details.show(view, claim)
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
spread = seeds.read(view.study)
if spread is not None:
    show_rows(
        claim,
        "Under other seeds",
        seeds.verdicts(spread),
        "seeds",
        "The study with other seeds: split, weights, attack and noise drawn anew.",
    )
if view.plan.paper == RENKHOFF:
    page.subheader("Controls")
    page.table(report.controls(view.tables, view.plan.headline), "controls",
                "Similarity to the clean map at strength 100 %, mean over layers.")  # fmt: skip

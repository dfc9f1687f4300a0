"""The published claims and the corrected experiment's verdict on each."""

from collections.abc import Callable

import frame
import streamlit as st

from camdrift import storage
from camdrift.analysis import drawing
from camdrift.papers import claims, report
from camdrift.papers.chakraborty2022 import figures as generalisation_figures
from camdrift.papers.klawikowska2020 import figures as hardening_figures
from camdrift.papers.renkhoff2022 import figures
from camdrift.papers.tan2023 import figures as detection_figures
from camdrift.settings import Generalisation, Study

CLAIMS = {claim.id: claim for claim in claims.CLAIMS}


def figure_makers(view: frame.View) -> dict[str, Callable[[], drawing.Figure]]:
    """Returns a function for each figure of a study that needs tables alone, by name."""
    tables, plan = view.tables, view.plan
    if isinstance(plan, Study):
        return figures.by_name(tables, plan.headline) | detection_figures.by_name(
            tables, plan.headline
        )
    if isinstance(plan, Generalisation):
        return generalisation_figures.by_name(tables, explains=plan.explains)
    return hardening_figures.by_name(tables)


def show_figures(view: frame.View, claim: str) -> int:
    """Shows the figures of a claim and returns their number; pictures as the report wrote them."""
    makers, count = figure_makers(view), 0
    for name in CLAIMS[claim].figures:
        path = storage.results(view.study, "figures") / f"{name}.png"
        figure = makers[name]() if name in makers else None
        if figure is not None and not figure.is_blank:
            frame.show(figure)
        elif figure is None and path.exists():
            st.image(path, alt=name)
        else:
            continue
        count += 1
    return count


def take_selection() -> None:
    """Selects the claim whose row was clicked."""
    rows = st.session_state["claims_table"]["selection"]["rows"]
    if rows:
        st.session_state["claim"] = st.session_state["claims_shown"][rows[0]]


view = frame.view()
table = report.claims(view.tables)
st.header("Claims", anchor=False)
columns = st.columns(2)
for key, column in (("papers", "of"), ("verdicts", "verdict")):
    frame.forget_stale(key, set(table[column]))
papers = columns[0].multiselect("Paper", sorted(table["of"].unique()), key="papers",
                                bind="query-params")  # fmt: skip
verdicts = columns[1].multiselect("Verdict", sorted(table["verdict"].unique()), key="verdicts",
                                  bind="query-params")  # fmt: skip
selection = table
if papers:
    selection = selection[selection["of"].isin(papers)]
if verdicts:
    selection = selection[selection["verdict"].isin(verdicts)]
st.caption(
    f"{len(selection)} of {len(table)} claims. Statistics and thresholds were set before any "
    "result; 'corrected' decides. A verdict applies to the images and the model of this study, not "
    "to those of the paper. Choose a row to see its figures."
)
st.session_state["claims_shown"] = selection["claim"].tolist()
first = ["claim", "of", "says", "printed", "as published", "corrected", "verdict", "flags"]
st.dataframe(selection, hide_index=True, column_order=first, key="claims_table",
             on_select=take_selection, selection_mode="single-row",
             alt="Claims of the papers, with verdicts")  # fmt: skip
frame.keep(view.tables["claims"], "claims")

claim = frame.choice(st, "Claim", table["claim"].tolist(), key="claim")
row = table.set_index("claim").loc[claim]
st.subheader(f"{claim}: {row['says']}", anchor=False)
st.caption(f"{row['of']}, {row['where']}. {row['statistic']}.")
sides = st.columns(2)
for side, title, text, detail in (
    (sides[0], "As published", row["as published"], row["behind it, as published"]),
    (sides[1], "Corrected", f"{row['corrected']} {row['verdict']}", row["behind it"]),
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
if isinstance(view.plan, Study):
    switches = report.switches(view.tables, view.plan.headline)
    st.subheader("One switch at a time", anchor=False)
    frame.table(
        switches[switches["claim"] == claim] if claim in set(switches["claim"]) else switches,
        "switches",
        "The claim's statistic under the corrected protocol, under the published one, and with a "
        "single switch set as published.",
    )
    st.subheader("Controls", anchor=False)
    frame.table(report.controls(view.tables, view.plan.headline), "controls",
                "Similarity to the clean map at strength 100 %, mean over layers.")  # fmt: skip

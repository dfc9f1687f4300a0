"""Published claims against the corrected experiment, one by one."""

from collections.abc import Callable

import frame
import streamlit as st

from camdrift.analysis import drawing
from camdrift.papers import report
from camdrift.papers.chakraborty2022 import figures as generalisation_figures
from camdrift.papers.klawikowska2020 import figures as hardening_figures
from camdrift.papers.renkhoff2022 import figures
from camdrift.papers.tan2023 import figures as detection_figures
from camdrift.settings import Generalisation, Study


def about(view: frame.View) -> dict[str, Callable[[], drawing.Figure]]:
    """Returns the figure that each claim of a study is read from."""
    made, plan = view.made, view.plan
    if isinstance(plan, Study):
        cell = plan.headline
        drift = lambda: figures.drift(made, cell)  # noqa: E731
        strengths = lambda: figures.lines(made, cell, "adversarial", "5a")  # noqa: E731
        rule = lambda: figures.compromised(made, cell)  # noqa: E731
        return {
            "A1": drift, "A1f": drift, "A3": drift, "A4": drift,
            "A2": lambda: figures.boxes(made, cell, "adversarial", "4a"),
            "A5": strengths, "A6": strengths, "A7": strengths,
            "A8": lambda: figures.groups(made, cell),
            "A9": rule, "A10": rule,
            "A11": lambda: figures.compromised_counts(made, cell),
            "A12": lambda: figures.compromised_counts(made, cell),
            "A13": lambda: figures.coverage_by_arm(made, cell),
            "A14": lambda: figures.coverage_by_strength(made, cell),
            "B1": lambda: detection_figures.accuracy(made, cell),
            "B1b": lambda: detection_figures.curves(made, cell),
            "B2": lambda: detection_figures.rates(made, cell),
            "B3": lambda: detection_figures.rates(made, cell),
            "B4": lambda: detection_figures.rates(made, cell),
            "B8": lambda: detection_figures.knowing(made, made["knowing"]["cell"].iloc[0]),
        }  # fmt: skip
    if isinstance(plan, Generalisation):
        shift = lambda: generalisation_figures.shift(made, "carried", plan.explains)  # noqa: E731
        return {
            "D1": shift, "D4": shift, "D2": lambda: generalisation_figures.accuracy(made),
            "D3": lambda: generalisation_figures.relation(made, plan.explains),
            "D5": lambda: generalisation_figures.matrix(made),
            "D6": lambda: generalisation_figures.groups(made, plan.explains),
            "D7": lambda: generalisation_figures.pairs(made),
        }  # fmt: skip
    return {
        "C1": lambda: hardening_figures.accuracy(made),
        "C2": lambda: hardening_figures.accuracy(made),
        "C2b": lambda: hardening_figures.success(made),
        "C6": lambda: hardening_figures.plane(made),
    }


def selected() -> None:
    """Takes the claim whose row was clicked."""
    rows = st.session_state["claims_table"]["selection"]["rows"]
    if rows:
        st.session_state["claim"] = st.session_state["claims_shown"][rows[0]]


view = frame.view()
table = report.claims(view.made)
st.header("Claims", anchor=False)
columns = st.columns(2)
for key, column in (("papers", "of"), ("verdicts", "verdict")):
    frame.still(key, set(table[column]))
papers = columns[0].multiselect("Paper", sorted(table["of"].unique()), key="papers",
                                bind="query-params")  # fmt: skip
verdicts = columns[1].multiselect("Verdict", sorted(table["verdict"].unique()), key="verdicts",
                                  bind="query-params")  # fmt: skip
shown = table
if papers:
    shown = shown[shown["of"].isin(papers)]
if verdicts:
    shown = shown[shown["verdict"].isin(verdicts)]
st.caption(
    f"{len(shown)} of {len(table)} claims. Statistics and thresholds were set before any result; "
    "'corrected' decides. A verdict speaks of the images and the model that it rests on, not of "
    "those of the paper. Choose a row to see what is behind it."
)
st.session_state["claims_shown"] = shown["claim"].tolist()
first = ["claim", "of", "says", "printed", "as published", "corrected", "verdict", "flags"]
st.dataframe(shown, hide_index=True, column_order=first, key="claims_table", on_select=selected,
             selection_mode="single-row", alt="Claims of the papers, with verdicts")  # fmt: skip
frame.keep(view.made["claims"], "claims")

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
        st.caption("What the statistic is made of:")
        st.text(detail or "-")
if row["flags"]:
    st.warning(f"Flags that touch this claim: {row['flags']}", icon=":material/flag:")
st.text(f"Rests on: {row['rests on']}")
known = about(view)
if row["verdict"] == "not run here":
    st.info("This study does not ask it; choose another study to see it judged.")
elif claim in known:
    frame.show(known[claim]())
else:
    st.caption("No figure: the claim is a single number, above.")
if isinstance(view.plan, Study):
    switches = report.switches(view.made, view.plan.headline)
    st.subheader("One switch at a time", anchor=False)
    frame.table(
        switches[switches["claim"] == claim] if claim in set(switches["claim"]) else switches,
        "switches",
        "The claim's statistic under the corrected protocol, under the published one, and with a "
        "single switch set as published.",
    )
    st.subheader("Controls", anchor=False)
    frame.table(report.controls(view.made, view.plan.headline), "controls",
                "Similarity to the clean map at strength 100 %, mean over layers.")  # fmt: skip

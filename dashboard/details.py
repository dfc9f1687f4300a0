"""A study's verdict on a claim in detail: both sides, flags and figures."""

import frame
import streamlit as st

from camdrift import storage
from camdrift.papers import claims, interface


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


def show(view: frame.View, claim: str) -> None:
    """Shows a study's verdict on a claim: published beside corrected, flags, and figures."""
    row = claims.texts(view.tables).set_index("claim").loc[claim]
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
